"""Recording of one workload under one ``sockagent --follow``."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from ..agents import ROOT
from . import notices
from .daemons import stopped
from .frames import frames
from .notices import Notices
from .stream import Stream
from .truth import Truth, belongs
from .workloads import Workload

# More than a snapshot of a large machine takes.
_START_SECONDS = 60.0
# The agent reads all tables every 5 seconds at least, and has then seen every close.
_MAX_SETTLE_SECONDS = 8.0
_OVERRUN = re.compile(r"^(?:overrun|dropped events): (\d+)$", re.MULTILINE)
_STATS = re.compile(rb"(\d+) polls, (\d+) late.*?p99 ([\d.]+)")
_EVENTS = re.compile(rb"events reported (\d+) of (\d+) ends of TCP sockets, (\d+) events were lost")
# Seconds in which the CPU time of an agent without work is measured.
_IDLE_SECONDS = 2.0


class Agent:
    """A running ``sockagent --follow`` whose records go to a file, with the times of their
    receipt."""

    def __init__(self, process: subprocess.Popen[bytes], records: Path) -> None:
        self.stream = Stream()
        self.process = process
        self._records = records
        self._at = 0
        self._partial = b""  # Of the newest line.

    def read(self) -> Stream:
        """Read the records that it wrote since the last call."""
        with open(self._records, "rb") as file:
            file.seek(self._at)
            data = file.read()
        at = 0
        for received, text, at in frames(data):  # noqa: B007
            lines, newline, self._partial = (self._partial + text).rpartition(b"\n")
            self.stream.feed(lines + newline, received)
        self._at += at
        return self.stream

    def cpu(self) -> float:
        """Return the seconds of CPU time so far of all its threads."""
        # The clock of a process, linux/posix-timers.h: CPUCLOCK_SCHED is 2.
        return time.clock_gettime(~self.process.pid << 3 | 2)

    def overrun(self) -> int | None:
        """Return the number of events that its own trace instance lost; None without one."""
        files = list(instance_of(self.process.pid).glob("per_cpu/cpu*/stats"))
        texts = [one.read_text() for one in files]
        found = [match for text in texts for match in _OVERRUN.findall(text)]
        return sum(map(int, found)) if files else None


class Load(NamedTuple):
    """When the workload ran, and the CPU seconds of the agent meanwhile.

    ``work`` are those until it had reported all, without what it takes when nothing happens.
    """

    begin: float
    end: float
    cpu: float
    work: float


class EventCounts(NamedTuple):
    """What the agent counted until its newest line of --stats: ends of TCP sockets that netlink
    reported, those of them that trace events reported too, and lost events."""

    with_events: int
    ends: int
    lost: int


class Run(NamedTuple):
    """The recording of one workload at one interval."""

    interval: float
    truth: Truth
    stream: Stream
    notices: Notices
    load: Load
    stats: tuple[int, int, float] | None  # Polls, late ones, and the 99th percentile in ms.
    load_average: float
    overrun: int | None  # Events that the trace instance lost.
    events: EventCounts | None  # None without trace events.


@contextmanager
def following(command: tuple[str, ...], directory: Path, interval: float) -> Iterator[Agent]:
    """Run ``sockagent --follow``; its first snapshot is complete."""
    argv = [*command, "--follow", "--interval", str(interval), "--stats", "0.5"]
    records = directory / "records"
    records.write_bytes(b"")
    pipe = subprocess.PIPE
    with open(directory / "stderr", "wb") as err:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=pipe, stderr=err)
    reader = [sys.executable, "-m", "bench.servers.frames", str(records)]
    recorder = subprocess.Popen(reader, cwd=ROOT, stdin=process.stdout)
    if process.stdout is not None:
        process.stdout.close()
    agent = Agent(process, records)
    try:
        stop = time.monotonic() + _START_SECONDS
        while not agent.read().whole:
            if process.poll() is not None or time.monotonic() > stop:
                reason = (directory / "stderr").read_text()
                raise SystemExit(f"{' '.join(argv)} printed no snapshot: {reason}")
            time.sleep(0.02)
        yield agent
    finally:
        stopped(process)
        recorder.wait(_MAX_SETTLE_SECONDS)


def measure(
    command: tuple[str, ...],
    workload: Workload,
    directory: Path,
    interval: float,
    *,
    measure_idle: bool = False,
) -> Run:
    """Run a workload once and record what the agent reports."""
    average = os.getloadavg()[0]
    with notices.recording(directory / "notices"):
        with following(command, directory, interval) as agent:
            time.sleep(1.5 * interval + 0.1)  # Another poll, so that later ones report all changes.
            idle = _idle_share(agent) if measure_idle else 0.0
            begin, cpu = time.time(), agent.cpu()
            workload.run()
            end, loaded = time.time(), agent.cpu() - cpu
            truth = workload.truth()
            _settle(agent, truth, interval)
            work = agent.cpu() - cpu - idle * (time.time() - begin)
            load, overrun = Load(begin, end, loaded, work), agent.overrun()
        stream = agent.read()
        stream.finish()
    recorded = notices.read(directory / "notices")
    written = (directory / "stderr").read_bytes()
    printed = _STATS.findall(written)
    counted = _EVENTS.findall(written)
    stats = (int(printed[-1][0]), int(printed[-1][1]), float(printed[-1][2])) if printed else None
    events = EventCounts(*map(int, counted[-1])) if counted else None
    return Run(interval, truth, stream, recorded, load, stats, average, overrun, events)


def _idle_share(agent: Agent) -> float:
    """Return the share of a core that the agent takes while nothing happens."""
    begin, cpu = time.monotonic(), agent.cpu()
    time.sleep(_IDLE_SECONDS)
    return (agent.cpu() - cpu) / (time.monotonic() - begin)


def instance_of(pid: int) -> Path:
    """Return the directory of the trace instance of an agent with this pid."""
    return Path(f"/sys/kernel/tracing/instances/sockagent-{pid}")


def _settle(agent: Agent, truth: Truth, interval: float) -> None:
    """Wait until the agent reports nothing of the workload any more, and has reported the close of
    every socket of it that it reported as open."""
    begin = newest = time.monotonic()
    quiet = max(2.5 * interval + 0.2, 0.6)  # One more --stats line.
    keys = frozenset(end.key for end in truth.ends)
    seen = 0
    while (now := time.monotonic()) - begin < _MAX_SETTLE_SECONDS:
        stream = agent.read()
        if any(belongs(report, truth, keys) for report in stream.reports[seen:]):
            newest = now
        seen = len(stream.reports)
        is_open = any(belongs(report, truth, keys) for report in stream.held.values())
        if not is_open and now - newest > quiet:
            return
        time.sleep(0.1)
