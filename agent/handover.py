"""What one run of the service leaves to the next, so that the stream goes on over a restart: the
newest state and the history. Pure, but for the memory it is kept in.

It is kept by systemd, between the runs of one unit (its descriptor store), and by nobody else.
"""

from __future__ import annotations

import os
import pickle
from typing import NamedTuple

from . import __version__
from .history import Batch
from .model import Delta, Key, Snapshot

NAME = "state"  # Of the descriptor.


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
    """What a run of the same version left on this machine (host, boot); None if that is not so."""
    try:
        os.lseek(descriptor, 0, os.SEEK_SET)
        with open(descriptor, "rb", closefd=False) as file:
            # What another version wrote may be of types that are no more: it is not looked into.
            if file.read(len(mark := _mark(machine))) != mark:
                return None
            return Left(*pickle.load(file))  # noqa: S301 (our own)
    except (OSError, pickle.UnpicklingError, EOFError, TypeError):
        return None


def _mark(machine: tuple[str, str | None]) -> bytes:
    """What comes first: whose it is."""
    return f"sockagent {__version__} {machine!r}\n".encode(errors="backslashreplace")


def batches(left: Left) -> list[Batch]:
    """The history that is left."""
    return [Batch(time, deltas, first) for time, deltas, first in left.batches]
