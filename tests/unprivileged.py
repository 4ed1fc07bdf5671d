"""Run a function as a user that may not read the processes of others."""

from __future__ import annotations

import ctypes  # noqa: F401 (imports in the child must be readable for that user)
import os
import pickle
import warnings
from collections.abc import Callable
from typing import TypeVar

NOBODY = 65534
T = TypeVar("T")


def as_nobody(do: Callable[[], T]) -> T:
    """Call ``do`` as nobody and return its result; without privilege, as the current user."""
    if os.geteuid() != 0:
        return do()
    reading, writing = os.pipe()
    with warnings.catch_warnings():  # The child does not use locks of other threads.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            try:
                outcome: object = do()
            except Exception as error:  # noqa: BLE001 (raised again below)
                outcome = error
            os.write(writing, pickle.dumps(outcome))
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, "rb") as file:
        data = file.read()
    os.waitpid(child, 0)
    result = pickle.loads(data)
    if isinstance(result, Exception):
        raise result
    return result  # type: ignore[no-any-return]
