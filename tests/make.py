"""Values of the model, made short; and how a subscriber folds what it is sent."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from agent.model import (
    Coverage,
    Holding,
    Owner,
    Process,
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
    """Held by process 7, unless ``by`` says who."""
    return Holding(socket or tcp(), by or process(), fds, Owner(0, "root"))


def without_holder(socket: Socket | None = None) -> Holding:
    return Holding(socket or tcp(), None, (), Owner(0, "root"))


def key(one: Holding) -> tuple[int | None, int]:
    return (one.process.pid if one.process else None, one.socket.inode)


def snapshot(
    *holdings: Holding,
    time: float = 1_700_000_100.0,
    coverage: Coverage = FULL_COVERAGE,
    others: Iterable[Process] = (),
    short_lived: tuple[Holding, ...] = (),
) -> Snapshot:
    """``others`` are processes that hold nothing, ``brief`` what came and went."""
    processes = [one.process for one in holdings if one.process] + list(others)
    return Snapshot(
        time,
        {key(one): one for one in holdings},
        {one.pid: one.start_ticks for one in processes},
        coverage,
        short_lived=short_lived,
    )


def records(data: bytes) -> list[Record]:
    """Parsed strictly: what is not JSON, or a line that does not end, is an error."""
    assert data.endswith(b"\n")
    return [json.loads(line) for line in data[:-1].split(b"\n")]


def fold(state: Fold, told: Iterable[Record]) -> Fold:
    """The state behind these records; an impossible record is an error."""
    snapshot_under_way = False
    for record in told:
        event = record["event"]
        if event == "snapshot":
            if not snapshot_under_way:
                state, snapshot_under_way = {}, True
            assert (record["pid"], record["inode"]) not in state
            state[record["pid"], record["inode"]] = record
        elif event == "snapshot_end":
            state = state if snapshot_under_way else {}
            snapshot_under_way = False
            assert record["count"] == len(state)
        elif event in ("open", "update", "close"):
            at = (record["pid"], record["inode"])
            assert (at in state) == (event != "open")
            if event == "close":
                del state[at]
            else:
                state[at] = record
    return state
