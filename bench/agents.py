"""The agent that is measured: its command line, and a running agent observed from outside."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
_NANOSECONDS = 1e9
# The first snapshot of a large machine takes seconds.
_START_SECONDS = 120.0


class Agent(NamedTuple):
    """A build of sockagent: its name in tables, and the beginning of its command line."""

    name: str
    argv: tuple[str, ...]

    def command(self, *arguments: str) -> tuple[str, ...]:
        """Return the command line with these arguments."""
        return (*self.argv, *arguments)


def installed() -> Agent:
    """Return sockagent as this environment has it installed."""
    script = Path(sys.executable).with_name("sockagent")
    return Agent(
        "sockagent", (str(script),) if script.exists() else (sys.executable, "-m", "agent")
    )


def agent_at(path: Path, name: str) -> Agent:
    """Return the agent of a checkout, run by this interpreter, or an executable."""
    path = path.absolute()
    if not path.is_dir():
        return Agent(name, (str(path),))
    start = f"import sys; sys.path.insert(0, {str(path)!r}); from agent.__main__ import entry; "
    return Agent(name, (sys.executable, "-c", f"{start}entry()"))


def agents_of(other: Path | None) -> list[Agent]:
    """Return the installed agent; or this checkout and the other one, both started in the same way
    where the other one is a checkout too."""
    if other is None:
        return [installed()]
    this = agent_at(ROOT, "this") if other.is_dir() else installed()._replace(name="this")
    return [this, agent_at(other, "other")]


def add_agent(parser: argparse.ArgumentParser) -> None:
    """Add the option ``--agent``."""
    parser.add_argument(
        "--agent",
        type=_existing,
        metavar="PATH",
        help="compare with this checkout or executable of sockagent in the same run, interleaved",
    )


def _existing(text: str) -> Path:
    path = Path(text)
    if not (path / "agent" / "__main__.py").exists() and not os.access(path, os.X_OK):
        raise argparse.ArgumentTypeError(f"{text} is neither a checkout nor an executable")
    if path.is_dir() and not (path / "agent" / "__main__.py").exists():
        raise argparse.ArgumentTypeError(f"{text} has no agent/__main__.py")
    return path


class Memory(NamedTuple):
    """Resident and proportional size in KiB."""

    rss: int
    pss: int


class RunningAgent:
    """A process of sockagent; ``lines`` counts the records that it wrote, if they are read."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.pid = process.pid
        self.lines = 0
        self._process = process

    def cpu(self) -> float:
        """Return the seconds of CPU time so far of all its threads."""
        total = 0
        for thread in os.listdir(f"/proc/{self.pid}/task"):
            try:
                text = Path(f"/proc/{self.pid}/task/{thread}/schedstat").read_text()
            except OSError:
                continue
            total += int(text.split()[0])
        return total / _NANOSECONDS

    def cpu_per_poll(self, polls: int, interval: float) -> float:
        """Return the seconds of CPU time per poll, over the next ``polls`` polls."""
        return cpu_per_poll([self], polls, interval)[0]

    def memory(self) -> Memory:
        """Return its resident and proportional size."""
        return Memory(self.rss(), self._kib("smaps_rollup", "Pss:"))

    def rss(self) -> int:
        """Return the resident size in KiB."""
        return self._kib("status", "VmRSS:")

    def descriptors(self) -> int:
        """Return the number of open descriptors."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def drain(self, whole: threading.Event) -> None:
        """Read and count records until the end; set ``whole`` once the snapshot is complete."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.lines += 1
            if not whole.is_set() and b'"event":"snapshot_end"' in line:
                whole.set()
        whole.set()

    def _kib(self, file: str, field: str) -> int:
        for line in Path(f"/proc/{self.pid}/{file}").read_text().splitlines():
            if line.startswith(field):
                return int(line.split()[1])
        return 0


def cpu_per_poll(agents: list[RunningAgent], polls: int, interval: float) -> list[float]:
    """Return the seconds of CPU time per poll of each agent, over the same ``polls`` polls."""
    before = [agent.cpu() for agent in agents]
    time.sleep(polls * interval)
    return [(agent.cpu() - spent) / polls for agent, spent in zip(agents, before, strict=True)]


@contextmanager
def following(agent: Agent, *arguments: str) -> Iterator[RunningAgent]:
    """Run ``sockagent --follow`` with these arguments; its first snapshot is complete."""
    with subprocess.Popen(
        agent.command("--follow", *arguments), stdout=subprocess.PIPE, stderr=sys.stderr
    ) as process:
        whole = threading.Event()
        running = RunningAgent(process)
        reader = threading.Thread(target=running.drain, args=(whole,))
        reader.start()
        try:
            if not whole.wait(_START_SECONDS) or process.poll() is not None:
                raise SystemExit(f"{agent.name}: --follow ended or printed no snapshot")
            yield running
        finally:
            process.terminate()
            reader.join()
