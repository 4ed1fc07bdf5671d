"""What one run of the service leaves to the next, so that the stream goes on over a restart: the
newest state and the history. Pure, but for the memory it is kept in.

It is kept by systemd, between the runs of one unit (its descriptor store), and by nobody else. The
format is JSON, of lists only: reading it makes nothing but values of the model. A value that occurs
more than once, as a process with many sockets does, is written once and referred to by its index.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple

import orjson

from .. import __version__, model
from ..model import (
    CgroupInfo,
    Closed,
    Coverage,
    Delta,
    Holding,
    Key,
    Opened,
    Owner,
    Process,
    Snapshot,
    Socket,
    Updated,
)
from ..stream import history
from ..stream.history import Batch

FD_NAME = "state"  # Of the descriptor.
# More holdings take too long to be written down: systemd waits for the end. 3 µs each.
MAX_HOLDINGS = 100_000
# More is no state of ours: 100,000 holdings, and 10,000 changes, take 100 MiB at the most.
MAX_BYTES = 1 << 30


class SavedState(NamedTuple):
    """What is left. ``opened_at`` are the times of what opened under our eyes."""

    epoch: str
    seq: int
    snapshot: Snapshot
    opened_at: dict[Key, float]
    batches: list[tuple[float, tuple[Delta, ...], int]]  # Time, deltas and first number of each.

    def history(self) -> list[Batch]:
        """Return the batches of the history."""
        return [Batch(time, deltas, first) for time, deltas, first in self.batches]


def save(left: SavedState, machine: tuple[str, str | None]) -> int:
    """A descriptor of memory that holds it. Raises OSError."""
    descriptor = os.memfd_create("sockagent", os.MFD_CLOEXEC)
    with open(descriptor, "wb", closefd=False) as file:
        file.write(_mark(machine))
        file.write(_encode(left))
    return descriptor


def load(descriptor: int, machine: tuple[str, str | None]) -> SavedState | None:
    """What a run of the same program left on this machine (host, boot); None if that is not so."""
    try:
        if os.fstat(descriptor).st_size > MAX_BYTES:
            return None
        os.lseek(descriptor, 0, os.SEEK_SET)
        with open(descriptor, "rb", closefd=False) as file:
            # What another version wrote may be of types that are no more: it is not looked into.
            if file.read(len(mark := _mark(machine))) != mark:
                return None
            return _decode(file.read())
    # What is malformed: no JSON (ValueError), too few or too many of something, an index of
    # nothing, or a value of another type.
    except (OSError, ValueError, TypeError, LookupError, MemoryError, RecursionError):
        return None


def _mark(machine: tuple[str, str | None]) -> bytes:
    """What comes first: whose it is, and what its types were."""
    types = hashlib.blake2b()
    for source in (model.__file__, history.__file__, __file__):
        if source is not None:
            with open(source, "rb") as file:
                types.update(file.read())
    mark = f"sockagent {__version__} {types.hexdigest()} {machine!r}\n"
    return mark.encode(errors="backslashreplace")


# Writing.


class _Table:
    """Values that are written once each, and their indexes."""

    def __init__(self) -> None:
        self.rows: list[tuple[object, ...]] = []
        # By identity: equal ones are mostly the same, and hashing a value takes longer than to
        # write it twice. The values outlive the table.
        self._indexes: dict[int, int] = {}

    def index(self, value: tuple[object, ...] | None) -> int | None:
        """Return the index of a value, which is added if it is new; None of None."""
        if value is None:
            return None
        index = self._indexes.get(id(value))
        if index is None:
            index = self._indexes[id(value)] = len(self.rows)
            self.rows.append(tuple(value))
        return index


def _encode(left: SavedState) -> bytes:
    processes, owners, places, sockets = _Table(), _Table(), _Table(), _Table()
    holdings: list[tuple[object, ...]] = []
    indexes: dict[int, int] = {}

    def index_of(holding: Holding) -> int:
        index = indexes.get(id(holding))
        if index is None:
            index = indexes[id(holding)] = len(holdings)
            socket, process, fds, owner, peer_pid, place, omitted_fds = holding
            holdings.append(
                (
                    sockets.index(socket), processes.index(process), fds, owners.index(owner),
                    peer_pid, places.index(place), omitted_fds,
                )
            )  # fmt: skip
        return index

    def row_of(delta: Delta) -> tuple[object, ...]:
        match delta:
            case Opened(holding):
                return ("open", index_of(holding))
            case Updated(holding, before, seconds):
                return ("update", index_of(holding), index_of(before), seconds)
            case Closed(holding, reason, seconds):
                return ("close", index_of(holding), reason, seconds)
            case Coverage():
                return ("coverage", tuple(delta))

    snapshot = left.snapshot
    state = [
        snapshot.time,
        [(*key, index_of(holding)) for key, holding in snapshot.holdings.items()],
        list(snapshot.processes.items()),
        tuple(snapshot.coverage),
        None if snapshot.changed is None else list(snapshot.changed),
        [index_of(holding) for holding in snapshot.short_lived],
        [(*key, time) for key, time in left.opened_at.items()],
    ]
    told = [
        (time, [row_of(delta) for delta in deltas], first) for time, deltas, first in left.batches
    ]
    tables = [processes.rows, owners.rows, places.rows, sockets.rows, holdings]
    return orjson.dumps([left.epoch, left.seq, tables, state, told])


# Reading. Each function raises ValueError, TypeError or LookupError of what is malformed.

_TEXT, _NUMBER, _TIME = frozenset({str}), frozenset({int}), frozenset({float, int})
_LIST, _NONE = frozenset({list}), frozenset({type(None)})
_TEXT_OR_NONE, _NUMBER_OR_NONE = _TEXT | _NONE, _NUMBER | _NONE

# The types of each field, as JSON has them.
_PROCESS = (
    _NUMBER, _NUMBER, _TEXT, _NUMBER, _TIME, _NUMBER_OR_NONE, *[_TEXT_OR_NONE] * 4, _LIST | _NONE
)  # fmt: skip
_OWNER = (_NUMBER, _TEXT_OR_NONE)
_PLACE = (_TEXT_OR_NONE,) * 3
_SOCKET = (
    _NUMBER, *[_TEXT_OR_NONE] * 5, _NUMBER_OR_NONE, _TEXT_OR_NONE, _NUMBER_OR_NONE,
    *[_TEXT_OR_NONE] * 2, *[_NUMBER_OR_NONE] * 4, _TEXT, *[_NUMBER_OR_NONE] * 2, _TEXT_OR_NONE,
    *[_NUMBER_OR_NONE] * 2,
)  # fmt: skip
_HOLDING = (_NUMBER, _NUMBER_OR_NONE, _LIST, *[_NUMBER_OR_NONE] * 3, _NUMBER)
_COVERAGE = (_NUMBER, _NUMBER, _NUMBER, _LIST)
_KEY = (_NUMBER_OR_NONE, _NUMBER)
_REASONS = frozenset({"closed", "exited", "attributed"})
# Seconds since the epoch, until the year 9999: others cannot be written as a date.
_MAX_SECONDS = 253_402_300_799.0


def _decode(content: bytes) -> SavedState:
    epoch, seq, tables, state, told = orjson.loads(content)
    holdings = _holdings(*tables)
    if type(epoch) is not str or type(seq) is not int:
        raise TypeError
    time, held, processes, coverage, changed, short_lived, opened_at = state
    snapshot = Snapshot(
        _time(time),
        {(pid, inode): holdings[at] for pid, inode, at in _rows(held, (*_KEY, _NUMBER))},
        dict(_rows(processes, (_NUMBER, _NUMBER))),
        _coverage(coverage),
        None if changed is None else frozenset(map(_key, _rows(changed, _KEY))),
        tuple(holdings[at] for at in _values(short_lived, _NUMBER)),
    )
    opened = {(pid, inode): at for pid, inode, at in _rows(opened_at, (*_KEY, _TIME))}
    if opened:
        _time(min(opened.values()))
        _time(max(opened.values()))
    batches: list[tuple[float, tuple[Delta, ...], int]] = []
    for batch_time, deltas, first in _rows(told, (_TIME, _LIST, _NUMBER)):
        if not deltas or (batches and first != batches[-1][2] + len(batches[-1][1])):
            raise ValueError
        batches.append((_time(batch_time), tuple(_delta(row, holdings) for row in deltas), first))
    if batches and batches[-1][2] + len(batches[-1][1]) != seq + 1:
        raise ValueError
    return SavedState(epoch, seq, snapshot, opened, batches)


def _holdings(
    process_rows: object, owner_rows: object, place_rows: object, socket_rows: object, rows: object
) -> list[Holding]:
    processes = [
        Process._make([*row, None if cmdline is None else _values(cmdline, _TEXT)])
        for *row, cmdline in _rows(process_rows, _PROCESS)
    ]
    for process in processes:
        _time(process.start_time)
    owners = list(map(Owner._make, _rows(owner_rows, _OWNER)))
    places = list(map(CgroupInfo._make, _rows(place_rows, _PLACE)))
    sockets = list(map(Socket._make, _rows(socket_rows, _SOCKET)))
    found = _rows(rows, _HOLDING)
    _values(list(chain.from_iterable(row[2] for row in found)), _NUMBER)
    return [
        Holding(
            sockets[socket],
            None if process is None else processes[process],
            tuple(fds),
            None if owner is None else owners[owner],
            peer_pid,
            None if place is None else places[place],
            omitted_fds,
        )
        for socket, process, fds, owner, peer_pid, place, omitted_fds in found
    ]


def _delta(row: list[Any], holdings: list[Holding]) -> Delta:
    match row:
        case ["open", int(at)]:
            return Opened(holdings[at])
        case ["update", int(at), int(before), seconds]:
            return Updated(holdings[at], holdings[before], _duration(seconds))
        case ["close", int(at), str(reason), seconds] if reason in _REASONS:
            return Closed(holdings[at], reason, _duration(seconds))
        case ["coverage", coverage]:
            return _coverage(coverage)
    raise ValueError


def _coverage(row: object) -> Coverage:
    ((processes, unreadable, netns, missing),) = _rows([row], _COVERAGE)
    return Coverage(processes, unreadable, netns, _values(missing, _TEXT))


def _key(row: list[Any]) -> Key:
    pid, inode = row
    return pid, inode


def _time(value: float) -> float:
    if type(value) not in _TIME or not 0 <= value <= _MAX_SECONDS:
        raise ValueError
    return value


def _duration(value: float | None) -> float | None:
    if value is not None and (type(value) not in _TIME or abs(value) > _MAX_SECONDS):
        raise ValueError
    return value


def _rows(rows: object, types: Sequence[frozenset[type]]) -> list[list[Any]]:
    """Return rows, whose fields must be of these types. Columns are checked at once, as there are
    many rows."""
    found: list[Any] = list(_values(rows, _LIST))
    if set(map(len, found)) - {len(types)}:
        raise TypeError
    for column, allowed in zip(zip(*found, strict=True), types, strict=False):
        if not set(map(type, column)) <= allowed:
            raise TypeError
    return found


def _values(values: object, allowed: frozenset[type]) -> tuple[Any, ...]:
    """Return a list as a tuple; its values must be of these types."""
    if not isinstance(values, list) or not set(map(type, values)) <= allowed:
        raise TypeError
    return tuple(values)
