import os
import time

import pytest

from agent.procfs.rest import Asked, ran

from ..fakeproc import FakeProc
from ..told import Told, told

MANY = 100  # More threads than anyone here has.

needs_times = pytest.mark.skipif(
    not os.path.exists("/proc/self/schedstat"), reason="this kernel keeps no such times"
)


def shown(pid: int, threads: int = MANY) -> bytes | None:
    return ran("/proc", [Asked(pid, threads, 0)])[0][pid]


def asleep(there: Told) -> bytes | None:
    """What it shows when it sleeps again."""
    seen = [shown(there.pid)]
    while len(seen) < 3 or len(set(seen[-3:])) > 1:
        time.sleep(0.02)
        seen.append(shown(there.pid))
    return seen[-1]


@needs_times
def test_who_sleeps_shows_the_same_and_who_ran_does_not() -> None:
    with told() as there:
        before = asleep(there)
        assert before
        assert shown(there.pid) == before
        there("os.dup2(1, 0 + 20)")
        assert shown(there.pid) != before


@needs_times
def test_any_thread_that_ran_counts() -> None:
    with told() as there:
        there("go, gone = threading.Event(), threading.Event()")
        there("def run(): go.wait(); gone.set(); threading.Event().wait()")
        there("threading.Thread(target=run, daemon=True).start()")
        before = asleep(there)
        assert before
        assert len(before.splitlines()) == 2
        there("go.set(); gone.wait()")
        assert shown(there.pid) != before


@needs_times
def test_of_too_many_threads_there_is_no_telling() -> None:
    assert shown(os.getpid(), 0) is None


def test_where_the_kernel_keeps_no_times_there_is_no_telling(fake: FakeProc) -> None:
    for pid, line in ((7, b"0 0 0\n"), (8, b"")):
        task = fake.process(pid) / "task" / str(pid)
        (task / "schedstat").write_bytes(line)
    fake.process(9)
    asked = [Asked(pid, MANY, 0) for pid in (7, 8, 9)]
    assert ran(str(fake.root), asked) == ({7: None, 8: None, 9: None}, [])


def test_who_is_gone_is_left_out(fake: FakeProc) -> None:
    assert ran(str(fake.root), [Asked(7, MANY, 1)]) == ({}, [])


def test_who_may_share_its_descriptors_is_told(fake: FakeProc) -> None:
    fake.process(7)
    # kcmp knows only the processes of our own pid namespace: of others there is no telling.
    assert ran(str(fake.root), [Asked(7, MANY, 1)])[1] == [7]
    assert ran("/proc", [Asked(os.getpid(), MANY, 0)])[1] == []
