"""Build values of the model from few arguments, and apply records as a subscriber does."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from agent.model import (
    Coverage,
    Holding,
    Owner,
    Process,
    ShortLived,
    Snapshot,
    Socket,
)

Record = dict[str, Any]
Fold = dict[tuple[int | None, int], Record]

FULL_COVERAGE = Coverage(processes=1, unreadable=0, netns=1)


def tcp(inode: int = 11, state: str = "LISTEN", **more: Any) -> Socket:
    fields: dict[str, Any] = {
        "local_addr": "127.0.0.1",
        "local_port": 8080,
        "recv_q": 0,
        "send_q": 0,
        "uid": 0,
        "netns": 1,
        **more,
    }
    return Socket(inode, "tcp", "inet", None, state, **fields)


def process(pid: int = 7, start_ticks: int = 100, **more: Any) -> Process:
    fields: dict[str, Any] = {"comm": "app", "ppid": 1, "start_time": 1_700_000_000.0, **more}
    return Process(pid, start_ticks, **fields)


def holding(
    socket: Socket | None = None, by: Process | None = None, fds: tuple[int, ...] = (3,)
) -> Holding:
    """Return a holding of process 7, or of the process ``by``."""
    return Holding(socket or tcp(), by or process(), fds, Owner(0, "root"))


def without_holder(socket: Socket | None = None) -> Holding:
    """Return the holding of a socket whose holder is unknown."""
    return Holding(socket or tcp(), None, (), Owner(0, "root"))


def key(holding: Holding) -> tuple[int | None, int]:
    return (holding.process.pid if holding.process else None, holding.socket.inode)


def snapshot(
    *holdings: Holding,
    time: float = 1_700_000_100.0,
    coverage: Coverage = FULL_COVERAGE,
    others: Iterable[Process] = (),
    short_lived: tuple[Holding | ShortLived, ...] = (),
) -> Snapshot:
    """Return a snapshot; ``others`` are processes without a socket."""
    processes = [one.process for one in holdings if one.process] + list(others)
    return Snapshot(
        time,
        {key(one): one for one in holdings},
        {one.pid: one.start_ticks for one in processes},
        coverage,
        short_lived=tuple(
            one if isinstance(one, ShortLived) else ShortLived(one) for one in short_lived
        ),
    )


def records(data: bytes) -> list[Record]:
    """Parse NDJSON. Raise an error for a line that is not JSON or has no end."""
    assert data.endswith(b"\n")
    return [json.loads(line) for line in data[:-1].split(b"\n")]


def fold(state: Fold, records: Iterable[Record]) -> Fold:
    """Apply records to a subscriber's state; return the new state.

    Raise AssertionError if a record does not fit the state, such as the close of an unknown socket.
    """
    in_snapshot = False
    for record in records:
        event = record["event"]
        if event == "snapshot":
            if not in_snapshot:
                state, in_snapshot = {}, True
            assert (record["pid"], record["inode"]) not in state
            state[record["pid"], record["inode"]] = record
        elif event == "snapshot_end":
            state = state if in_snapshot else {}
            in_snapshot = False
            assert record["count"] == len(state)
        elif event in ("open", "update", "close"):
            pid_inode = (record["pid"], record["inode"])
            assert (pid_inode in state) == (event != "open")
            if event == "close":
                del state[pid_inode]
            else:
                state[pid_inode] = record
    return state
