"""Publishes the stream of one agent at a NATS broker.

Nothing is kept on disk: the broker holds the position, the agent holds the changes that were not
published yet. While a message is not acknowledged, no further one is taken from the agent.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress

from ...log import log
from ...stream.feed import Feed
from ...stream.filters import Filter
from ...stream.fleet import subject
from ...stream.publication import Positions
from .broker import Access, BrokerTrouble, Connection, WrongSequence, connect
from .position import Message, Part, Position, RecordTooLarge, Verdict, fit, host_of_chunk

# Time between attempts, doubled after each one; the longest where only an administrator can help.
# Where a stream took messages before, its servers may be electing a leader.
MIN_PAUSE_SECONDS, MAX_PAUSE_SECONDS, LASTING_PAUSE_SECONDS = 0.1, 5.0, 30.0
# Agents of one host name take turns: each waits so long after a message of the other one, from the
# second time within FOREIGN_SECONDS on. Once may be the last message of an earlier run.
FOREIGN_PAUSE_SECONDS, FOREIGN_SECONDS = 60.0, 600.0
# An agent cuts off a subscriber that reads nothing for 30 seconds; the publisher leaves before.
MAX_HELD_SECONDS = 20.0
# How long the end waits for the acknowledgement of the message under way.
STOP_SECONDS = 0.5

Connect = Callable[[Access, str, str], Awaitable[Connection]]


class PositionMoved(Exception):
    """The agent is to be connected to again, and to resume at ``HostPublisher.resume``."""


class HostPublisher:
    """Publishes the records of one host, over all connections to its agent and to the broker."""

    def __init__(
        self,
        access: Access,
        *,
        encoding: str = "deflate",
        max_held: float = MAX_HELD_SECONDS,
        connect: Connect = connect,
    ) -> None:
        """``encoding`` is that of the messages. ``max_held``: how long the agent may be kept
        waiting, in seconds."""
        self._access = access
        self._encoding = encoding
        self._max_held = max_held
        self._connect = connect
        self._run = os.urandom(4).hex()
        self._host: str | None = None
        self._subject = ""
        self._position = Position(self._run)
        self._connection: Connection | None = None
        self._trouble = Trouble(access.url)
        self._pauses = 0  # Since the last message that was stored.
        self._has_stored = False
        self._foreign_at: float | None = None  # When the message of another publisher was seen.
        self._has_cut = False
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def resume(self) -> Positions:
        """Where the agent is to resume."""
        return self._position.resume

    async def receive(self, chunk: bytes) -> None:
        """Publish a chunk of records; return once it is stored. Raises PositionMoved,
        InvalidStream, ConfigFailure and RuntimeFailure."""
        if b'"event":"hello"' in chunk[:100]:
            await self._meet(host_of_chunk(chunk))
        self._idle.clear()
        try:
            for part in self._position.split(chunk):
                await self._publish(part)
        finally:
            self._idle.set()

    async def stop(self) -> None:
        """Wait for the acknowledgement of what is under way, and disconnect."""
        with suppress(TimeoutError):
            async with asyncio.timeout(STOP_SECONDS):
                await self._idle.wait()
        await self._disconnect()

    async def _meet(self, host: str) -> None:
        """Find the position of a host, when its stream begins for the first time."""
        if host == self._host:
            return
        await self._disconnect()  # Answers arrive at a subject of the host.
        self._host, self._subject = host, subject(self._access.broker.prefix, host)
        self._position = Position(self._run)
        await self._read_position()
        if self.resume:
            raise PositionMoved

    async def _read_position(self) -> None:
        """Begin with the newest message of the host."""
        while True:
            try:
                connection = await self._connected()
                self._position.start(*await connection.last(self._subject))
            except BrokerTrouble as trouble:
                await self._wait(trouble)
            else:
                return

    async def _publish(self, part: Part) -> None:
        began = asyncio.get_running_loop().time()
        while True:
            try:
                connection = await self._connected()
                fitting = list(fit(part, self._encoding, connection.max_payload))
            except BrokerTrouble as trouble:
                await self._wait(trouble, began)
            except RecordTooLarge as error:
                await self._wait(BrokerTrouble(f"max_payload is too small: {error}"), began)
            else:
                break
        for fitted in fitting:
            if fitted.is_cut and not self._has_cut:
                self._has_cut = True
                log(
                    f"{self._access.url}: command lines are left out of records that are larger "
                    f"than the broker's max_payload of {connection.max_payload} bytes"
                )
            await self._store(self._position.make_message(fitted.part, fitted.body), began)

    async def _store(self, message: Message, began: float) -> None:
        """Publish a message until it is stored. Raises PositionMoved."""
        while True:
            try:
                connection = await self._connected()
                verdict = await self._attempt(connection, message)
            except BrokerTrouble as trouble:
                await self._wait(trouble, began)
                continue
            if verdict is Verdict.STORED:
                if not self._has_stored:
                    log(f"{self._access.url}: publishing as {self._host}")
                self._trouble.end()
                self._pauses, self._has_stored = 0, True
                return
            if verdict is Verdict.MOVED:
                if self._position.is_foreign:
                    await self._wait_for_other()
                raise PositionMoved
            await self._wait(BrokerTrouble("the broker's servers differ"), began)

    async def _attempt(self, connection: Connection, message: Message) -> Verdict:
        position = self._position
        try:
            sequence = await connection.publish(self._subject, message)
        except WrongSequence as error:
            verdict = position.judge_sequence(message, error.sequence)
            if verdict is Verdict.READ:
                found = await connection.last(self._subject)
                verdict = position.judge_read(message, error.sequence, *found)
            return verdict
        position.store(message, sequence)
        return Verdict.STORED

    async def _wait_for_other(self) -> None:
        now = asyncio.get_running_loop().time()
        before, self._foreign_at = self._foreign_at, now
        if before is not None and now - before < FOREIGN_SECONDS:
            reason = f"another agent publishes as {self._host}: host names must differ"
            self._trouble.begin(BrokerTrouble(reason, is_lasting=True))
            await asyncio.sleep(FOREIGN_PAUSE_SECONDS)
            # The other agent has published meanwhile.
            await self._read_position()

    # The connection to the broker.

    async def _connected(self) -> Connection:
        if self._connection is None:
            token = self._subject.rpartition(".")[2]
            self._connection = await self._connect(
                self._access, f"_INBOX.{token}", f"sockagent {self._host}"
            )
        return self._connection

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def _wait(self, trouble: BrokerTrouble, began: float | None = None) -> None:
        """Wait until the next attempt. Raises PositionMoved if the agent waits since ``began``."""
        self._trouble.begin(trouble)
        if trouble.is_lost:
            await self._disconnect()
        is_rare = trouble.is_lasting and not self._has_stored
        longest = LASTING_PAUSE_SECONDS if is_rare else MAX_PAUSE_SECONDS
        seconds = min(MIN_PAUSE_SECONDS * 2**self._pauses, longest)
        self._pauses = min(self._pauses + 1, 16)
        # Random, so that the agents of a fleet do not reconnect at the same moment.
        seconds *= random.uniform(0.5, 1.0)  # noqa: S311 (not a secret)
        now = asyncio.get_running_loop().time()
        if began is not None:
            seconds = min(seconds, max(0.0, began + self._max_held - now))
        await asyncio.sleep(seconds)
        if began is not None and now + seconds >= began + self._max_held:
            raise PositionMoved


class Trouble:
    """Reports trouble with a broker on stderr: a line when it begins, one for each reason that an
    administrator has to remove, and one when it ends."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._reasons: set[str] = set()

    def begin(self, trouble: BrokerTrouble) -> None:
        """Report trouble, unless it was reported since it began."""
        if not self._reasons or (trouble.is_lasting and str(trouble) not in self._reasons):
            log(f"{self._url}: {trouble}; retrying, while the agent keeps the newest changes")
        self._reasons.add(str(trouble))

    def end(self) -> None:
        """Report that the trouble has ended, if there was any."""
        if self._reasons:
            log(f"{self._url}: publishing again")
        self._reasons.clear()


class FeedPublisher:
    """Publishes a feed of this process."""

    def __init__(
        self, feed: Feed, chosen: Filter, publisher: HostPublisher, checkpoint: float
    ) -> None:
        """``checkpoint``: seconds from one snapshot in the stream to the next."""
        self._feed = feed
        self._filter = chosen
        self._publisher = publisher
        self._checkpoint = checkpoint

    async def run(self) -> None:
        """Publish until the feed stops. Raises RuntimeFailure and ConfigFailure."""
        while True:
            subscription = self._feed.subscribe(
                self._filter, resume=self._publisher.resume, checkpoint=self._checkpoint
            )
            try:
                async for chunk in subscription:
                    await self._publisher.receive(chunk)
            except PositionMoved:
                continue
            finally:
                subscription.close()
            return

    async def stop(self) -> None:
        """Wait for the acknowledgement of what is under way, and disconnect."""
        await self._publisher.stop()
