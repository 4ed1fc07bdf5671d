"""Measure the cost of processes with very many descriptors on one socket.

Sleeping processes hold one socket on thousands of descriptors each, or their threads hold it in
descriptor tables of their own. A snapshot is measured with some descriptors and with four times as
many: the ratio shows whether the cost is linear. Then ``--follow`` is measured while they sleep.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import NamedTuple

from .agents import agent_at, installed
from .commands import Command, Sample, measure

_CLONE_FILES = 0x400  # linux/sched.h
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_FACTOR = 4
_RUNS = 3
_INTERVAL = 1.0
# Other descriptors of the process.
_SPARE = 100
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


class Shape(NamedTuple):
    """``processes`` of ``threads`` each, all with this many descriptors; with more than one thread,
    each thread has its own descriptor table."""

    name: str
    processes: int
    threads: int
    descriptors: int

    @property
    def small(self) -> Shape:
        """The same with fewer descriptors."""
        return self._replace(descriptors=self.descriptors // _FACTOR)


def shapes(limit: int) -> list[Shape]:
    """Return what is measured, with at most ``limit`` descriptors in a table."""
    count = min(20_000, limit - _SPARE)
    return [
        Shape("10 processes", 10, 1, count),
        Shape("40 processes", 40, 1, count),
        Shape("20 threads of a process", 1, 20, count // _FACTOR),
        Shape("10 processes of 20 threads", 10, 20, count // (2 * _FACTOR)),
    ]


def hold(shape: Shape) -> None:
    """Start the processes of ``shape``, print a line, and hold them until standard input closes."""
    one = socket.create_server(("127.0.0.1", 0))
    libc = ctypes.CDLL(None, use_errno=True)
    for _ in range(shape.processes):
        reading, writing = os.pipe()
        if os.fork() == 0:
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            os.close(reading)
            _hold_here(one, shape, libc)
            os.write(writing, b".")
            while True:
                signal.pause()
        os.close(writing)
        if not os.read(reading, 1):
            raise SystemExit("a process could not be started")
        os.close(reading)
    print("ready", flush=True)
    sys.stdin.read()
    os.killpg(0, signal.SIGKILL)


def _hold_here(one: socket.socket, shape: Shape, libc: ctypes.CDLL) -> None:
    """Open the descriptors of this process and its threads."""

    def duplicate() -> None:
        for _ in range(shape.descriptors):
            os.dup(one.fileno())

    if shape.threads == 1:
        duplicate()
        return
    ready = threading.Semaphore(0)

    def run() -> None:
        if libc.unshare(_CLONE_FILES) == 0:
            duplicate()
            ready.release()
        threading.Event().wait()

    for _ in range(shape.threads):
        threading.Thread(target=run, daemon=True).start()
        if not ready.acquire(timeout=60):
            raise SystemExit("a thread could not get its own descriptor table")


@contextmanager
def holding(shape: Shape) -> Iterator[None]:
    """Run processes of this shape."""
    pipe = subprocess.PIPE
    command = [sys.executable, "-m", "bench.shared", "--hold", *map(str, shape[1:])]
    root = Path(__file__).resolve().parent.parent
    with subprocess.Popen(
        command, cwd=root, stdin=pipe, stdout=pipe, start_new_session=True
    ) as process:
        assert process.stdout is not None
        try:
            if not process.stdout.readline():
                raise SystemExit(f"{shape.name}: could not be started")
            yield
        finally:
            process.communicate()


def snapshot(agent: tuple[str, ...]) -> Sample:
    """Measure a snapshot; return the median of some runs."""
    samples = []
    for _ in range(_RUNS):
        sample = measure(Command("sockagent", agent))
        if sample is None:
            raise SystemExit("the snapshot failed")
        samples.append(sample)
    return Sample(*(median(column) for column in zip(*samples, strict=True)))


def share(agent: tuple[str, ...], seconds: float, *arguments: str) -> float:
    """Return the share of a core that ``--follow`` uses, over ``seconds`` after its snapshot."""
    command = [*agent, "--follow", "--interval", str(_INTERVAL), *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        drain = threading.Event()

        def read() -> None:
            for line in process.stdout or ():
                if b'"event":"snapshot_end"' in line:
                    drain.set()

        thread = threading.Thread(target=read)
        thread.start()
        try:
            if not drain.wait(120):
                raise SystemExit("--follow printed no snapshot")
            time.sleep(2 * _INTERVAL)
            begin, spent = time.monotonic(), _cpu(process.pid)
            time.sleep(seconds)
            return (_cpu(process.pid) - spent) / (time.monotonic() - begin)
        finally:
            process.terminate()
            thread.join()


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / _TICKS_PER_SECOND


def main() -> None:
    """Measure all shapes and print a table."""
    parser = argparse.ArgumentParser(prog="python -m bench shared", description=__doc__)
    parser.add_argument("--agent", type=Path, metavar="PATH", help="another checkout or executable")
    parser.add_argument("--seconds", type=float, default=15.0, help="time to follow (15)")
    parser.add_argument("--only", help="only shapes with this text in their names")
    parser.add_argument("--hold", nargs=3, type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if options.hold:
        hold(Shape("", *options.hold))
        return
    agent = (agent_at(options.agent, "sockagent") if options.agent else installed()).argv
    print(f"| held by | descriptors each | wall, s | CPU, s | wall, 1/{_FACTOR} of them | ratio "
          "| CPU of --follow, cores |\n|---|---:|---:|---:|---:|---:|---:|")  # fmt: skip
    for shape in shapes(hard):
        if options.only and options.only not in shape.name:
            continue
        with holding(shape.small):
            small = snapshot(agent)
        with holding(shape):
            whole = snapshot(agent)
            following = share(agent, options.seconds)
        print(
            f"| {shape.name} | {shape.descriptors} | {whole.wall:.2f} | {whole.cpu:.2f} "
            f"| {small.wall:.2f} | {whole.wall / small.wall:.1f} | {following:.3f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
