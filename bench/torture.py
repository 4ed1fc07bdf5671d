"""Churn that trace events and polls report together: the stream then equals a new snapshot.

Many programs connect, accept, fork, execute, close, share, abort and pass sockets. Afterwards the
folded stream is compared with what a new ``sockagent`` and ``ss`` show of them.
"""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import orjson

from .agents import ROOT
from .servers.frames import frames
from .servers.recorded import Agent, following, instance_of
from .servers.stream import Record

SECONDS = 60.0
_PROCESSES = 8
_INTERVAL = 1.0
_STOPPED_SECONDS = 5.0
# Time after the churn within which polls and events have reported all; and that in which the sweep
# has read all descriptors again.
_SETTLE_SECONDS, _SWEEP_SECONDS = 10.0, 65.0
_FIELDS = (
    "proto", "family", "state", "local_addr", "local_port", "remote_addr", "remote_port", "fds",
    "comm", "exe", "ppid", "netns", "uid",
)  # fmt: skip
_MAX_EXAMPLES = 5
# The names of states that ss shortens.
_STATES = {"ESTAB": "ESTABLISHED", "FIN-WAIT-1": "FIN_WAIT1", "FIN-WAIT-2": "FIN_WAIT2"}

Key = tuple[object, object]
State = dict[Key, tuple[object, ...]]


def _stop_and_continue(agent: Agent) -> None:
    agent.process.send_signal(signal.SIGSTOP)
    time.sleep(_STOPPED_SECONDS)
    agent.process.send_signal(signal.SIGCONT)


def _switch_off(agent: Agent) -> None:
    (instance_of(agent.process.pid) / "tracing_on").write_text("0")


def _nothing(_agent: Agent) -> None:
    return


# What is done to the agent in the middle of the churn.
VARIANTS: dict[str, Callable[[Agent], None]] = {
    "plain": _nothing,
    "stopped": _stop_and_continue,
    "switched-off": _switch_off,
}


def fold(records: Iterable[Record]) -> dict[Key, Record]:
    """Return the sockets that are open after the records."""
    held: dict[Key, Record] = {}
    for record in records:
        event, inode = record["event"], record.get("inode")
        if event == "lost":
            held.clear()
        elif inode is None:  # Also open and close of a short-lived connection.
            continue
        elif event in ("snapshot", "open", "update"):
            held[record["pid"], inode] = record
        elif event == "close":
            held.pop((record["pid"], inode), None)
    return held


def state_of(records: Iterable[Record], pids: frozenset[int]) -> State:
    """Return what records show of the sockets of these processes."""
    return {
        (record["pid"], record["inode"]): tuple(
            tuple(value) if isinstance(value := record.get(name), list) else value
            for name in _FIELDS
        )
        for record in records
        if record.get("pid") in pids
    }


def differences(stream: State, truth: State) -> list[str]:
    """Return the sockets that one of them lacks, or shows otherwise."""
    found = []
    for key in sorted(stream.keys() | truth.keys(), key=str):
        if key not in truth:
            found.append(f"{key} only in the stream: {stream[key]}")
        elif key not in stream:
            found.append(f"{key} not in the stream: {truth[key]}")
        else:
            for name, seen, true in zip(_FIELDS, stream[key], truth[key], strict=True):
                if seen != true:
                    found.append(f"{key} {truth[key][:7]}: {name} {seen!r}, not {true!r}")
    return found


def of_ss(text: str, pids: frozenset[int]) -> set[tuple[int, int, str]]:
    """Return process, inode and state of the TCP sockets in the output of ``ss -tanpeH``."""
    found = set()
    for line in text.splitlines():
        inode = re.search(r" ino:(\d+) ", line)
        state = line.split(None, 1)[0]
        for pid in map(int, re.findall(r"pid=(\d+),", line)):
            if inode is not None and pid in pids:
                name = _STATES.get(state, state.replace("-", "_"))
                found.add((pid, int(inode[1]), name))
    return found


def _records(data: bytes) -> list[Record]:
    lines = b"".join(text for _when, text, _next in frames(data)).splitlines(keepends=True)
    return [cast("Record", orjson.loads(line)) for line in lines if line.endswith(b"\n")]


def _members(leaders: frozenset[int]) -> frozenset[int]:
    """Return the processes of the sessions with these leaders."""
    members = set()
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.getsid(int(name)) in leaders:
                members.add(int(name))
        except ProcessLookupError:
            continue
    return frozenset(members)


