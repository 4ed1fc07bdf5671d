"""What one run of the service leaves to the next, so that the stream goes on over a restart: the
newest state and the history. Pure, but for the memory it is kept in.

It is kept by systemd, between the runs of one unit (its descriptor store), and by nobody else.
"""

from __future__ import annotations

import hashlib
import os
import pickle
from typing import NamedTuple

from . import __version__, history, model
from .history import Batch
from .model import Delta, Key, Snapshot

NAME = "state"  # Of the descriptor.
# More holdings take too long to be written down: systemd waits for the end. 5 µs each.
MOST_HOLDINGS = 100_000
# What pickle raises of what is none of its own.
_NONE = (
    OSError, pickle.UnpicklingError, EOFError, TypeError, AttributeError, ImportError, ValueError,
    LookupError, MemoryError, OverflowError,
)  # fmt: skip


class _Unpickler(pickle.Unpickler):
    """Makes nothing but values of the model."""

    def find_class(self, module: str, name: str) -> object:
        """Raises UnpicklingError."""
        if module != model.__name__:
            raise pickle.UnpicklingError(f"{module}.{name}")
        return super().find_class(module, name)


class Left(NamedTuple):
    """What is left. ``opened_at`` are the times of what opened under our eyes."""

    epoch: str
    seq: int
    snapshot: Snapshot
    opened_at: dict[Key, float]
    batches: list[tuple[float, tuple[Delta, ...], int]]  # Time, deltas and first number of each.


def pack(left: Left, machine: tuple[str, str | None]) -> int:
    """A descriptor of memory that holds it. Raises OSError."""
    descriptor = os.memfd_create("sockagent", os.MFD_CLOEXEC)
    with open(descriptor, "wb", closefd=False) as file:
        file.write(_mark(machine))
        pickle.dump(tuple(left), file, pickle.HIGHEST_PROTOCOL)
    return descriptor


def unpack(descriptor: int, machine: tuple[str, str | None]) -> Left | None:
    """What a run of the same program left on this machine (host, boot); None if that is not so."""
    try:
        os.lseek(descriptor, 0, os.SEEK_SET)
        with open(descriptor, "rb", closefd=False) as file:
            # What another version wrote may be of types that are no more: it is not looked into.
            if file.read(len(mark := _mark(machine))) != mark:
                return None
            return Left(*_Unpickler(file).load())
    except _NONE:
        return None


def _mark(machine: tuple[str, str | None]) -> bytes:
    """What comes first: whose it is, and what its types were."""
    types = hashlib.blake2b()
    for module in (model, history):
        if module.__file__ is not None:
            with open(module.__file__, "rb") as source:
                types.update(source.read())
    mark = f"sockagent {__version__} {types.hexdigest()} {machine!r}\n"
    return mark.encode(errors="backslashreplace")


def batches(left: Left) -> list[Batch]:
    """The history that is left."""
    return [Batch(time, deltas, first) for time, deltas, first in left.batches]
