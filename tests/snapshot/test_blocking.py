import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from agent.kernel.procfs.files import Progress
from agent.snapshot import blocking
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
        """Read items; the reads of negative items hang."""
        for item in progress.each(items):
            self.read.append(item)
            if item < 0:
                self.wait()
        return list(items)


@pytest.fixture
async def hanging(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Hanging]:
    monkeypatch.setattr(blocking, "HANG_SECONDS", 0.1)
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(2 * THREADS))
    reads = Hanging()
    yield reads
    reads.release()


def itself(item: int) -> int:
    """Return the place of an item: the item."""
    return item


async def until_returned(calls: BlockingCalls, place: Hashable) -> None:
    """Wait until no call hangs at the place."""
    while calls.hangs(place):
        calls.forget_returned()
        await asyncio.sleep(0)


async def test_a_call_returns_the_result_of_the_function() -> None:
    assert await BlockingCalls().call("here", divmod, 7, 2) == (3, 1)


async def test_a_call_raises_the_error_of_the_function() -> None:
    with pytest.raises(ZeroDivisionError):
        await BlockingCalls().call("here", divmod, 7, 0)


async def test_a_call_that_hangs_times_out_and_its_place_is_avoided(hanging: Hanging) -> None:
    calls = BlockingCalls()
    with pytest.raises(CallTimeout):
        await calls.call("there", hanging.wait)
    assert calls.hangs("there")
    with pytest.raises(CallTimeout):
        await calls.call("there", os.getpid)
    assert await calls.call("here", os.getpid) == os.getpid()


async def test_a_place_is_read_again_when_its_call_has_returned(hanging: Hanging) -> None:
    calls = BlockingCalls()
    with pytest.raises(CallTimeout):
        await calls.call("there", hanging.wait)
    hanging.release()
    await until_returned(calls, "there")
    assert await calls.call("there", os.getpid) == os.getpid()


async def test_a_place_hangs_until_returned_calls_are_forgotten(hanging: Hanging) -> None:
    calls = BlockingCalls()
    await calls.batch(hanging.batch, [-1, 2], itself)
    hanging.release()
    while not calls._hung[-1].returned:  # noqa: ASYNC110 (until a thread returns)
        await asyncio.sleep(0)
    assert await calls.batch(hanging.batch, [-1, 2], itself) == [2]
    assert calls.hangs(-1)
    calls.forget_returned()
    assert not calls.hangs(-1)


async def test_a_call_that_uses_cpu_time_does_not_time_out(hanging: Hanging) -> None:
    def work() -> str:
        end = time.thread_time() + 1.0  # Ten times HANG_SECONDS.
        while time.thread_time() < end:
            pass
        return "done"

    assert await BlockingCalls().call("here", work) == "done"


async def test_a_batch_is_repeated_without_the_items_that_hang(hanging: Hanging) -> None:
    calls = BlockingCalls()
    assert await calls.batch(hanging.batch, [1, -2, 3, -4, 5], itself) == [1, 3, 5]
    assert hanging.read == [1, -2, 1, 3, -4, 1, 3, 5]
    assert (calls.hangs(-2), calls.hangs(-4), calls.hangs(3)) == (True, True, False)


async def test_a_thread_that_hung_in_a_batch_reads_no_further_item(hanging: Hanging) -> None:
    calls = BlockingCalls()
    await calls.batch(hanging.batch, [-1, 2], itself)
    hanging.release()
    await until_returned(calls, -1)
    assert hanging.read == [-1, 2]


async def test_calls_are_made_while_more_calls_hang_than_there_are_slots(
    hanging: Hanging,
) -> None:
    calls = BlockingCalls()
    hung = (calls.call(("there", number), hanging.wait) for number in range(THREADS + 2))
    errors = await asyncio.gather(*hung, return_exceptions=True)
    assert [type(error) for error in errors] == [CallTimeout] * (THREADS + 2)
    assert await calls.call("here", os.getpid) == os.getpid()


async def test_no_call_is_made_while_too_many_hang(
    hanging: Hanging, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocking, "MAX_HUNG", 2)
    calls = BlockingCalls()
    for place in "ab":
        with pytest.raises(CallTimeout):
            await calls.call(place, hanging.wait)
    with pytest.raises(CallTimeout):
        await calls.call("here", os.getpid)
    with pytest.raises(CallTimeout):
        await calls.batch(hanging.batch, [1], itself)
    assert hanging.read == []


async def test_places_of_a_dispensable_kind_are_avoided_once_several_hang(
    hanging: Hanging,
) -> None:
    calls = BlockingCalls()
    for pid in range(MAX_HUNG_OF_A_KIND):
        assert not calls.avoids(("cmdline", 99))
        with pytest.raises(CallTimeout):
            await calls.call(("cmdline", pid), hanging.wait)
    assert calls.avoids(("cmdline", 99))
    assert not calls.avoids(("counters", 99))
    assert not calls.avoids(99)


async def test_a_task_can_be_cancelled_during_a_call(hanging: Hanging) -> None:
    task = asyncio.create_task(BlockingCalls().call("there", hanging.wait))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
