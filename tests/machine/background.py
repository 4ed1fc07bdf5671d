"""What takes a minute or more, most of it waiting, and runs while other tests do."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Generic, TypeVar

T = TypeVar("T")


class Background(Generic[T]):
    """A piece of work, begun in a thread, with a directory of its own."""

    def __init__(self, work: Callable[[Path], T]) -> None:
        self._directory = TemporaryDirectory(prefix="sockagent-", ignore_cleanup_errors=True)
        executor = ThreadPoolExecutor(1, work.__name__)
        self._outcome = executor.submit(work, Path(self._directory.name))
        executor.shutdown(wait=False)

    def result(self) -> T:
        """What came of it, once it is through; raises what it did."""
        return self._outcome.result()

    def end(self) -> None:
        """Wait for it, and remove its directory."""
        wait([self._outcome])
        self._directory.cleanup()
