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
from typing import Any

import pytest

from agent.stream.encoder import record_fields
from agent.stream.recording import RecordReader, open_recording, state_at
from agent.stream.state import State

from ..make import fold
from .churning import churner, session
from .helpers import COMMAND, DEADLINE, Holder, Key, Record

MOMENTS = 10
PROCESSES = 3
# Longer than the clocks of events and of this process may differ.
APART_SECONDS = 0.1
# Of a record that is not in the holding.
NOT_OF_HOLDINGS = {"event", "seq", "time", "time_source", "host", "previous", "attribution"}

Sockets = dict[Key, Record]


class Recorded:
    """``sockagent --follow`` into a file, and the fold of what it has written so far."""

    def __init__(self, path: Path) -> None:
        self.fold: dict[tuple[int | None, int], Record] = {}
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

    def until(self, holds: Callable[[], bool]) -> None:
        """Read until the condition holds."""
        end = time.monotonic() + DEADLINE
        while not holds():
            assert time.monotonic() < end, "the condition never held"
            time.sleep(0.02)
            self.read()

    def after_two_polls(self, holder: Holder) -> None:
        """Wait until two polls have begun and ended: no event tells of these sockets."""
        for _ in range(2):
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


def moments(
    recorded: Recorded, holder: Holder, leaders: Iterable[int]
) -> Iterator[tuple[float, set[int], Sockets]]:
    """Yield times at which the churn stands still, its processes and what the fold has of them."""
    for _ in range(MOMENTS):
        time.sleep(random.random())
        for leader in leaders:
            os.killpg(leader, signal.SIGSTOP)
        try:
            recorded.after_two_polls(holder)
            time.sleep(APART_SECONDS)
            recorded.read()
            pids = session(set(leaders))
            yield time.time(), pids, of_records(recorded.fold, pids)
            time.sleep(APART_SECONDS)
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
            process = stack.enter_context(churner(paths, random.randrange(2**32), DEADLINE * 3))
            stack.callback(os.killpg, process.pid, signal.SIGKILL)
            leaders.append(process.pid)
        recorded.until(lambda: all(any(pid == key[0] for key in recorded.fold) for pid in leaders))
        kept = list(moments(recorded, holder, leaders))
        recorded.after_two_polls(holder)
    recorded.stop()

    with open_recording(str(recorded.path)) as lines:
        records = list(RecordReader(lines))
    for at, pids, expected in kept:
        assert of_state(state_at(records, at), pids) == expected
    assert len({len(expected) for _, _, expected in kept}) > 1
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
