"""A feed of synthetic sockets: ``python -m bench.page_feed PORT ROWS RATE [HOST]``.

It serves ROWS connections at 127.0.0.1:PORT, with the page, and changes RATE of them a second, in
one burst a second: a third opens, a third closes, a third goes on to CLOSE_WAIT. The records name
HOST, by default this machine. A line on standard input starts the changes; the end of standard
input ends it.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import socket
import sys
import time
from collections.abc import Iterator

from agent.address import parse_address
from agent.config import Config, Network
from agent.model import Coverage, Holding, HoldingKey, Owner, Process, Snapshot, Socket
from agent.serving import ConfiguredServer
from agent.stream.diff import DeltaTracker
from agent.stream.encoder import AgentInfo
from agent.stream.feed import HISTORY_BURST_SECONDS, Feed

_NAMES = ("nginx", "gunicorn", "worker", "postgres", "redis-server", "java", "node", "php")
_PROCESSES = 200
_NETNS = 4026531840
_STATES = (*["ESTABLISHED"] * 17, "LISTEN", "TIME_WAIT", "CLOSE_WAIT")
_SECOND = 1.0


class Sockets:
    """The synthetic sockets, of processes of a few programs."""

    def __init__(self, rows: int, seed: int = 1, processes: int = _PROCESSES) -> None:
        self._random = random.Random(seed)
        now = time.time()
        self._processes = [
            Process(
                1000 + number, number, _NAMES[number % len(_NAMES)], 1, now - 3600.0,
                exe=f"/usr/bin/{_NAMES[number % len(_NAMES)]}",
                cgroup=f"/system.slice/{_NAMES[number % len(_NAMES)]}.service",
                unit=f"{_NAMES[number % len(_NAMES)]}.service",
            )
            for number in range(processes)
        ]  # fmt: skip
        self._inodes = itertools.count(10_000 * seed)
        self.held: dict[HoldingKey, Holding] = {}
        self._open(rows)

    def change(self, count: int) -> None:
        """Make this many changes."""
        chosen = self._random.sample(list(self.held), min(2 * count // 3, len(self.held)))
        closed, updated = chosen[::2], chosen[1::2]
        for key in closed:
            del self.held[key]
        for key in updated:
            was = self.held[key]
            state = "ESTABLISHED" if was.socket.state == "CLOSE_WAIT" else "CLOSE_WAIT"
            self.held[key] = was._replace(socket=was.socket._replace(state=state))
        self._open(count - len(chosen))

    def snapshot(self) -> Snapshot:
        """Return the snapshot with all of them."""
        processes = {one.pid: one.start_ticks for one in self._processes}
        coverage = Coverage(len(processes), 1, 1, ("1 process could not be read",))
        return Snapshot(time.time(), dict(self.held), processes, coverage)

    def _open(self, count: int) -> None:
        for holding in itertools.islice(self._new(), count):
            assert holding.process
            self.held[holding.process.pid, holding.socket.inode] = holding

    def _new(self) -> Iterator[Holding]:
        choose = self._random.choice
        while True:
            process = choose(self._processes)
            state = choose(_STATES)
            is_listener = state == "LISTEN"
            port = self._random.randrange(1024, 65536)
            remote = None if is_listener else f"10.{port % 7}.{port % 251}.{port % 13}"
            yield Holding(
                Socket(
                    next(self._inodes), "tcp", "inet", None, state, "10.0.0.4",
                    443 if port % 2 else port, remote, None if is_listener else port,
                    direction="listen" if is_listener else choose(("inbound", "outbound")),
                    recv_q=0, send_q=0, uid=33, netns=_NETNS, source="netlink",
                ),
                process, (port % 1000,), Owner(33, "www-data"),
            )  # fmt: skip


async def serve(port: int, rows: int, rate: int, host: str) -> None:
    """Serve until standard input ends."""
    feed = Feed(
        AgentInfo(host, None, os.urandom(8).hex(), _SECOND),
        history_burst=HISTORY_BURST_SECONDS,
    )
    network = Network(listen=(parse_address(f"127.0.0.1:{port}"),))
    server = ConfiguredServer(Config(network=network), feed, {}).server
    sockets, tracker = Sockets(rows), DeltaTracker()
    first = sockets.snapshot()
    feed.publish(first, tracker.advance(first))
    running = asyncio.create_task(server.run())
    print("ready", flush=True)
    commands = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(commands), sys.stdin
    )
    changing = None
    while await commands.readline():
        if changing is None:
            changing = asyncio.create_task(change_forever(feed, sockets, tracker, rate))
    await server.stop()
    running.cancel()


async def change_forever(feed: Feed, sockets: Sockets, tracker: DeltaTracker, rate: int) -> None:
    """Publish changes every second."""
    clock = asyncio.get_running_loop().time
    due = clock()
    while True:
        due += _SECOND
        await asyncio.sleep(max(0.0, due - clock()))
        sockets.change(rate)
        snapshot = sockets.snapshot()
        feed.publish(snapshot, tracker.advance(snapshot))


if __name__ == "__main__":
    listen_port, row_count, changes = map(int, sys.argv[1:4])
    name = sys.argv[4] if len(sys.argv) > 4 else socket.gethostname()
    asyncio.run(serve(listen_port, row_count, changes, name))
