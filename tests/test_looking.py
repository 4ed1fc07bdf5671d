"""What the sweep reads of real processes: of one that has not run since, nothing."""

import os
import signal

import pytest

from agent import looking
from agent.holders import MOST_RESTS, Holders
from agent.looking import Looking
from agent.procfs.reader import ProcFS
from agent.procfs.walker import Walker

from .procfs.test_rest import asleep, needs_times
from .procfs.test_walker_check import needs_counts
from .told import Told, told

SWEEP = 60.0
pytestmark = [needs_times, needs_counts]


class Sweeping:
    """Looks at some processes; each time is a turn of the sweep."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *pids: int, sweep: float = SWEEP) -> None:
        monkeypatch.setattr(looking, "time", self)
        self._now = 0.0
        self._sweep = sweep
        self._pids = pids
        self.holders = Holders()
        self._looking = Looking(Walker(ProcFS()), self.holders, sweep)

    def monotonic(self) -> float:
        return self._now

    async def turn(self) -> int:
        """How many descriptors it read."""
        self._now += self._sweep
        before = self._looking.descriptors
        assert await self._looking.what_changed(self._pids, ()) == {}
        return self._looking.descriptors - before

    async def until_it_rests(self, there: Told) -> None:
        while not self.holders.watched or self.holders.watched[there.pid].rests != 1:
            asleep(there)
            await self.turn()


async def test_who_has_not_run_is_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    with told() as there:
        sweeping = Sweeping(monkeypatch, there.pid)
        # Found, new for some polls, then read in its turn: after that nothing can have changed.
        await sweeping.until_it_rests(there)
        assert await sweeping.turn() == 0
        there("one = socket.socket(); two = socket.socket()")
        assert await sweeping.turn() > 0
        inodes = there("print(os.fstat(one.fileno()).st_ino, os.fstat(two.fileno()).st_ino)")
        one, two = map(int, inodes.split())
        await sweeping.until_it_rests(there)
        there("os.dup2(two.fileno(), one.fileno())")
        assert await sweeping.turn() > 0
        assert sweeping.holders.pids_of(one) == ()
        assert sweeping.holders.watched[there.pid].held[two]


async def test_who_rests_long_is_read_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    with told() as there:
        sweeping = Sweeping(monkeypatch, there.pid)
        await sweeping.until_it_rests(there)
        read = [await sweeping.turn() for _ in range(2 * MOST_RESTS + 2)]
        resting = [0] * MOST_RESTS
        assert read == [*resting[1:], read[-2], *resting, read[-2], 0]
        assert read[-2] > 0


async def test_a_short_sweep_reads_in_any_case(monkeypatch: pytest.MonkeyPatch) -> None:
    with told() as there:
        sweeping = Sweeping(monkeypatch, there.pid, sweep=1.0)
        await sweeping.turn()
        asleep(there)
        assert all([await sweeping.turn() > 0 for _ in range(8)])


async def test_one_with_whom_a_runner_shares_its_descriptors_never_rests(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with told() as there:
        held, other = map(
            int,
            there(
                "one = socket.socket(); two = socket.socket(); "
                "print(os.fstat(one.fileno()).st_ino, os.fstat(two.fileno()).st_ino)"
            ).split(),
        )
        # The child swaps them when it gets a signal, in the table of both.
        there("signal.signal(signal.SIGUSR1, lambda *_: os.dup2(two.fileno(), one.fileno()))")
        child = int(there("print(sharing())"))
        sweeping = Sweeping(monkeypatch, there.pid, child)
        for _ in range(8):
            asleep(there)
            assert await sweeping.turn() > 0
        assert sweeping.holders.pids_of(held) == (there.pid, child)
        before = asleep(there)
        os.kill(child, signal.SIGUSR1)
        while sweeping.holders.pids_of(held):  # The child needs its time to run.
            await sweeping.turn()
        assert sweeping.holders.pids_of(other) == (there.pid, child)
        assert asleep(there) == before


async def test_what_others_change_of_one_who_rests_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    with told() as there:
        there("reading, writing = os.pipe()")
        there(
            "child = os.fork(); child or "
            "(os.fork() or os.write(writing, b'%d' % os.getpid()), signal.pause())"
        )
        child, grandchild = map(int, there("print(child, os.read(reading, 20).decode())").split())
        try:
            sweeping = Sweeping(monkeypatch, grandchild)
            while not sweeping.holders.watched or not sweeping.holders.watched[grandchild].rests:
                await sweeping.turn()
            assert sweeping.holders.watched[grandchild].process.ppid == child
            os.kill(child, signal.SIGKILL)
            there("os.wait()")
            await sweeping.turn()
            assert sweeping.holders.watched[grandchild].process.ppid != child
        finally:
            os.kill(grandchild, signal.SIGKILL)
