"""Work of a minute or more, mostly waiting, that runs while other tests run."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Generic, TypeVar

T = TypeVar("T")


class Background(Generic[T]):
    """Work in a thread, with its own directory."""

    def __init__(self, work: Callable[[Path], T]) -> None:
        self._directory = TemporaryDirectory(prefix="sockagent-", ignore_cleanup_errors=True)
        executor = ThreadPoolExecutor(1, work.__name__)
        self._outcome = executor.submit(work, Path(self._directory.name))
        executor.shutdown(wait=False)

    def result(self) -> T:
        """Wait for the work; return its result, or raise its exception."""
        return self._outcome.result()

    def end(self) -> None:
        """Wait for the work, and remove its directory."""
        wait([self._outcome])
        self._directory.cleanup()
