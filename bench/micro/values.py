"""The values of the model: how they are made, read, compared and kept."""

from __future__ import annotations

import os
import pickle
from dataclasses import make_dataclass
from operator import attrgetter

from agent.bounded import drop_oldest
from agent.model import Coverage, Holding, HoldingKey, Owner, Process, Snapshot, Socket
from agent.service.handover import SavedState, save

from .timing import Pair

COUNT = 1000


def sockets(count: int = COUNT) -> list[Socket]:
    """Return connected TCP sockets, as the tables of a server have them."""
    plain = Socket(0, "tcp", "inet", None, "ESTABLISHED")
    return [
        plain._replace(
            inode=100_000 + number,
            local_addr="127.0.0.1",
            local_port=8080,
            remote_addr="127.0.0.1",
            remote_port=1024 + number,
            direction="inbound",
            recv_q=0,
            send_q=0,
            uid=0,
            netns=4_026_531_833,
        )
        for number in range(count)
    ]


def holdings(count: int = COUNT, *, fds: int = 1) -> list[Holding]:
    """Return sockets held by one process, each through this many descriptors."""
    process = Process(7, 100, "app", ppid=1, start_time=1_700_000_000.0, exe="/usr/bin/app")
    owner = Owner(0, "root")
    return [
        Holding(socket, process, tuple(range(3 + number, 3 + number + fds)), owner)
        for number, socket in enumerate(sockets(count))
    ]


def named_tuples() -> Pair:
    """Make and compare named tuples; frozen and slotted dataclasses.

    Socket has 21 fields. Both are made from a tuple of values, and compared with an equal one.
    """
    frozen = make_dataclass("frozen", Socket._fields, frozen=True, slots=True)
    rows = [tuple(socket) for socket in sockets()]
    make = Socket._make

    def chosen() -> bool:
        return all(make(row) == make(row) for row in rows)

    def instead() -> bool:
        return all(frozen(*row) == frozen(*row) for row in rows)

    return Pair(chosen, instead, 2 * COUNT)


def made_as_tuples() -> Pair:
    """tuple.__new__(Socket, values); Socket(*values)."""
    rows = [tuple(socket) for socket in sockets()]
    return Pair(
        lambda: [tuple.__new__(Socket, row) for row in rows],
        lambda: [Socket(*row) for row in rows],  # type: ignore[arg-type]
        COUNT,
    )


def attribute_getters() -> Pair:
    """Two fields by attrgetter; by numeric index."""
    some = sockets()
    ports = attrgetter("local_port", "remote_port")
    return Pair(
        lambda: [ports(socket) for socket in some],
        lambda: [(socket[6], socket[8]) for socket in some],
        COUNT,
    )


def identity_index() -> Pair:
    """Index values by identity; by value."""
    some = holdings()

    def by_identity() -> dict[int, int]:
        return {id(holding): number for number, holding in enumerate(some)}

    def by_value() -> dict[Holding, int]:
        return {holding: number for number, holding in enumerate(some)}

    return Pair(by_identity, by_value, COUNT)


def saved_state() -> Pair:
    """Write the state of a service as JSON tables; with pickle. Per holding."""
    held: dict[HoldingKey, Holding] = {
        (7, holding.socket.inode): holding for holding in holdings(10 * COUNT)
    }
    state = SavedState("epoch", 0, Snapshot(1.7e9, held, {7: 100}, Coverage(1, 0, 1)), {}, [])
    return Pair(
        lambda: os.close(save(state, ("host", "boot"))), lambda: pickle.dumps(state), len(held)
    )


def dropped_shares() -> Pair:
    """Drop the oldest items of a full dict in shares; one at a time. Per item added."""
    size, added = 20_000, 20_000

    def in_shares() -> None:
        mapping = dict.fromkeys(range(size))
        for number in range(added):
            mapping[-number - 1] = None
            drop_oldest(mapping, size)

    def one_by_one() -> None:
        mapping = dict.fromkeys(range(size))
        for number in range(added):
            mapping[-number - 1] = None
            del mapping[next(iter(mapping))]

    return Pair(in_shares, one_by_one, added)


BENCHMARKS = (
    named_tuples,
    made_as_tuples,
    attribute_getters,
    identity_index,
    saved_state,
    dropped_shares,
)
