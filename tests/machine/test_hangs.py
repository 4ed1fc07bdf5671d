"""Calls that never return do not stop the agent: those on FUSE file systems that do not answer,
which any user may mount."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ..unanswering import GETATTR, GETXATTR, READ, Unanswering, mount
from .helpers import (
    COMMAND,
    DEADLINE,
    Follow,
    Holder,
    need_root,
    run,
)


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Unanswering]:
    need_root()
    with mount(tmp_path) as mounted:
        yield mounted


def start(code: str, mounted: Unanswering) -> subprocess.Popen[bytes]:
    """Start a process that runs the code; return it when it is ready."""
    started = subprocess.Popen(
        [sys.executable, "-c", code, str(mounted.file)], stdout=subprocess.PIPE
    )
    assert started.stdout
    started.stdout.readline()
    return started


@contextmanager
def ending(mounted: Unanswering, follow: Follow) -> Iterator[None]:
    """End the agent while the file system does not answer; unmount afterwards, as a process that
    waits for the file system cannot be killed."""
    try:
        yield
        follow.process.terminate()
        follow.process.wait(DEADLINE)
    finally:
        mounted.end()


# The descriptors from 100 on are in turns unbound sockets, which no table lists, and the file. Now
# and then they become other sockets, which the descriptors from 200 on hold meanwhile.
SWAPPING = """
import os, socket, sys, time
file = os.open(sys.argv[1], os.O_RDWR)
print(flush=True)
while True:
    until = time.monotonic() + 0.5
    for number in range(20):
        with socket.socket() as one:
            os.dup2(one.fileno(), 200 + number)
    while time.monotonic() < until:
        for number in range(20):
            os.dup2(200 + number, 100 + number)
        for number in range(20):
            os.dup2(file, 100 + number)
"""


def test_a_descriptor_that_becomes_a_file_that_never_answers(
    mounted: Unanswering, holder: Holder
) -> None:
    swapping = start(SWAPPING, mounted)
    mounted.silent |= {GETXATTR, GETATTR, READ}
    try:
        with Follow() as follow, ending(mounted, follow):
            follow.started()
            for _ in range(20):
                inode = holder.open("one = tcp_listener()")
                follow.wait(event="open", inode=inode)
                holder.do("one.close()")
                follow.wait(event="close", inode=inode)
            threads = set(map(int, os.listdir(f"/proc/{follow.process.pid}/task")))
        # The agent never accessed the file system; other programs may have.
        assert threads.isdisjoint(thread for thread, _request in mounted.waiting)
    finally:
        swapping.kill()
        swapping.communicate()


# A page of the file is being read; a mapping of the file waits for it under the lock of the
# process's memory, which reading its command line takes, too.
LOCKED = """
import mmap, os, socket, sys, time
first, second = (os.open(sys.argv[1], os.O_RDONLY) for _ in range(2))
if not os.fork():
    os.read(first, 1)
    os._exit(0)
time.sleep(0.2)
listener = socket.create_server(("127.0.0.1", 0))
print(flush=True)
mmap.mmap(second, 4096, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)
"""


def test_a_process_whose_command_line_hangs_is_reported_without_it(
    mounted: Unanswering, holder: Holder
) -> None:
    mounted.silent |= {READ}
    locked = start(LOCKED, mounted)
    try:
        with Follow("--cmdline") as follow, ending(mounted, follow):
            follow.started()
            (record,) = follow.of(locked.pid).values()
            assert (record["state"], record.get("cmdline")) == ("LISTEN", None)
            missing = follow.records[0]["missing"]
            assert any(f"process {locked.pid} (" in one for one in missing), missing
            inode = holder.open("one = tcp_listener()")
            assert follow.wait(event="open", inode=inode)["cmdline"]
    finally:
        locked.kill()
        mounted.end()
        locked.communicate()


def test_a_snapshot_has_a_process_whose_command_line_hangs(mounted: Unanswering) -> None:
    mounted.silent |= {READ}
    locked = start(LOCKED, mounted)
    try:
        done = run("--cmdline", "--pid", str(locked.pid))
        assert done.returncode == 0
        assert '"LISTEN"' in done.stdout
        assert f"process {locked.pid} (" in done.stderr
    finally:
        locked.kill()
        mounted.end()
        locked.communicate()


@pytest.mark.parametrize("mode", [(), ("--follow",)])
def test_a_procfs_that_never_answers_is_reported_on_one_line(
    mode: tuple[str, ...], mounted: Unanswering
) -> None:
    mounted.silent |= {GETATTR, READ}
    path = str(mounted.file.parent)
    agent = subprocess.Popen((*COMMAND, "--proc", path, *mode), stderr=subprocess.PIPE, text=True)
    assert agent.stderr
    assert agent.stderr.readline() == f"sockagent: {path}: it does not answer\n"
    mounted.end()  # Until then no signal ends the process.
    assert agent.communicate(timeout=DEADLINE)[1] == ""
    assert agent.returncode == 1
