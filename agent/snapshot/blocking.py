"""Blocking calls in threads, with deadlines: a call that hangs is left behind.

A read of procfs can take as long as another program wants. The kernel reads the command line of a
process under the lock of its memory, which the process holds while it maps a file on a FUSE file
system that does not answer; kcmp(2) waits for an exec that waits for such a file system; a process
that reads the link of a descriptor may be the last user of the file, and has to close it. Nothing
in this process can end such a call, so its thread is left behind.
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

from ..kernel.procfs.files import Progress

# A call hangs if its thread has used next to no CPU time for this long. A call that works may take
# longer.
HANG_SECONDS = 5.0
# The smallest share of a CPU that a working thread gets on a busy machine.
MIN_CPU_SHARE = 0.01
# Checks in a row that must find the thread idle: the agent itself may have been stopped meanwhile.
CHECKS = 5
# Threads for calls that return; as many as asyncio has by default.
THREADS = min(32, (os.cpu_count() or 1) + 4)
# Threads that may be left behind, 30 KiB each. With so many, no further call is made.
MAX_HUNG = 32
# Kinds of places that the agent can do without, and how many calls of such a kind may hang.
DISPENSABLE = frozenset({"cmdline", "shared"})
MAX_HUNG_OF_A_KIND = 4
NO_ANSWER = "it does not answer"

I = TypeVar("I")  # noqa: E741 (an item)
T = TypeVar("T")


class CallTimeout(TimeoutError):
    """A call did not return in time, or was not made because an earlier call hangs."""

    def __init__(self) -> None:
        super().__init__(errno.ETIMEDOUT, NO_ANSWER)


def place_of_process(pid: int) -> int:
    """Return the place of a process: its pid."""
    return pid


class BlockingCalls:
    """Calls in the event loop's default executor. A place, any hashable value, names what a call
    reads. A place at which a call hangs is not read again until the call has returned and
    ``forget_returned`` is called: so a caller can ask after a batch which items were left out."""

    def __init__(self) -> None:
        self._slots = asyncio.Semaphore(THREADS)
        self._hung: dict[Hashable, _Call[Any]] = {}

    def forget_returned(self) -> None:
        """Allow reading the places again at which calls hung that have returned since."""
        self._hung = {place: call for place, call in self._hung.items() if not call.returned}

    def hangs(self, place: Hashable) -> bool:
        """Return whether a call hangs at the place, or did before ``forget_returned``."""
        return place in self._hung

    def avoids(self, place: Hashable) -> bool:
        """Return whether the place is not to be read: a call hangs there, or several calls hang at
        other places of the same dispensable kind."""
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
        """Call the function in a thread and return its result. ``seconds`` replaces HANG_SECONDS.
        Raise CallTimeout, at once if the place is avoided, and what the function raises."""
        if self.avoids(place):
            raise CallTimeout
        return await self._run(place, Progress(), partial(function, *args), seconds)

    async def batch(
        self,
        function: Callable[[Sequence[I], Progress], T],
        items: Sequence[I],
        place_of: Callable[[I], Hashable],
    ) -> T:
        """Call the function in a thread with the items whose places are not avoided.

        The function iterates with ``Progress.each``, which records the place that is read. If the
        call hangs there, the function is called again without that item. Raise CallTimeout only if
        no further call may be made.
        """
        while True:
            remaining = items
            if self._hung:
                remaining = [item for item in items if not self.avoids(place_of(item))]
            progress = Progress(self.avoids)
            try:
                return await self._run(None, progress, partial(function, remaining, progress), 0.0)
            except CallTimeout:
                if progress.place is None:
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
            # The more calls hang, the shorter the wait: together they delay a poll four times as
            # long as one of them.
            call.watch(running, (seconds or HANG_SECONDS) / (1 + hung) / CHECKS)
            try:
                return await running
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if not call.timed_out or (task is not None and task.cancelling()):
                    raise
            finally:
                call.unwatch()
        progress.stop()
        # A call without a place cannot be avoided, but it counts.
        self._hung[progress.place or place or call] = call
        raise CallTimeout


class _Call(Generic[T]):
    """One call, made in a thread and watched from the event loop."""

    def __init__(self, work: Callable[[], T]) -> None:
        self._work = work
        self._clock: int | None = None  # Of the thread's CPU time, once the call has begun.
        self._cpu_seconds = 0.0
        self._idle_checks = 0
        self._timer: asyncio.TimerHandle | None = None
        self.timed_out = False
        self.returned = False

    def __call__(self) -> T:
        """Make the call."""
        self._cpu_seconds = time.thread_time()
        self._clock = time.pthread_getcpuclockid(threading.get_ident())
        try:
            return self._work()
        finally:
            self.returned = True

    def watch(self, running: asyncio.Future[T], seconds: float) -> None:
        """Check every ``seconds`` whether the call hangs; if it does, cancel the future."""
        later = asyncio.get_running_loop().call_later
        self._timer = later(seconds, self._check, running, seconds)

    def unwatch(self) -> None:
        """Stop the checks."""
        if self._timer is not None:
            self._timer.cancel()

    def _check(self, running: asyncio.Future[T], seconds: float) -> None:
        if self._clock is not None and not self.returned:
            cpu_seconds = time.clock_gettime(self._clock)
            is_idle = cpu_seconds - self._cpu_seconds < seconds * MIN_CPU_SHARE
            self._idle_checks = self._idle_checks + 1 if is_idle else 0
            self._cpu_seconds = cpu_seconds
        if self._idle_checks >= CHECKS:
            self.timed_out = True
            running.cancel()
        else:
            self.watch(running, seconds)
