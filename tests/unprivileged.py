"""Runs a piece of a test as a user who may not read others' processes."""

from __future__ import annotations

import os
import pickle
import warnings
from collections.abc import Callable
from typing import TypeVar

import agent.kernel.procfs.kcmp  # noqa: F401 (what is imported later must be readable to that user)

NOBODY = 65534
T = TypeVar("T")


def as_nobody(do: Callable[[], T]) -> T:
    """What ``do`` returns. Without privilege to drop it runs as it is."""
    if os.geteuid() != 0:
        return do()
    reading, writing = os.pipe()
    with warnings.catch_warnings():  # Of threads, whose locks the child does not need.
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
    told = pickle.loads(data)
    if isinstance(told, Exception):
        raise told
    return told  # type: ignore[no-any-return]
