"""Reading a process does not access the file systems of its files: one that does not answer would
block the reader."""

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
    """Return whether ``work`` ends while the file system does not answer."""
    mounted.silent |= {GETATTR, GETXATTR, LOOKUP, OPEN, READ}
    thread = threading.Thread(target=work)
    thread.start()
    thread.join(SECONDS)
    returned = not thread.is_alive()
    mounted.end()  # Requests that wait fail.
    thread.join()
    return returned


def test_read_protocols_does_not_access_a_file_that_took_the_descriptor(
    mounted: Unanswering,
) -> None:
    file = os.open(mounted.file, os.O_RDWR)
    with socket.socket() as one:
        asked = (os.getpid(), file, os.fstat(one.fileno()).st_ino)
        assert done(mounted, lambda: read_protocols("/proc", [asked]))
    with suppress(OSError):  # Its file system is unmounted.
        os.close(file)


def test_a_process_with_all_its_files_on_the_file_system_is_scanned(mounted: Unanswering) -> None:
    code = "import os, sys; os.open(sys.argv[1], os.O_RDWR); print(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [
            sys.executable,
            "-I",
            "-c",
            code,
            mounted.file,
        ],  # Isolated: it imports nothing from the file system.
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=mounted.file.parent,
    ) as process:
        assert process.stdout
        process.stdout.readline()
        pid = process.pid

        def read_all() -> None:
            scanner = ProcessScanner(ProcFS(), cmdline=True)
            (scan,) = scanner.scan([pid]).scans
            scanner.check([FdCheck(pid, scan.fd_dir_inode, scan.fds, scan.fds, with_facts=True)])
            scanner.summaries([pid])
            scanner.fingerprints([pid])
            RunMonitor("/proc", 0).have_run([(pid, 10)])
            may_share_fds("/proc", pid, os.getpid())
            scanner.procfs.read_tables(scan.netns, [pid], ["tcp"])

        assert done(mounted, read_all)
        process.kill()
