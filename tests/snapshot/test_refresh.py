"""Rereading of real processes: nothing is read of processes that have not run since."""

import asyncio
import os
import signal
from collections.abc import Sequence

import pytest

from agent.kernel.procfs.mount import ProcFS
from agent.kernel.procfs.scanner import ProcessScanner
from agent.snapshot import blocking, quota, refresh
from agent.snapshot.holders import NEW_POLLS, Holders
from agent.snapshot.plan import MAX_SKIPS
from agent.snapshot.quota import Limits
from agent.snapshot.refresh import HolderRefresher

from ..child import Child, child_process
from ..kernel.procfs.test_scanner_check import needs_counts
from ..kernel.procfs.test_schedstat import needs_times
from ..unshared import need_root

pytestmark = [needs_times, needs_counts]


UNLIMITED = Limits(10**9, 10**9, 10**9)
NOBODY = 65_534


class Polling:
    """Polls of some processes, ``step`` seconds apart."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        *pids: int,
        sweep: float = 60.0,
        step: float = 1.0,
        limits: Limits = UNLIMITED,
    ) -> None:
        monkeypatch.setattr(refresh, "time", self)
        self._now = 0.0
        self._step = step
        self._pids = pids
        self.holders = Holders()
        self.refresher = HolderRefresher(
            ProcessScanner(ProcFS()), self.holders, sweep, limits=limits
        )

    def monotonic(self) -> float:
        return self._now

    async def poll(self) -> int:
        """Poll; return the number of descriptors read."""
        self._now += self._step
        before = self.refresher.descriptors_read
        assert await self.refresher.refresh(self._pids, ()) == {}
        return self.refresher.descriptors_read - before

    async def settle(self) -> None:
        """Poll until the processes sleep and are no longer new."""
        still = 0
        while still < 2 * NEW_POLLS:
            await asyncio.sleep(0.01)
            await self.poll()
            still = 0 if any(map(self.refresher.has_run, self._pids)) else still + 1


PRIVATE = """
def run():
    libc.unshare(0x400)  # CLONE_FILES
    held.append(socket.socket())
    gone.set()
    go.wait()
    os.dup2(2, held[0].fileno())
    gone.set()
    threading.Event().wait()
"""


def inodes(there: Child, *names: str) -> list[int]:
    """Return the inodes of the child's sockets with these names."""
    return [int(there(f"print(os.fstat({name}.fileno()).st_ino)")) for name in names]


async def test_a_process_that_has_not_run_is_not_read_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with child_process() as there:
        polling = Polling(monkeypatch, there.pid)
        await polling.settle()
        # In some sweeps a poll reads one descriptor of a process that has not run.
        assert {await polling.poll() for _ in range(20)} == {0, 1}


