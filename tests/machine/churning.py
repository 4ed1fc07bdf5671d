"""Half a minute of random sockets and processes, which the folded stream has to follow.

It takes a minute and a half, most of it waiting: it runs beside other tests.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

from agent.snapshot.plan import SWEEP_SECONDS

from .helpers import DEADLINE, Follow, Key, Record, snapshot

SECONDS = 30.0
PROCESSES = 4
FIELDS = (
    "proto", "family", "type", "state", "local_addr", "local_port", "remote_addr", "remote_port",
    "path", "fds", "comm", "uid", "netns",
)  # fmt: skip


def state_of(records: Iterable[Record], pids: set[int]) -> dict[Key, tuple[object, ...]]:
    return {
        (record["pid"], record["inode"]): tuple(record.get(name) for name in FIELDS)
        for record in records
        if record["pid"] in pids
    }


def session(leaders: set[int]) -> set[int]:
    """Return the processes of the sessions with these leaders."""
    members = set()
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                if os.getsid(int(name)) in leaders:
                    members.add(int(name))
            except ProcessLookupError:
                continue
    return members


def churner(
    directory: Path, seed: int, seconds: float = SECONDS, pause: float = 0.01
) -> subprocess.Popen[bytes]:
    module = f"{__package__}.churner"
    return subprocess.Popen(
        (sys.executable, "-m", module, str(directory), str(seed), str(seconds), str(pause)),
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        cwd=Path(__file__).parents[2],
    )


def churn(directory: Path) -> None:
    """Fail if the folded stream differs from the sockets that exist."""
    seed = random.SystemRandom().randrange(2**32)
    print("seed", seed)
    with Follow(interval=0.2) as follow, ExitStack() as stack:
        follow.started()
        end = time.monotonic() + SECONDS
        leaders = set()
        for number in range(PROCESSES):
            process = stack.enter_context(churner(directory, seed + number))
            stack.callback(process.kill)
            leaders.add(process.pid)
        follow.until(lambda: time.monotonic() > end, SECONDS + DEADLINE)
        # The churn is over, except for last steps of its processes and timers of the kernel.
        # The last replaced descriptor, which may show nowhere else, is found by the sweep.
        end = time.monotonic() + SWEEP_SECONDS + DEADLINE
        while time.monotonic() < end:
            pids = session(leaders)
            truth = state_of(snapshot(), pids)
            try:
                follow.until(lambda: state_of(follow.fold.values(), pids) == truth, 1)  # noqa: B023
                break
            except TimeoutError:
                continue
        fold = state_of(follow.fold.values(), pids)
        wrong = {key: (fold.get(key), truth.get(key)) for key in fold.keys() ^ truth.keys()}
        wrong |= {key: (fold[key], truth.get(key)) for key in fold if truth.get(key) != fold[key]}
        assert not wrong
        assert len(pids) > PROCESSES
        assert len(fold) > PROCESSES
        # The churn had each kind of delta, of each kind of socket, for each reason.
        events = {record["event"] for record in follow.records}
        assert events >= {"open", "update", "close"}
        protos = {record["proto"] for record in follow.records if record["event"] == "open"}
        assert protos >= {"tcp", "udp", "unix"}
        reasons = {record["reason"] for record in follow.records if record["event"] == "close"}
        assert reasons >= {"closed", "exited"}
        # Nothing is left of processes that ended.
        follow.until(
            lambda: all(pid is None or Path(f"/proc/{pid}").exists() for pid, _ in follow.fold)
        )
