"""A host that tests make records of."""

from __future__ import annotations

from typing import Any

from agent.model import Closed, Coverage, Holding, Opened, Owner, Process, Updated
from agent.publish.top.watch import Watch
from agent.stream.decoder import Alive, Began, Decoded, Dropped, Present, SnapshotEnd, Value

from ...make import FULL_COVERAGE, process, tcp

T = 1_700_000_000.0
NGINX = process(812, 812, comm="nginx", unit="web.service")
GUNICORN = process(1201, 1201, comm="gunicorn", unit="shop.service")
CURL = process(2201, 2201, comm="curl", unit="session-3.scope")


def connection(
    inode: int, by: Process | None = NGINX, state: str = "ESTABLISHED", **more: Any
) -> Holding:
    """Return a holding of a connection; by default the peer called."""
    fields: dict[str, Any] = {
        "local_addr": "10.0.0.4",
        "local_port": 443,
        "remote_addr": "198.51.100.7",
        "remote_port": 1024 + inode % 60_000,
        "direction": "inbound",
        **more,
    }
    fds = (3,) if by is not None and inode else ()
    return Holding(tcp(inode, state, **fields), by, fds, Owner(33, "www-data"))


def listener(
    inode: int, by: Process | None = NGINX, recv_q: int = 0, backlog: int = 511, port: int = 443
) -> Holding:
    """Return the holding of a listening socket on all addresses."""
    socket = tcp(
        inode, "LISTEN", local_addr="0.0.0.0", local_port=port, direction="listen",
        recv_q=recv_q, backlog=backlog,
    )  # fmt: skip
    return Holding(socket, by, (3,), Owner(0, "root"))


def in_state(holding: Holding, state: str) -> Holding:
    return holding._replace(socket=holding.socket._replace(state=state))


class Host:
    """Applies records to a watch, each poll a second after the one before. ``now`` is its time."""

    def __init__(
        self, watch: Watch, *holdings: Holding, name: str = "web1",
        coverage: Coverage = FULL_COVERAGE, now: float = T,
    ) -> None:  # fmt: skip
        self.watch = watch
        self.name = name
        self.now = now
        self.seq = 0
        self.send(Began(coverage, "epoch", False, "1", None, 1.0))
        self.snapshot(*holdings)
        watch.header(T)  # The snapshot is counted when it is looked at.

    def send(self, value: Value, time: float | None = None) -> None:
        self.watch.apply(Decoded(self.name, self.seq, self.now if time is None else time, value))

    def snapshot(self, *holdings: Holding) -> None:
        for one in holdings:
            self.send(Present(one))
        self.send(SnapshotEnd(len(holdings)))

    def change(self, value: Opened | Updated | Closed | Coverage) -> None:
        self.seq += 1
        self.send(value)

    def open(self, *holdings: Holding) -> None:
        for one in holdings:
            self.change(Opened(one))

    def close(
        self, *holdings: Holding, seconds: float | None = 10.0, reason: str = "closed"
    ) -> None:
        for one in holdings:
            self.change(Closed(one, reason, seconds))

    def update(self, before: Holding, after: Holding) -> None:
        self.change(Updated(after, before))

    def lose(self, first: int, last: int | None) -> None:
        self.send(Dropped(first, last))

    def poll(self, seconds: float = 1.0) -> float:
        """Let a poll pass; return its time."""
        self.now += seconds
        return self.now

    def beat(self) -> None:
        self.send(Alive(None))
