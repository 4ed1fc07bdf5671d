"""Recording of one workload under one ``sockagent --follow``."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from . import notices
from .daemons import stopped
from .notices import Notices
from .stream import Stream
from .truth import Truth, belongs
from .workloads import Workload

# More than a snapshot of a large machine takes.
_START_SECONDS = 60.0
# The agent reads all tables every 5 seconds at least, and has then seen every close.
_MAX_SETTLE_SECONDS = 8.0
_STATS = re.compile(rb"(\d+) polls, (\d+) late.*?p99 ([\d.]+)")
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


class Agent:
    """A running ``sockagent --follow`` whose records go to a file."""

    def __init__(self, process: subprocess.Popen[bytes], records: Path) -> None:
        self.stream = Stream()
        self.process = process
        self._records = records
        self._at = 0

    def read(self) -> Stream:
        """Read the records that it wrote since the last call."""
        with open(self._records, "rb") as file:
            file.seek(self._at)
            data = file.read()
        whole = data.rfind(b"\n") + 1
        self._at += whole
        self.stream.feed(data[:whole])
        return self.stream

    def cpu(self) -> float:
        """Return the seconds of CPU time so far, with that of children that ended."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[11:15])) / _TICKS_PER_SECOND


class Load(NamedTuple):
    """When the workload ran, and the CPU seconds of the agent meanwhile."""

    begin: float
    end: float
    cpu: float


class Run(NamedTuple):
    """The recording of one workload at one interval."""

    interval: float
    truth: Truth
    stream: Stream
    notices: Notices
    load: Load
    stats: tuple[int, int, float] | None  # Polls, late ones, and the 99th percentile in ms.
    load_average: float


@contextmanager
def following(command: tuple[str, ...], directory: Path, interval: float) -> Iterator[Agent]:
    """Run ``sockagent --follow``; its first snapshot is complete."""
    argv = [*command, "--follow", "--interval", str(interval), "--stats", "0.5"]
    records = directory / "records"
    with open(records, "wb") as out, open(directory / "stderr", "wb") as err:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=err)
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


def measure(command: tuple[str, ...], workload: Workload, directory: Path, interval: float) -> Run:
    """Run a workload once and record what the agent reports."""
    average = os.getloadavg()[0]
    with notices.recording(directory / "notices"):
        with following(command, directory, interval) as agent:
            time.sleep(1.5 * interval + 0.1)  # Another poll, so that later ones report all changes.
            begin, cpu = time.time(), agent.cpu()
            workload.run()
            load = Load(begin, time.time(), agent.cpu() - cpu)
            truth = workload.truth()
            _settle(agent, truth, interval)
        stream = agent.read()
        stream.finish()
    recorded = notices.read(directory / "notices")
    printed = _STATS.findall((directory / "stderr").read_bytes())
    stats = (int(printed[-1][0]), int(printed[-1][1]), float(printed[-1][2])) if printed else None
    return Run(interval, truth, stream, recorded, load, stats, average)


def _settle(agent: Agent, truth: Truth, interval: float) -> None:
    """Wait until the agent has reported the close of every socket that it reported as open."""
    begin = time.monotonic()
    keys = frozenset(end.key for end in truth.ends)
    while (took := time.monotonic() - begin) < _MAX_SETTLE_SECONDS:
        stream = agent.read()
        is_open = any(belongs(report, truth, keys) for report in stream.held.values())
        if not is_open and took > 2.5 * interval + 0.2 and took > 0.6:  # One more --stats line.
            return
        time.sleep(0.1)
