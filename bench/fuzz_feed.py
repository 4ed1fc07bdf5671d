"""Attack a WebSocket feed with mutated requests and frames.

The server and a correct subscriber run in this process; another process sends mutated requests and
frames, and resets some connections. Meanwhile sockets open and close. Nothing may be raised or
logged, the event loop must not stall, and the subscriber must have the correct state at the end.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import random
import socket
import struct
import sys
import time
from contextlib import suppress
from typing import NamedTuple

from websockets.asyncio.client import ClientConnection, connect

from agent.address import parse_address
from agent.model import Coverage as Sight
from agent.model import Holding, HoldingKey, Process, Snapshot, Socket
from agent.publish.websocket.listen import open_listeners
from agent.publish.websocket.registry import Limits, Registry
from agent.publish.websocket.server import Rules, Server
from agent.stream.diff import DeltaTracker
from agent.stream.encoder import AgentInfo
from agent.stream.feed import Feed
from agent.stream.filters import FILTERS

# CPU time of the event loop between two of its turns; wall-clock time varies on a busy machine.
MAX_STALL_SECONDS = 0.1
_POLL_SECONDS = 0.02
_TURN_SECONDS = 0.001
_TIMEOUT_SECONDS = 30.0
_MAX_FRAMES = 20
_LAST = 999  # The inode of the socket that opens last.

_PING, _BURST = b"\x89\x80\0\0\0\0", 5000
_KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
_REQUEST = (
    b"GET /events%s HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: " + _KEY + b"\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
_VALUES = (
    "*",
    "[" * 255,
    "[" * 7000,
    "*a" * 120,
    "10.0.0.0/8",
    "::/0",
    "1-65535",
    "tcp",
    "LISTEN",
    "x",
    "%00",
)
_HEADERS = (
    b"Sec-WebSocket-Protocol: " + b"a," * 3000, b"Connection: " + b"x, " * 2000, b"Origin: null",
    b"Sec-WebSocket-Extensions: permessage-deflate", b"Transfer-Encoding: chunked",
    b"Authorization: Bearer x", b"Content-Length: 10", b"Host: x", b"\xff\xfe: \x00", b": ",
)  # fmt: skip


class Outcome(NamedTuple):
    """The result of an attack."""

    sent: int
    polls: int
    stall: float  # The longest, in seconds of CPU time.
    wrong: list[str]  # Errors raised or logged, and wrong states of the subscriber.


class Attacker:
    """Sends mutated requests and frames to a port, with blocking sockets."""

    def __init__(self, port: int, seed: int) -> None:
        self._port = port
        self._random = random.Random(seed)
        self.sent = 0

    def attack(self, count: int) -> None:
        """Send this many requests and frames."""
        while self.sent < count:
            with (
                suppress(OSError),
                socket.create_connection(("127.0.0.1", self._port), _TIMEOUT_SECONDS) as connection,
            ):
                self._attack_one(connection)

    def _attack_one(self, connection: socket.socket) -> None:
        choice = self._random
        self.sent += 1
        connection.settimeout(0.05)
        whole = choice.random() < 0.6
        connection.sendall(self._request() if not whole else _REQUEST % self._query())
        if choice.random() < 0.7:
            with suppress(TimeoutError):
                connection.recv(4096)
        if whole:
            for _ in range(choice.randrange(_MAX_FRAMES)):
                self.sent += 1
                connection.sendall(self._frame())
            if choice.random() < 0.1:
                connection.sendall(_PING * _BURST)
        if choice.random() < 0.3:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def _query(self) -> bytes:
        choice = self._random
        names = [*FILTERS, "proto!", "comm!", "epoch", "since", "snapshot", "colour"]
        pairs = [
            f"{choice.choice(names)}={choice.choice(_VALUES)}" for _ in range(choice.randrange(4))
        ]
        return ("?" + "&".join(pairs)).encode() if pairs else b""

    def _request(self) -> bytes:
        choice = self._random
        lines = (_REQUEST % self._query()).split(b"\r\n")
        for _ in range(choice.randrange(3)):
            lines.insert(choice.randrange(1, len(lines)), choice.choice(_HEADERS))
        return self._mutated(b"\r\n".join(lines))

    def _frame(self) -> bytes:
        choice = self._random
        length = choice.choice((0, 1, 5, 125, 300, 5000))
        size = bytes((0x80 | length,)) if length < 126 else b"\xfe" + length.to_bytes(2, "big")
        frame = bytes((choice.choice((0x81, 0x82, 0x89, 0x8A, 0x88, 0x01, 0x00, 0x80)),)) + size
        frame += b"\0\0\0\0" + choice.randbytes(length)
        return self._mutated(frame) if choice.random() < 0.5 else frame

    def _mutated(self, data: bytes) -> bytes:
        choice = self._random
        changed = bytearray(data)
        for _ in range(choice.randrange(4)):
            at = choice.randrange(len(changed) + 1)
            match choice.randrange(4):
                case 0:
                    changed[at : at + 1] = choice.randbytes(1)
                case 1:
                    del changed[at : at + choice.randrange(20)]
                case 2:
                    changed[at:at] = changed[: choice.randrange(50)]
                case _:
                    changed[at:at] = choice.randbytes(choice.randrange(8))
        return bytes(changed)


class _Log(logging.Handler):
    def __init__(self, wrong: list[str]) -> None:
        super().__init__()
        self._wrong = wrong

    def emit(self, record: logging.LogRecord) -> None:
        self._wrong.append(f"{record.name}: {record.getMessage()}")


class Target:
    """A server with changing sockets, and a subscriber that follows their state."""

    def __init__(self) -> None:
        self.wrong: list[str] = []
        self.polls = 0
        self.stall = 0.0
        self._feed = Feed(AgentInfo("host", "boot", "epoch", 1.0))
        self._tracker = DeltaTracker()
        self._random = random.Random(1)

    async def run(self, seed: int, count: int) -> Outcome:
        """Run the attack in another process; return its result."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _loop, context: self.wrong.append(str(context)))
        handler = _Log(self.wrong)
        logging.getLogger().addHandler(handler)
        listeners = open_listeners(parse_address("127.0.0.1:0"), 0o600)
        server = Server(self._feed, listeners, Rules(), Registry(Limits(1000, 250, 200)), {})
        port = listeners[0].socket.getsockname()[1]
        self._poll()
        tasks = [asyncio.create_task(work) for work in (server.run(), self._watch())]
        try:
            async with connect(f"ws://127.0.0.1:{port}/events", max_size=1 << 20) as good:
                folding = asyncio.create_task(self._fold(good))
                attack = await asyncio.create_subprocess_exec(
                    sys.executable, "-m", "bench.fuzz_feed", "--attack", str(port),
                    "--seed", str(seed), "--count", str(count), stdout=asyncio.subprocess.PIPE,
                )  # fmt: skip
                polling = asyncio.create_task(self._poll_repeatedly())
                sent, _ = await attack.communicate()
                polling.cancel()
                self._poll(last=True)
                async with asyncio.timeout(_TIMEOUT_SECONDS):
                    state = await folding
        finally:
            for task in tasks:
                task.cancel()
            await server.stop()
            logging.getLogger().removeHandler(handler)
        assert self._feed.snapshot
        if state != set(self._feed.snapshot.holdings):
            self.wrong.append("the state of the subscriber is wrong")
        return Outcome(int(sent), self.polls, self.stall, self.wrong)

    def _poll(self, *, last: bool = False) -> None:
        inodes = {self._random.randrange(1, 200) for _ in range(100)}
        if last:
            inodes.add(_LAST)
        by = Process(7, 100, "app", 1, 1.7e9)
        held: dict[HoldingKey, Holding] = {
            (7, inode): Holding(
                Socket(inode, "tcp", "inet", None, "LISTEN", "127.0.0.1", inode), by, (3,), None
            )
            for inode in sorted(inodes)
        }
        snapshot = Snapshot(time.time(), held, {7: 100}, Sight(1, 0, 1))
        self._feed.publish(snapshot, self._tracker.advance(snapshot))
        self.polls += 1

    async def _poll_repeatedly(self) -> None:
        while True:
            await asyncio.sleep(_POLL_SECONDS)
            self._poll()

    async def _watch(self) -> None:
        """Measure the longest time for which the event loop runs one callback."""
        while True:
            before = time.thread_time()
            await asyncio.sleep(_TURN_SECONDS)
            self.stall = max(self.stall, time.thread_time() - before)

    async def _fold(self, connection: ClientConnection) -> set[HoldingKey]:
        """Return the keys of the open sockets when the last one is among them."""
        state: set[HoldingKey] = set()
        while (7, _LAST) not in state:
            for line in (await connection.recv()).splitlines():
                record = json.loads(line)
                key = (record.get("pid"), record.get("inode"))
                match record["event"]:
                    case "hello" | "lost":
                        state = set()
                    case "snapshot" | "open":
                        if key in state:
                            self.wrong.append(f"{key} is opened twice")
                        state.add(key)
                    case "close":
                        if key not in state:
                            self.wrong.append(f"{key} is closed without being open")
                        state.discard(key)
        return state


def main() -> int:
    """Attack and print the result; return 1 if anything was wrong."""
    parser = argparse.ArgumentParser(prog="python -m bench fuzz_feed", description=__doc__)
    parser.add_argument("--count", type=int, default=100_000, help="requests and frames")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--attack", type=int, metavar="PORT", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.attack is not None:
        attacker = Attacker(options.attack, options.seed)
        attacker.attack(options.count)
        print(attacker.sent)
        return 0
    # The log of rejected clients is not of interest here.
    sys.stderr.flush()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    outcome = asyncio.run(Target().run(options.seed, options.count))
    print(
        f"{outcome.sent} requests and frames, {outcome.polls} polls; longest stall "
        f"{outcome.stall * 1000:.1f} ms of CPU time, {len(outcome.wrong)} errors"
    )
    for wrong in outcome.wrong[:10]:
        print(wrong)
    return int(bool(outcome.wrong) or outcome.stall > MAX_STALL_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
