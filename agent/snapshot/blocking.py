"""Runs blocking calls in threads, and gives up those that hang: they stop nothing else.

A read of procfs can take as long as another program likes. The kernel reads the command line of a
process under the lock of its memory, which the process holds while it maps a file of a FUSE file
system that does not answer; kcmp(2) waits for an exec that waits for such a file system; whoever
reads the link of a descriptor can be the last to let go of the file. Nothing in this process ends
such a call, so its thread is left behind.
"""

from __future__ import annotations

import asyncio
import errno
import os
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Any, Generic, TypeVar

from ..kernel.procfs.progress import Progress

# A call hangs whose thread has used no CPU to speak of for so long. One that works may take longer.
SECONDS = 5.0
# Part of the time in which a thread that works has a CPU at the least; a busy machine gives more.
MIN_BUSY = 0.01
# Times that a thread is found idle before its call hangs: the agent itself may have been stopped.
CHECKS = 5
# Threads for calls that return; as many as asyncio has by default.
THREADS = min(32, (os.cpu_count() or 1) + 4)
# Threads left behind in calls that hang, at the most, 30 KiB each. No call is made beyond that.
MAX_HUNG = 32
# The first element of places that can be done without, and how many of a kind may hang.
DISPENSABLE = frozenset({"cmdline", "ran"})
MAX_HUNG_OF_A_KIND = 4

I = TypeVar("I")  # noqa: E741 (an item)
T = TypeVar("T")


class CallTimeout(TimeoutError):
    """A call did not return in time, or was not made because an earlier one hangs."""

    def __init__(self) -> None:
        super().__init__(errno.ETIMEDOUT, NO_ANSWER)


NO_ANSWER = "it does not answer"


class BlockingCalls:
    """Calls in the event loop's default executor. What they read is named by a place, a hashable
    value; a place at which a call hangs is not read again until ``forget_returned`` is called after
    that call returned: what was left out of a batch can still be asked for when the batch ends."""

    def __init__(self) -> None:
        self._slots = asyncio.Semaphore(THREADS)
        self._hung: dict[Hashable, _Call[Any]] = {}

    def forget_returned(self) -> None:
        """Let the places be read again at which calls hung that have returned since."""
        self._hung = {place: call for place, call in self._hung.items() if not call.returned}

    def hangs(self, place: Hashable) -> bool:
        """Return whether a call hangs at the place, or did before ``forget_returned``."""
        return place in self._hung

    def avoids(self, place: Hashable) -> bool:
        """Return whether the place is not to be read: a call hangs there, or several at others of
        its kind, if it can be done without."""
        if not self._hung:
            return False
        if self.hangs(place):
            return True
        if not isinstance(place, tuple) or place[0] not in DISPENSABLE:
            return False
        kind = [one for one in list(self._hung) if isinstance(one, tuple) and one[0] == place[0]]
        return len(kind) >= MAX_HUNG_OF_A_KIND

    async def call(
        self, place: Hashable, function: Callable[..., T], *args: object, seconds: float = 0.0
    ) -> T:
        """Call the function in a thread. Raises Late, at once if the place is avoided; and what the
        function raises. ``seconds`` replaces those of all calls."""
        if self.avoids(place):
            raise CallTimeout
        return await self._run(place, Progress(), partial(function, *args), seconds)

    async def batch(
        self,
        function: Callable[[Sequence[I], Progress], T],
        items: Sequence[I],
        place_of: Callable[[I], Hashable],
    ) -> T:
        """Call the function with these items in a thread, without those whose places are avoided.

        The function sets ``Progress.at`` to the place that it reads. If the call hangs there, the
        function is called anew without it. Raises Late only when no further call may hang.
        """
        while True:
            left = items
            if self._hung:
                left = [item for item in items if not self.avoids(place_of(item))]
            progress = Progress(self.avoids)
            try:
                return await self._run(None, progress, partial(function, left, progress), 0.0)
            except CallTimeout:
                if progress.at is None:
                    raise

    async def _run(
        self, place: Hashable, progress: Progress, work: Callable[[], T], seconds: float
    ) -> T:
        hung = sum(not call.returned for call in self._hung.values())
        if hung >= MAX_HUNG:
            raise CallTimeout
        call = _Call(work)
        async with self._slots:
            running = asyncio.get_running_loop().run_in_executor(None, call)
            # With each call that hangs there is less patience: many together stop a poll for about
            # four times as long as one.
            call.watch(running, (seconds or SECONDS) / (1 + hung) / CHECKS)
            try:
                return await running
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if not call.late or (task is not None and task.cancelling()):
                    raise
            finally:
                call.watched.cancel()
        progress.stopped = True
        # Without a place it cannot be avoided, but it counts.
        self._hung[progress.at or place or call] = call
        raise CallTimeout


class _Call(Generic[T]):
    """A call, made in one thread and watched from the event loop."""

    watched: asyncio.TimerHandle

    def __init__(self, work: Callable[[], T]) -> None:
        self._work = work
        self._clock: int | None = None  # Of the thread's CPU time, once the call has begun.
        self._spent = 0.0
        self._idle = 0
        self.late = False
        self.returned = False

    def __call__(self) -> T:
        """Make the call."""
        self._spent = time.thread_time()
        self._clock = time.pthread_getcpuclockid(threading.get_ident())
        try:
            return self._work()
        finally:
            self.returned = True

    def watch(self, running: asyncio.Future[T], seconds: float) -> None:
        """Look again every so many seconds whether the call hangs; then cancel the future."""
        later = asyncio.get_running_loop().call_later
        self.watched = later(seconds, self._look, running, seconds)

    def _look(self, running: asyncio.Future[T], seconds: float) -> None:
        if self._clock is not None and not self.returned:
            spent = time.clock_gettime(self._clock)
            self._idle = self._idle + 1 if spent - self._spent < seconds * MIN_BUSY else 0
            self._spent = spent
        if self._idle >= CHECKS:
            self.late = True
            running.cancel()
        else:
            self.watch(running, seconds)
