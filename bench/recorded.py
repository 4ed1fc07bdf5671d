"""One workload under one ``sockagent --follow``, recorded."""

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

# The snapshot takes less, even of a large machine; seconds.
_PATIENCE = 60.0
# The agent reads all tables after 5 seconds at the latest: by then it must have seen every close.
_MAX_SETTLE = 8.0
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
        """Take in what it has written since."""
        with open(self._records, "rb") as file:
            file.seek(self._at)
            data = file.read()
        whole = data.rfind(b"\n") + 1
        self._at += whole
        self.stream.feed(data[:whole])
        return self.stream

    def cpu(self) -> float:
        """Return the seconds of processor time so far, with that of children that ended."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[11:15])) / _TICKS_PER_SECOND


class Load(NamedTuple):
    """What the agent took while the workload ran; seconds."""

    begin: float
    end: float
    cpu: float


class Run(NamedTuple):
    """One workload at one interval, as it was recorded."""

    interval: float
    truth: Truth
    stream: Stream
    notices: Notices
    load: Load
    stats: tuple[int, int, float] | None  # Polls, late ones, and the 99th percentile in ms.
    load_average: float


@contextmanager
def following(command: tuple[str, ...], directory: Path, interval: float) -> Iterator[Agent]:
    """``sockagent --follow``, ready once its snapshot is whole."""
    argv = [*command, "--follow", "--interval", str(interval), "--stats", "0.5"]
    records = directory / "records"
    with open(records, "wb") as out, open(directory / "stderr", "wb") as err:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=err)
    agent = Agent(process, records)
    try:
        stop = time.monotonic() + _PATIENCE
        while not agent.read().whole:
            if process.poll() is not None or time.monotonic() > stop:
                reason = (directory / "stderr").read_text()
                raise SystemExit(f"{' '.join(argv)} gave no snapshot: {reason}")
            time.sleep(0.02)
        yield agent
    finally:
        stopped(process)


def measure(command: tuple[str, ...], workload: Workload, directory: Path, interval: float) -> Run:
    """Run a workload once under an agent."""
    average = os.getloadavg()[0]
    with notices.recording(directory / "notices"):
        with following(command, directory, interval) as agent:
            time.sleep(1.5 * interval + 0.1)  # Another poll, so that all is seen from the start.
            begin, cpu = time.time(), agent.cpu()
            workload.run()
            load = Load(begin, time.time(), agent.cpu() - cpu)
            truth = workload.truth()
            _settle(agent, truth, interval)
        stream = agent.read()
        stream.finish()
    recorded = notices.read(directory / "notices")
    said = _STATS.findall((directory / "stderr").read_bytes())
    stats = (int(said[-1][0]), int(said[-1][1]), float(said[-1][2])) if said else None
    return Run(interval, truth, stream, recorded, load, stats, average)


def _settle(agent: Agent, truth: Truth, interval: float) -> None:
    """Wait until the agent has reported the close of all that it reported open."""
    begin = time.monotonic()
    keys = frozenset(end.key for end in truth.ends)
    while (took := time.monotonic() - begin) < _MAX_SETTLE:
        stream = agent.read()
        is_open = any(belongs(report, truth, keys) for report in stream.held.values())
        if not is_open and took > 2.5 * interval + 0.2 and took > 0.6:  # And another --stats.
            return
        time.sleep(0.1)