@contextmanager
def _torturers(directory: Path, seed: int, seconds: float) -> Iterator[frozenset[int]]:
    """Run the programs; return their sessions."""
    running = []
    for number in range(_PROCESSES):
        paths = directory / str(number)
        paths.mkdir()
        arguments = [str(paths), str(seed + number), str(seconds)]
        command = [sys.executable, "-m", "bench.torturer", *arguments]
        running.append(
            subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, start_new_session=True)
        )
    leaders = frozenset(one.pid for one in running)
    try:
        yield leaders
    finally:
        for pid in _members(leaders):
            os.kill(pid, signal.SIGKILL)
        for one in running:
            one.wait()


def _compare(
    command: tuple[str, ...], records: Path, leaders: frozenset[int]
) -> tuple[list[str], int]:
    """Return the differences between the stream, a new snapshot and ss, and how many sockets there
    are."""
    pids = _members(leaders)
    stream = fold(_records(records.read_bytes())).values()
    output = subprocess.run(command, check=True, capture_output=True).stdout
    truth = [cast("Record", orjson.loads(line)) for line in output.splitlines()]
    seen, true = state_of(stream, pids), state_of(truth, pids)
    found = differences(seen, true)
    listed = subprocess.run(["ss", "-tanpeH"], check=True, capture_output=True, text=True).stdout
    held = {
        (pid, inode, state[_FIELDS.index("state")])
        for (pid, inode), state in seen.items()
        if state[0] == "tcp" and inode
    }
    # A socket that is not connected has a row only where it is bound.
    ss = of_ss(listed, pids)
    found += [f"{one} in ss only" for one in sorted(ss - held)]
    unconnected = {one for one in held if one[2] in (None, "CLOSE", "UNCONN")}
    found += [f"{one} not in ss" for one in sorted(held - ss - unconnected, key=str)]
    gone = [key for key in fold(_records(records.read_bytes())) if _is_gone(key[0])]
    found += [f"{key} is open, but its process is gone" for key in gone]
    return found, len(true)


def _is_gone(pid: object) -> bool:
    return pid is not None and not Path(f"/proc/{pid}").exists()


def run(command: tuple[str, ...], root: Path, variants: Iterable[str], seconds: float) -> int:
    """Run the variants and print the outcomes; return the exit status."""
    seed = random.SystemRandom().randrange(2**32)
    status = 0
    print(
        f"seed {seed}\n\n| variant | sockets | records | differences after {_SETTLE_SECONDS:.0f} s "
        f"| after the sweep | violations | events lost | coverage |\n|---|" + "---:|" * 6 + "---|"
    )
    for name in variants:
        directory = root / name
        directory.mkdir()
        argv = (*command, "--events", "on")
        with following(argv, directory, _INTERVAL) as agent:
            with _torturers(directory, seed, seconds) as leaders:
                timer = threading.Timer(seconds / 2, VARIANTS[name], [agent])
                timer.start()
                time.sleep(seconds)
                timer.join()
                found, late, sockets = _settle(command, directory / "records", leaders)
            lost = agent.overrun()
        stream = agent.read()
        stream.finish()
        records = _records((directory / "records").read_bytes())
        texts = sorted({str(text) for one in records for text in _gaps(one)})
        violations = sum(stream.violations.values())
        cells = [name, sockets, len(records), len(found), len(late), violations, lost]
        print(f"| {' | '.join(map(str, cells))} | {'; '.join(texts)} |", flush=True)
        for text in (*found[:_MAX_EXAMPLES], *late[:_MAX_EXAMPLES], *stream.examples):
            print(f"  {name}: {text}")
        status |= bool(late or violations)
    return status


def _gaps(record: Record) -> list[object]:
    """Return what a record says about missing events."""
    if record["event"] not in ("coverage", "heartbeat", "hello"):
        return []
    missing, off = record.get("missing"), record.get("events_off")
    return [*(missing if isinstance(missing, list) else ()), *([off] if off else ())]


def _settle(
    command: tuple[str, ...], records: Path, leaders: frozenset[int]
) -> tuple[list[str], list[str], int]:
    """Return the differences after _SETTLE_SECONDS, after the sweep, and how many sockets there
    are."""
    begin = time.monotonic()
    first: list[str] | None = None
    while True:
        found, sockets = _compare(command, records, leaders)
        took = time.monotonic() - begin
        if first is None and (not found or took > _SETTLE_SECONDS):
            first = found
        if first is not None and (not found or took > _SWEEP_SECONDS):
            return first, found, sockets
        time.sleep(1)
