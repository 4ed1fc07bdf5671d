"""Nothing that is read of a process reaches the file systems on which it has files: one that never
answers would keep the reader."""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from agent.kernel.procfs.kcmp import may_share_fds
from agent.kernel.procfs.mount import ProcFS
from agent.kernel.procfs.scan import FdCheck
from agent.kernel.procfs.scanner import ProcessScanner
from agent.kernel.procfs.schedstat import RunMonitor
from agent.kernel.procfs.sockprotoname import read_protocols

from ...unanswering import (
    GETATTR,
    GETXATTR,
    LOOKUP,
    OPEN,
    READ,
    Unanswering,
    mount,
)

SECONDS = 10.0


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Unanswering]:
    with mount(tmp_path) as mounted:
        yield mounted


def done(mounted: Unanswering, work: Callable[[], object]) -> bool:
    """Whether this is done, though the file system answers nothing."""
    mounted.silent |= {GETATTR, GETXATTR, LOOKUP, OPEN, READ}
    thread = threading.Thread(target=work)
    thread.start()
    thread.join(SECONDS)
    returned = not thread.is_alive()
    mounted.end()  # Whoever waits gets an error.
    thread.join()
    return returned


def test_a_descriptor_that_leads_to_a_file_by_now_names_no_protocol(mounted: Unanswering) -> None:
    file = os.open(mounted.file, os.O_RDWR)
    with socket.socket() as one:
        asked = (os.getpid(), file, os.fstat(one.fileno()).st_ino)
        assert done(mounted, lambda: read_protocols("/proc", [asked]))
    with suppress(OSError):  # Its file system is gone.
        os.close(file)


def test_a_process_that_is_all_on_the_file_system_is_looked_at(mounted: Unanswering) -> None:
    code = "import os, sys; os.open(sys.argv[1], os.O_RDWR); print(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-I", "-c", code, mounted.file],  # It imports nothing from there.
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=mounted.file.parent,
    ) as process:
        assert process.stdout
        process.stdout.readline()
        pid = process.pid

        def look() -> None:
            walker = ProcessScanner(ProcFS(), cmdline=True)
            (seen,) = walker.scan([pid]).scans
            walker.check([FdCheck(pid, seen.fd_dir_inode, seen.fds, seen.fds, with_facts=True)])
            walker.summaries([pid])
            walker.fingerprints([pid])
            RunMonitor("/proc", 0).have_run([(pid, 10)])
            may_share_fds("/proc", pid, os.getpid())
            walker.procfs.read_tables(seen.netns, [pid], ["tcp"])

        assert done(mounted, look)
        process.kill()
