import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from agent.kernel.procfs.progress import Progress
from agent.snapshot import blocking as hops_module
from agent.snapshot.blocking import MAX_HUNG_OF_A_KIND, THREADS, BlockingCalls, CallTimeout


class Hanging:
    """Reads that wait until they are released."""

    def __init__(self) -> None:
        self._released = threading.Event()
        self.read: list[int] = []

    def release(self) -> None:
        self._released.set()

    def wait(self) -> str:
        self._released.wait()
        return "released"

    def batch(self, items: Sequence[int], progress: Progress) -> list[int]:
        """Read items, of which the negative ones hang."""
        for item in progress.each(items):
            self.read.append(item)
            if item < 0:
                self.wait()
        return list(items)


@pytest.fixture
async def hanging(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Hanging]:
    monkeypatch.setattr(hops_module, "HANG_SECONDS", 0.1)
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(2 * THREADS))
    one = Hanging()
    yield one
    one.release()


def itself(item: int) -> int:
    return item


async def returned(hops: BlockingCalls, place: Hashable) -> None:
    while hops.hangs(place):
        hops.forget_returned()
        await asyncio.sleep(0)


async def test_a_call_returns_what_the_function_does() -> None:
    assert await BlockingCalls().call("here", divmod, 7, 2) == (3, 1)


async def test_a_call_raises_what_the_function_does() -> None:
    with pytest.raises(ZeroDivisionError):
        await BlockingCalls().call("here", divmod, 7, 0)


async def test_a_call_that_hangs_is_late_and_its_place_avoided(hanging: Hanging) -> None:
    hops = BlockingCalls()
    with pytest.raises(CallTimeout):
        await hops.call("there", hanging.wait)
    assert hops.hangs("there")
    with pytest.raises(CallTimeout):
        await hops.call("there", os.getpid)
    assert await hops.call("here", os.getpid) == os.getpid()


async def test_a_place_is_read_again_when_its_call_has_returned(hanging: Hanging) -> None:
    hops = BlockingCalls()
    with pytest.raises(CallTimeout):
        await hops.call("there", hanging.wait)
    hanging.release()
    await returned(hops, "there")
    assert await hops.call("there", os.getpid) == os.getpid()


async def test_a_place_hangs_until_returned_calls_are_forgotten(hanging: Hanging) -> None:
    hops = BlockingCalls()
    await hops.batch(hanging.batch, [-1, 2], itself)
    hanging.release()
    while not hops._hung[-1].returned:  # noqa: ASYNC110 (until a thread returns)
        await asyncio.sleep(0)
    assert await hops.batch(hanging.batch, [-1, 2], itself) == [2]
    assert hops.hangs(-1)
    hops.forget_returned()
    assert not hops.hangs(-1)


async def test_a_call_that_works_is_never_late(hanging: Hanging) -> None:
    def work() -> str:
        end = time.thread_time() + 1.0  # Ten times the patience.
        while time.thread_time() < end:
            pass
        return "done"

    assert await BlockingCalls().call("here", work) == "done"


async def test_a_batch_is_made_again_without_what_hangs(hanging: Hanging) -> None:
    hops = BlockingCalls()
    assert await hops.batch(hanging.batch, [1, -2, 3, -4, 5], itself) == [1, 3, 5]
    assert hanging.read == [1, -2, 1, 3, -4, 1, 3, 5]
    assert (hops.hangs(-2), hops.hangs(-4), hops.hangs(3)) == (True, True, False)


async def test_what_hung_in_a_batch_goes_on_with_nothing_else(hanging: Hanging) -> None:
    hops = BlockingCalls()
    await hops.batch(hanging.batch, [-1, 2], itself)
    hanging.release()
    await returned(hops, -1)
    assert hanging.read == [-1, 2]


async def test_more_calls_hang_than_there_are_threads_and_others_are_made(
    hanging: Hanging,
) -> None:
    hops = BlockingCalls()
    calls = (hops.call(("there", number), hanging.wait) for number in range(THREADS + 2))
    late = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(one) for one in late] == [CallTimeout] * (THREADS + 2)
    assert await hops.call("here", os.getpid) == os.getpid()


async def test_no_call_is_made_while_too_many_hang(
    hanging: Hanging, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hops_module, "MAX_HUNG", 2)
    hops = BlockingCalls()
    for place in "ab":
        with pytest.raises(CallTimeout):
            await hops.call(place, hanging.wait)
    with pytest.raises(CallTimeout):
        await hops.call("here", os.getpid)
    with pytest.raises(CallTimeout):
        await hops.batch(hanging.batch, [1], itself)
    assert hanging.read == []


async def test_what_can_be_done_without_is_avoided_everywhere_once_several_hang(
    hanging: Hanging,
) -> None:
    hops = BlockingCalls()
    for pid in range(MAX_HUNG_OF_A_KIND):
        assert not hops.avoids(("cmdline", 99))
        with pytest.raises(CallTimeout):
            await hops.call(("cmdline", pid), hanging.wait)
    assert hops.avoids(("cmdline", 99))
    assert not hops.avoids(("counters", 99))
    assert not hops.avoids(99)


async def test_who_is_cancelled_in_a_call_is_cancelled(hanging: Hanging) -> None:
    task = asyncio.create_task(BlockingCalls().call("there", hanging.wait))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