async def test_a_socket_that_replaces_another_is_found_by_the_next_poll(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with child_process() as there:
        there("one = socket.socket(); two = socket.socket()")
        one, two = inodes(there, "one", "two")
        polling = Polling(monkeypatch, there.pid)
        await polling.settle()
        there("os.dup2(two.fileno(), one.fileno())")
        await polling.poll()
        assert polling.holders.pids_of(one) == ()
        assert len(polling.holders.processes[there.pid].held[two]) == 2


async def test_a_socket_that_replaces_a_file_is_found_by_the_next_poll(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with child_process() as there:
        there("file = os.open('/dev/null', os.O_RDONLY)")
        polling = Polling(monkeypatch, there.pid)
        await polling.settle()
        there("os.close(file); one = socket.socket()")
        (one,) = inodes(there, "one")
        await polling.poll()
        assert polling.holders.pids_of(one) == (there.pid,)


async def test_threads_with_own_descriptors_are_skipped_until_they_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with child_process() as there:
        there("go, gone = threading.Event(), threading.Event()")
        there("held = []")
        there(f"exec({PRIVATE!r})")
        there("threading.Thread(target=run, daemon=True).start(); gone.wait(); gone.clear()")
        polling = Polling(monkeypatch, there.pid)
        await polling.settle()
        ((_fd, inode),) = polling.holders.processes[there.pid].thread_fds
        assert polling.holders.pids_of(inode) == (there.pid,)
        scanned_before = polling.refresher.processes_scanned
        for _ in range(MAX_SKIPS):
            await polling.poll()
        assert polling.refresher.processes_scanned - scanned_before <= MAX_SKIPS + 1
        there("go.set(); gone.wait()")
        await polling.poll()
        assert polling.holders.pids_of(inode) == ()


async def test_many_threads_with_own_descriptors_are_skipped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # More threads than the process has descriptors, and than are checked without regard to that.
    with child_process() as there:
        there("gone, go, held = threading.Semaphore(0), threading.Event(), []")
        there(f"exec({PRIVATE.replace('gone.set()', 'gone.release()')!r})")
        there("for _ in range(30): threading.Thread(target=run, daemon=True).start()")
        there("for _ in range(30): gone.acquire()")
        polling = Polling(monkeypatch, there.pid)
        async with asyncio.timeout(20):
            await polling.settle()
        assert len(polling.holders.processes[there.pid].thread_fds) >= 30
        scanned = 0

        async def scan(pids: Sequence[int]) -> dict[int, str]:
            nonlocal scanned
            scanned += len(pids)
            return {}

        monkeypatch.setattr(polling.refresher, "_scan", scan)
        for _ in range(MAX_SKIPS):
            await polling.poll()
        assert scanned <= 1  # The sweep reads it in one of MAX_SKIPS + 1 rounds.


async def test_a_process_that_has_not_run_is_read_after_max_skips_sweeps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with child_process() as there:
        polling = Polling(monkeypatch, there.pid, sweep=60.0, step=60.0)
        for _ in range(10):
            await asyncio.sleep(0.02)
            await polling.poll()
        read = [await polling.poll() > 0 for _ in range(3 * (MAX_SKIPS + 1))]
        assert read.count(True) == 3


async def test_a_short_sweep_reads_processes_that_have_not_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with child_process() as there:
        polling = Polling(monkeypatch, there.pid, sweep=1.0)
        await polling.poll()
        assert all([await polling.poll() > 0 for _ in range(8)])


async def test_a_change_of_a_shared_descriptor_table_is_found_in_both_processes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with child_process() as there:
        there("one = socket.socket(); two = socket.socket()")
        held, other = inodes(there, "one", "two")
        # On a signal the child replaces one by the other, in the shared table.
        there("signal.signal(signal.SIGUSR1, lambda *_: os.dup2(two.fileno(), one.fileno()))")
        child = int(there("print(sharing())"))
        polling = Polling(monkeypatch, there.pid, child)
        for _ in range(8):
            await asyncio.sleep(0.02)
            await polling.poll()
        assert set(polling.holders.pids_of(held)) == {there.pid, child}
        os.kill(child, signal.SIGUSR1)
        while polling.holders.pids_of(held):  # The child takes a while to run.
            await polling.poll()
        assert set(polling.holders.pids_of(other)) == {there.pid, child}


async def test_the_new_parent_of_a_process_that_has_not_run_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with child_process() as there:
        there("reading, writing = os.pipe()")
        there(
            "child = os.fork(); child or "
            "(os.fork() or os.write(writing, b'%d' % os.getpid()), signal.pause())"
        )
        child, grandchild = map(int, there("print(child, os.read(reading, 20).decode())").split())
        try:
            polling = Polling(monkeypatch, child, grandchild)
            await polling.settle()
            assert polling.holders.processes[grandchild].process.ppid == child
            os.kill(child, signal.SIGKILL)
            there("os.wait()")
            await polling.poll()
            assert polling.holders.processes[grandchild].process.ppid != child
        finally:
            os.kill(grandchild, signal.SIGKILL)


async def test_a_socket_replaced_before_polls_that_fail_is_found_by_the_next_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def hang(*_arguments: object) -> None:
        raise blocking.CallTimeout

    with child_process() as there:
        there("one = socket.socket(); two = socket.socket()")
        one, two = inodes(there, "one", "two")
        polling = Polling(monkeypatch, there.pid)
        await polling.settle()
        there("os.dup2(two.fileno(), one.fileno())")
        with monkeypatch.context() as failing:
            failing.setattr(polling.refresher._calls, "batch", hang)
            for _ in range(3):
                with pytest.raises(blocking.CallTimeout):
                    await polling.poll()
        await polling.poll()
        assert polling.holders.pids_of(one) == ()
        assert len(polling.holders.processes[there.pid].held[two]) == 2


async def test_calls_that_hang_elsewhere_do_not_end_the_detection_of_processes_that_have_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with child_process() as there:
        polling = Polling(monkeypatch, there.pid)
        await polling.settle()
        with monkeypatch.context() as failing:
            failing.setattr(blocking, "MAX_HUNG", 0)
            with pytest.raises(blocking.CallTimeout):
                await polling.poll()
        await polling.poll()
        assert polling.refresher._ran[there.pid] is not None


# Limits for each user.


def hold(there: Child, count: int, *, uid: int = NOBODY) -> None:
    """Make the child hold ``count`` sockets as the user ``uid``."""
    there(f"held = [socket.socket() for _ in range({count})]; os.setuid({uid})")


async def test_a_user_beyond_the_limits_is_named_and_other_users_are_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    need_root()
    with child_process() as small, child_process() as large, child_process() as roots:
        hold(small, 5)
        hold(large, 100)
        hold(roots, 100, uid=0)
        pids = (small.pid, large.pid, roots.pid)
        polling = Polling(monkeypatch, *pids, limits=Limits(40, 30, 1))
        for _ in range(3):
            await polling.poll()
        assert polling.holders.processes.keys() == {small.pid, roots.pid}
        (sentence,) = polling.refresher.beyond_limits()
        assert sentence.startswith(f"user {NOBODY} has 100 descriptors in 2 processes")
        large("held.clear()")
        await polling.poll()
        assert large.pid in polling.holders.processes
        assert polling.refresher.beyond_limits() == []


async def test_processes_beyond_the_limit_of_a_user_are_read_within_the_time_share(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    need_root()
    with child_process() as first, child_process() as second:
        for there in (first, second):
            hold(there, 30)
        polling = Polling(monkeypatch, first.pid, second.pid, limits=Limits(40, 40, 1))
        monkeypatch.setattr(quota, "TIME_SHARE", 0.0)
        await polling.poll()
        assert len(polling.holders.processes) == 1
        monkeypatch.setattr(quota, "TIME_SHARE", 0.1)
        await polling.poll()
        assert {first.pid, second.pid} == polling.holders.processes.keys()
        assert all(len(one.held) == 30 for one in polling.holders.processes.values())


async def test_a_process_that_is_not_dumpable_counts_for_its_user(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    need_root()
    with child_process() as there:
        hold(there, 100)
        there("libc.prctl(4, 0)")  # PR_SET_DUMPABLE: root then owns what is below /proc/PID.
        polling = Polling(monkeypatch, there.pid, limits=Limits(10, 10, 1))
        await polling.poll()
        assert not polling.holders.processes
