"""Cost of checking a process with very many sockets, of which few changed, against a scan of it."""

from __future__ import annotations

import os
import resource
import socket
import time
from contextlib import suppress
from statistics import median
from typing import NamedTuple

from agent.kernel.procfs.mount import ProcFS
from agent.kernel.procfs.scan import FdCheck
from agent.kernel.procfs.scanner import ProcessScanner
from agent.snapshot.holders import Holders

SOCKETS, CHANGES, ROUNDS = 40_000, 100, 7
# Other descriptors.
SPARE = 1000


class Single(NamedTuple):
    """CPU milliseconds of a scan of the whole process, and of a check after some changes."""

    sockets: int
    changes: int
    whole_ms: float
    check_ms: float
    found: bool

    def sentence(self) -> str:
        """Return the result as a sentence."""
        share = self.whole_ms / self.check_ms
        verdict = "pass" if share >= 10 and self.found else "**miss**"
        return (
            f"One process with {self.sockets} sockets, {self.changes} of them closed and as many "
            f"opened: {self.check_ms:.1f} ms of CPU, a scan of all of it takes "
            f"{self.whole_ms:.0f} ms: 1/{share:.0f} (at most 1/10: {verdict})."
        )


def single() -> Single:
    """Measure both on this process itself."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError):  # The hard limit cannot be raised: use what it allows.
        resource.setrlimit(resource.RLIMIT_NOFILE, (SOCKETS + SPARE, max(SOCKETS + SPARE, hard)))
    limit, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit < SOCKETS + SPARE:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        limit = hard
    sockets = min(SOCKETS, (limit - SPARE) // 2 * 2)
    held: list[socket.socket] = []
    for _ in range(sockets // 2):
        held += socket.socketpair()
    scanner, holders, pid = ProcessScanner(ProcFS()), Holders(), os.getpid()
    wholes, checks, found = [], [], True
    for number in range(ROUNDS):
        start = time.process_time()
        scan = scanner.scan_process(pid)
        holders.set_scan(scan.process, scan.netns, scan.fd_dir_inode, scan.fds, scan.thread_fds)
        wholes.append(time.process_time() - start)
        closed = held[number * CHANGES : (number + 1) * CHANGES]
        inodes = [os.fstat(one.fileno()).st_ino for one in closed]
        for one in closed:
            one.close()
        new: list[socket.socket] = []
        for _ in range(CHANGES // 2):
            new += socket.socketpair()
        start = time.process_time()
        fds_of = holders.fds_of(inodes)[pid]
        watched = holders.processes[pid]
        done, _lost = scanner.check([FdCheck(pid, watched.directory, watched.fds, fds_of)])
        holders.update_fds(pid, done[0].changes)
        checks.append(time.process_time() - start)
        found &= all(holders.pids_of(os.fstat(one.fileno()).st_ino) for one in new)
        found &= not any(map(holders.pids_of, inodes))
        held += new
    for one in held:
        one.close()
    return Single(sockets, CHANGES, median(wholes) * 1000, median(checks) * 1000, found)


if __name__ == "__main__":
    print(single().sentence())
