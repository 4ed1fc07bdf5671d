"""What waits for another program, for ever, does not stop the agent: FUSE file systems that never
answer, which any user may have."""

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
    """A process that runs this, when it is ready."""
    started = subprocess.Popen(
        [sys.executable, "-c", code, str(mounted.file)], stdout=subprocess.PIPE
    )
    assert started.stdout
    started.stdout.readline()
    return started


@contextmanager
def ending(mounted: Unanswering, follow: Follow) -> Iterator[None]:
    """Have the agent end while the file system does not answer; unmount it behind that, for a
    process that waits for it cannot even be killed."""
    try:
        yield
        follow.process.terminate()
        follow.process.wait(DEADLINE)
    finally:
        mounted.end()


# The descriptors from 100 on are unbound sockets, which only their descriptors can name, and at the
# next moment the file. Every now and then they are other sockets, held meanwhile by those from 200.
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
        # The file system was never asked for anything by the agent, maybe by others.
        assert threads.isdisjoint(thread for thread, _request in mounted.waiting)
    finally:
        swapping.kill()
        swapping.communicate()


# A page of the file is being read; a mapping of the file past the page cache waits for it, and
# nobody can read the memory of the process meanwhile.
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


def test_a_process_whose_command_line_never_comes_is_shown_without_it(
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


def test_a_snapshot_shows_a_process_whose_command_line_never_comes(mounted: Unanswering) -> None:
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
def test_a_procfs_that_never_answers_is_a_failure_in_one_sentence(
    mode: tuple[str, ...], mounted: Unanswering
) -> None:
    mounted.silent |= {GETATTR, READ}
    path = str(mounted.file.parent)
    agent = subprocess.Popen((*COMMAND, "--proc", path, *mode), stderr=subprocess.PIPE, text=True)
    assert agent.stderr
    assert agent.stderr.readline() == f"sockagent: {path}: it does not answer\n"
    mounted.end()  # Until then the kernel keeps the process, whatever signal it gets.
    assert agent.communicate(timeout=DEADLINE)[1] == ""
    assert agent.returncode == 1
