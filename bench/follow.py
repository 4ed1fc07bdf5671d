"""``sockagent --follow`` at rest: its memory, and what a poll costs while nothing changes."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from pathlib import Path
from typing import NamedTuple

from .commands import sockagent

# The snapshot of a large machine takes about a second; seconds.
_PATIENCE = 60.0
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_ENDED = b'"event":"snapshot_end"'


class Memory(NamedTuple):
    """Resident and proportional size in KiB."""

    rss: int
    pss: int


class Followed(NamedTuple):
    """What following cost: ``cpu`` is seconds of processor time a poll."""

    first: Memory
    later: Memory
    polls: int
    interval: float
    cpu: float


def follow(polls: int, interval: float) -> Followed | None:
    """Follow for so many polls behind the snapshot; None when the agent ended by itself."""
    command = sockagent("--follow", "--interval", str(interval))
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        whole = threading.Event()
        reader = threading.Thread(target=_drain, args=(process, whole))
        reader.start()
        try:
            whole.wait(_PATIENCE)
            if not whole.is_set() or process.poll() is not None:
                return None
            first, start, before = _memory(process.pid), time.monotonic(), _cpu(process.pid)
            time.sleep(polls * interval)
            took, used = time.monotonic() - start, _cpu(process.pid) - before
            later = _memory(process.pid)
        except OSError:
            return None
        finally:
            process.terminate()
            reader.join()
    done = max(1, round(took / interval))
    return Followed(first, later, done, interval, used / done)


def _drain(process: subprocess.Popen[bytes], whole: threading.Event) -> None:
    """Read all there is; tell when the snapshot is whole."""
    if process.stdout is None:
        return
    last = b""
    while chunk := os.read(process.stdout.fileno(), 1 << 20):
        if not whole.is_set() and _ENDED in last + chunk:
            whole.set()
        last = chunk[-len(_ENDED) :]
    whole.set()  # It ended: nobody need wait any longer.


def _memory(pid: int) -> Memory:
    return Memory(_kib(pid, "status", "VmRSS:"), _kib(pid, "smaps_rollup", "Pss:"))


def _kib(pid: int, name: str, field: str) -> int:
    for line in Path(f"/proc/{pid}/{name}").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1])
    return 0


def _cpu(pid: int) -> float:
    """Processor time so far, in seconds: the process's and that of its children that ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / _TICKS_PER_SECOND
