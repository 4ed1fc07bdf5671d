"""One-shot snapshots as whole processes, by wall-clock time, under a load."""

from __future__ import annotations

import sys

from ..commands import Command, measure
from .timing import Pair

_ENTRY = "from agent.__main__ import entry; entry()"
# Without a child process the agent scans the processes itself.
_NO_FORK = """
import os
def fork():
    raise OSError
os.fork = fork
"""
_ONE_BATCH = """
from agent.kernel.procfs import forked_scan
(name,) = (name for name, value in vars(forked_scan).items() if "BATCH" in name and value == 32)
setattr(forked_scan, name, 1 << 30)
"""


def _run(before: str = "") -> None:
    command = Command("sockagent", (sys.executable, "-c", f"{before}\n{_ENTRY}"))
    if measure(command) is None:
        raise SystemExit(f"the snapshot failed after:\n{before}")


def forked_scan() -> Pair:
    """Scan the processes in a child process; in a thread. Wall-clock time."""
    return Pair(_run, lambda: _run(_NO_FORK))


def streamed_join() -> Pair:
    """Join the first snapshot while the scan goes on; after it. Wall-clock time."""
    return Pair(_run, lambda: _run(_ONE_BATCH))


BENCHMARKS = (forked_scan, streamed_join)
