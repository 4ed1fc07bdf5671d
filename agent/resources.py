"""Descriptors and threads of the process."""

from __future__ import annotations

import os
import resource
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from .snapshot.blocking import MAX_HUNG, THREADS

# Descriptors without which nothing works: those of the event loop, and a few to read files.
MIN_DESCRIPTORS = 12
# Descriptors left for reading files when sockets are opened in network namespaces, two in each.
RESERVED_DESCRIPTORS = 64
# Threads for other calls that may block, such as resolving host names.
OTHER_THREADS = 4


class NonJoiningExecutor(ThreadPoolExecutor):
    """A thread pool whose threads are not joined at the end: a call that reads a file system which
    does not answer may never return."""

    def __init__(self) -> None:
        super().__init__(THREADS + MAX_HUNG + OTHER_THREADS)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: ARG002
        """Cancel the calls that have not begun, and return at once."""
        super().shutdown(wait=False, cancel_futures=True)


def require_descriptors(count: int = MIN_DESCRIPTORS) -> None:
    """Check that so many descriptors can be opened: asyncio leaks some if it runs out of them while
    it creates a loop. Raises OSError."""
    opened: list[int] = []
    try:
        while len(opened) < count:
            opened += os.pipe()
    finally:
        for descriptor in opened:
            os.close(descriptor)


def raise_descriptor_limit() -> int:
    """Raise the soft limit of descriptors to the hard limit; return the limit now in force."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        return hard
    return soft
