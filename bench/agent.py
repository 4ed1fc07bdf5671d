"""A running ``sockagent --follow``, measured from outside."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .commands import sockagent

_NANOSECONDS = 1e9
# The snapshot of a large machine takes seconds.
_PATIENCE = 120.0


class Follower:
    """A ``sockagent --follow`` behind its snapshot."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.pid = process.pid
        self.lines = 0
        self._process = process

    def cpu(self) -> float:
        """Seconds of processor time so far, of all its threads."""
        total = 0
        for thread in os.listdir(f"/proc/{self.pid}/task"):
            try:
                text = Path(f"/proc/{self.pid}/task/{thread}/schedstat").read_text()
            except OSError:
                continue
            total += int(text.split()[0])
        return total / _NANOSECONDS

    def rss(self) -> int:
        """Resident size in KiB."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1])
        return 0

    def descriptors(self) -> int:
        """How many it has open."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def cpu_per_poll(self, polls: int, interval: float) -> float:
        """Seconds of processor time a poll, over the next so many polls."""
        before = self.cpu()
        time.sleep(polls * interval)
        return (self.cpu() - before) / polls


@contextmanager
def following(*arguments: str) -> Iterator[Follower]:
    """``sockagent --follow`` with these arguments; ready once its snapshot is whole."""
    with subprocess.Popen(
        sockagent("--follow", *arguments), stdout=subprocess.PIPE, stderr=sys.stderr
    ) as process:
        whole = threading.Event()
        agent = Follower(process)

        def drain() -> None:
            assert process.stdout is not None
            for line in process.stdout:
                agent.lines += 1
                if not whole.is_set() and b'"event":"snapshot_end"' in line:
                    whole.set()
            whole.set()

        reader = threading.Thread(target=drain)
        reader.start()
        try:
            whole.wait(_PATIENCE)
            if process.poll() is not None:
                raise SystemExit("sockagent --follow ended by itself")
            yield agent
        finally:
            process.terminate()
            reader.join()
