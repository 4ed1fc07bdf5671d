"""A recording of random sockets and processes, read back at several times and cut off."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from agent.stream.decoder import Decoded
from agent.stream.encoder import record_fields
from agent.stream.recording import RecordReader, open_recording, state_at
from agent.stream.state import State

from ..make import fold
from .churning import churner, session
from .helpers import COMMAND, DEADLINE, Holder, Key, Record

MOMENTS = 10
PROCESSES = 2
# Churn before each moment: seconds, at most. With 120 the recording is of ten minutes.
CHURN_SECONDS = float(os.environ.get("SOCKAGENT_CHURN_SECONDS", "1"))
SECONDS = 120.0 + MOMENTS * CHURN_SECONDS  # Longer than the test takes.
# Between two steps of a process of the churn, on average; a long recording has to fit in memory.
PAUSE_SECONDS = 0.03 if CHURN_SECONDS < 10 else 0.2
# Longer than the clocks of events and of this process may differ.
APART_SECONDS = 0.1
# Of a record that is not in the holding.
NOT_OF_HOLDINGS = {"event", "seq", "time", "time_source", "host", "previous", "attribution"}

Sockets = dict[Key, Record]


class Recorded:
    """``sockagent --follow`` into a file, and the fold of what it has written so far."""

    def __init__(self, path: Path) -> None:
        self.fold: dict[Key, Record] = {}
        self.touched: set[Key] = set()  # Keys of the records since it was cleared.
        self.path = path
        self._rest = b""
        with path.open("wb") as file:
            self.process = subprocess.Popen(
                (*COMMAND, "--follow", "--interval", "0.2"),
                stdin=subprocess.DEVNULL, stdout=file,
            )  # fmt: skip
        self._file = path.open("rb")

    def stop(self) -> None:
        """End the agent; read what it wrote last."""
        self.process.terminate()
        try:
            assert self.process.wait(DEADLINE) == 0
        finally:
            self.process.kill()
            self.process.wait()
        self.read()
        self._file.close()

    def read(self) -> None:
        """Fold what was written since; a snapshot only when it is whole."""
        self._rest += self._file.read()
        *lines, rest = self._rest.split(b"\n")
        found = [json.loads(line) for line in lines]
        if not self.fold and not any(record["event"] == "snapshot_end" for record in found):
            return
        self._rest = rest
        self.fold = fold(self.fold, found)
        self.touched |= {(record["pid"], record["inode"]) for record in found if "pid" in record}

    def until(self, holds: Callable[[], bool]) -> None:
        """Read until the condition holds."""
        end = time.monotonic() + DEADLINE
        while not holds():
            assert time.monotonic() < end, "the condition never held"
            time.sleep(0.02)
            self.read()

    def after_polls(self, holder: Holder, count: int) -> None:
        """Wait until so many polls have begun and ended: no event tells of these sockets."""
        for _ in range(count):
            inode = holder.open("marker = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)")
            self.until(lambda: (holder.pid, inode) in self.fold)  # noqa: B023


def of_records(found: dict[Key, Record], pids: set[int]) -> Sockets:
    return {
        key: {name: value for name, value in record.items() if name not in NOT_OF_HOLDINGS}
        for key, record in found.items()
        if key[0] in pids
    }


def of_state(state: State, pids: set[int]) -> Sockets:
    plain: Callable[[object], Any] = lambda fields: json.loads(json.dumps(fields))  # noqa: E731
    found = (plain(record_fields(one.holding)) for one in state.holdings())
    return {(one["pid"], one["inode"]): one for one in found if one["pid"] in pids}


class Moment(NamedTuple):
    """A time at which the churn stood still, and what the fold had of its processes then."""

    time: float
    pids: set[int]
    sockets: Sockets
    # Sockets that the kernel changed meanwhile: a SYN may be answered late, and an event of that
    # time is reported by a later poll.
    unsettled: set[Key]

    def differences(self, records: Iterable[Decoded]) -> dict[Key, object]:
        """Return what the state of a recording at this time has differently."""
        found = of_state(state_at(records, self.time), self.pids)
        return {
            key: (found.get(key), self.sockets.get(key))
            for key in (found.keys() | self.sockets.keys()) - self.unsettled
            if found.get(key) != self.sockets.get(key)
        }


def moment(recorded: Recorded, holder: Holder, leaders: Iterable[int]) -> Moment:
    """Let the churn go on for a while, and stand still for a moment."""
    end = time.monotonic() + random.uniform(0, CHURN_SECONDS)
    while (left := end - time.monotonic()) > 0:
        time.sleep(min(left, 0.5))
        recorded.read()
    for leader in leaders:
        os.killpg(leader, signal.SIGSTOP)
    try:
        recorded.after_polls(holder, 2)
        time.sleep(APART_SECONDS)
        recorded.read()
        pids = session(set(leaders))
        now, sockets = time.time(), of_records(recorded.fold, pids)
        recorded.touched.clear()
        time.sleep(APART_SECONDS)
        recorded.after_polls(holder, 1)  # Its record is later than that time.
        unsettled = {key for key in recorded.touched if key[0] in pids}
        return Moment(now, pids, sockets, unsettled)
    finally:
        for leader in leaders:
            os.killpg(leader, signal.SIGCONT)


@pytest.fixture
def recorded(tmp_path: Path) -> Iterator[Recorded]:
    recorded = Recorded(tmp_path / "incident.ndjson")
    try:
        recorded.until(lambda: bool(recorded.fold))
        yield recorded
    finally:
        recorded.process.kill()
        recorded.process.wait()


def test_a_recording_of_churn_is_read_back(
    recorded: Recorded, holder: Holder, tmp_path: Path
) -> None:
    paths = tmp_path / "sockets"
    paths.mkdir()
    with ExitStack() as stack:
        leaders = []
        for _ in range(PROCESSES):
            process = stack.enter_context(
                churner(paths, random.randrange(2**32), SECONDS, PAUSE_SECONDS)
            )
            stack.callback(os.killpg, process.pid, signal.SIGKILL)
            leaders.append(process.pid)
        recorded.until(lambda: all(any(pid == key[0] for key in recorded.fold) for pid in leaders))
        kept = [moment(recorded, holder, leaders) for _ in range(MOMENTS)]
        recorded.after_polls(holder, 2)
    recorded.stop()

    with open_recording(str(recorded.path)) as lines:
        records = list(RecordReader(lines))
    for one in kept:
        assert not one.differences(records)
    assert sum(len(one.unsettled) for one in kept) < sum(len(one.sockets) for one in kept) / 20
    assert len({len(one.sockets) for one in kept}) > 1
    end = state_at(records)
    assert end.violations == 0
    pids = {pid for pid, _ in recorded.fold if pid is not None}
    assert of_state(end, pids) == of_records(recorded.fold, pids)

    # Cut in the middle of a line.
    whole = recorded.path.read_bytes()
    begin = whole.rindex(b"\n", 0, len(whole) * 2 // 3) + 1
    cut = tmp_path / "cut.ndjson"
    cut.write_bytes(whole[: begin + 40])
    with open_recording(str(cut)) as lines:
        reader = RecordReader(lines)
        state = state_at(reader)
    number = whole.count(b"\n", 0, begin) + 1
    assert reader.problems() == [f"cut off in line {number}"]
    before = fold({}, [json.loads(line) for line in whole[:begin].splitlines()])
    pids = {pid for pid, _ in before if pid is not None}
    assert of_state(state, pids) == of_records(before, pids)
