"""Consumer of a fleet: reads the messages of all hosts from a broker, and passes their records on.

It keeps the position of each host, and trusts the chain of its messages, not the broker.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import NamedTuple, NoReturn, Protocol

from ...broker_login import is_denial
from ...errors import RuntimeFailure
from ...log import LineLimit, log
from ...stream.filters import Filter
from ...stream.fleet import (
    Broker,
    InvalidFleetMessage,
    Link,
    decode_body,
    host_of,
    no_stream,
    parse_link,
    prefix_note,
)
from ...text import escape_controls
from ..attempts import Attempts
from .chain import Action, Chains, HostPosition, Verdict
from .inventory import SILENT_SECONDS, Inventory, named
from .lines import LineFilter, passed_on
from .reports import SessionError
from .session import NO_STREAM, Session, StreamInfo, StreamMessage, open_session

# Time between attempts, doubled after each one.
MIN_BACKOFF_SECONDS, MAX_BACKOFF_SECONDS = 0.1, 5.0
# Messages between two turns of the event loop.
_TURN_MESSAGES = 16


class Start(NamedTuple):
    """Where to begin: with the newest snapshot of each host, with the oldest message (``oldest``),
    or with the first one after ``time``, in seconds since the Unix epoch."""

    oldest: bool = False
    time: float | None = None


class Fleet(NamedTuple):
    """A fleet to read, and what of it."""

    url: str
    broker: Broker
    chosen: Filter
    creds: str | None = None
    tls: ssl.SSLContext | None = None
    start: Start = Start()


class Part(NamedTuple):
    """Records of one host, of a message that the broker stored at ``time``, in seconds since the
    Unix epoch. ``begins``: a snapshot begins."""

    host: str
    records: bytes
    begins: bool
    time: float


class FleetPosition(NamedTuple):
    """What was read: the messages up to ``sequence``, the position in the chain of each subject,
    and the records so far of the snapshots under way."""

    sequence: int
    hosts: Mapping[str, HostPosition]
    counts: Mapping[str, int]


class FleetReceiver(Protocol):
    """Takes what is read of a fleet, over all connections."""

    def connect(self) -> None:
        """Note that there is a connection."""

    def disconnect(self, reason: str) -> None:
        """Note that the connection has ended, or could not be made."""

    async def receive(self, part: Part) -> None:
        """Take records. What the consumer then has as its position includes them, also while this
        waits."""

    def set_silent(self, host: str, *, silent: bool) -> None:
        """Note that a host has sent nothing for a while, or that it sends again."""


class FleetConsumer:
    """Reads a fleet. ``checkpoints``: pass on snapshots that repeat what was passed on."""

    def __init__(
        self,
        fleet: Fleet,
        receiver: FleetReceiver,
        position: FleetPosition | None = None,
        *,
        checkpoints: bool = True,
    ) -> None:
        """``position`` is that of an earlier consumer."""
        self._fleet = fleet
        self._receiver = receiver
        self._sequence = None if position is None else position.sequence
        self._chains = Chains(position.hosts if position else None, checkpoints=checkpoints)
        self._filter = LineFilter(fleet.chosen, position.counts if position else None)
        self._skipped: dict[str, int] = {}  # By subject: the sequence of the first wanted message.
        self._inventory = Inventory()
        self._limit = LineLimit(f"about messages of {fleet.url}")
        self.attempts = Attempts(fleet.url, MIN_BACKOFF_SECONDS, MAX_BACKOFF_SECONDS)

    @property
    def position(self) -> FleetPosition | None:
        """What was read; None: nothing yet."""
        if self._sequence is None:
            return None
        counts = dict(self._filter.counts)
        return FleetPosition(self._sequence, dict(self._chains.positions), counts)

    async def run(self) -> NoReturn:
        """Read until cancelled. Raises RuntimeFailure."""
        fleet = self._fleet
        while True:
            try:
                async with (
                    open_session(fleet.broker, fleet.creds, fleet.tls) as session,
                    aclosing(self._read(session)) as reading,
                ):
                    async for _ in reading:
                        self.attempts.succeed()
            except SessionError as error:
                reason = self._explained(error)
                self._receiver.disconnect(reason)
                if error.is_final:
                    raise RuntimeFailure(f"{fleet.url}: {reason}") from error
            await self.attempts.wait(reason)

    def _explained(self, error: SessionError) -> str:
        broker = self._fleet.broker
        if error.code == NO_STREAM:
            return no_stream(broker)
        return f"{error}{prefix_note(broker) if is_denial(error) else ''}"

    async def _read(self, session: Session) -> AsyncGenerator[None]:
        """Read messages; yield after each, and now and then. Raises SessionError."""
        info = await session.info()
        prefix = self._fleet.broker.prefix
        # A filter that all messages pass makes some versions of the broker much slower.
        subject = None if info.subjects == (f"{prefix}.>",) else f"{prefix}.>"
        start = await self._start(session, info)
        self._inventory.excuse(time.monotonic())
        self._receiver.connect()
        is_current, turn = False, 0
        async with aclosing(session.messages(start, subject)) as messages:
            async for message in messages:
                if message is None:
                    is_current = True
                else:
                    is_current = message.pending == 0
                    await self._take(session, message)
                    self._sequence = message.sequence
                    turn += 1
                    if turn % _TURN_MESSAGES == 0:
                        await asyncio.sleep(0)
                if is_current:
                    self._report_silent()
                yield

    async def _start(self, session: Session, info: StreamInfo) -> Mapping[str, object]:
        """Return where the reading begins, as settings of the broker's consumer."""
        if self._sequence is None:
            start = self._fleet.start
            if start.time is not None:
                at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(start.time))
                return {"deliver_policy": "by_start_time", "opt_start_time": at}
            first = info.first if start.oldest else await self._newest(session, info)
            self._sequence = max(first, 1) - 1
        elif info.last < self._sequence:
            log(
                f"{self._fleet.url}: the stream has lost its messages after {info.last}; "
                "going back to it"
            )
            self._sequence = info.last
        return {"deliver_policy": "by_start_sequence", "opt_start_seq": self._sequence + 1}

    async def _newest(self, session: Session, info: StreamInfo) -> int:
        """Return the sequence at which the newest snapshots of all hosts have begun."""
        first = info.last + 1
        if not info.last:
            return first
        start = {"deliver_policy": "last_per_subject", "headers_only": True}
        now, clock = time.time(), time.monotonic()
        subject = f"{self._fleet.broker.prefix}.>"
        async with aclosing(session.messages(start, subject)) as messages:
            async for message in messages:
                if message is None:
                    break  # The stream has no message.
                link = self._link_of(message)
                if link is not None:
                    is_first = link.begins and not link.snapshot
                    begins = message.sequence if is_first else link.snapshot
                    first = min(first, begins or message.sequence)
                    self._skipped[message.subject] = begins
                    age = max(0.0, now - message.time)
                    self._inventory.hear(host_of(message.subject), clock - age)
                if message.pending == 0:
                    break
        return max(first, info.first)

    async def _take(self, session: Session, message: StreamMessage) -> None:
        """Pass on what is new of a message. Raises SessionError."""
        if message.sequence < self._skipped.get(message.subject, 0):
            return
        link = self._link_of(message)
        if link is None:
            return
        host = host_of(message.subject)
        if self._inventory.hear(host, time.monotonic()):
            log(f"{host} sends again")
            self._receiver.set_silent(host, silent=False)
        if not self._filter.matches_host(host):
            return
        body = self._body_of(message)
        if body is None:  # As if it were missing.
            return
        verdict = self._chains.take(message.subject, link)
        if verdict.action is Action.READ_AGAIN:
            await self._read_again(session, message, link)
            verdict = self._chains.take(message.subject, link, again=True)
        await self._pass_on(verdict, message, link, body)

    async def _read_again(self, session: Session, until: StreamMessage, link: Link) -> None:
        """Pass on what is new of a host from its newest snapshot on up to a message. Raises
        SessionError."""
        if link.snapshot >= until.sequence:
            return
        start = {"deliver_policy": "by_start_sequence", "opt_start_seq": max(link.snapshot, 1)}
        async with aclosing(session.messages(start, until.subject)) as messages:
            async for message in messages:
                if message is None or message.sequence >= until.sequence:
                    return
                earlier, body = self._link_of(message), self._body_of(message)
                if earlier is not None and body is not None:
                    verdict = self._chains.take(message.subject, earlier, again=True)
                    await self._pass_on(verdict, message, earlier, body)

    async def _pass_on(
        self, verdict: Verdict, message: StreamMessage, link: Link, body: bytes
    ) -> None:
        host = host_of(message.subject)
        records = passed_on(verdict, link, host, message.time, body)
        if verdict.action is not Action.DROP:
            records = self._filter.apply(host, records)
        if records:
            await self._receiver.receive(Part(host, records, link.begins, message.time))

    def _link_of(self, message: StreamMessage) -> Link | None:
        """Return the header of a message; None if it is not one of a publisher."""
        try:
            host_of(message.subject)
            return parse_link(message.link)
        except InvalidFleetMessage as error:
            self._warn(f"message {message.sequence} is left out: {error}")
            return None

    def _body_of(self, message: StreamMessage) -> bytes | None:
        """Return the records of a message; None if they cannot be read."""
        try:
            return _safe(decode_body(message.body))
        except ValueError as error:
            self._warn(f"the records of message {message.sequence} cannot be read: {error}")
            return None

    def _report_silent(self) -> None:
        silent = self._inventory.fall_silent(time.monotonic())
        if silent:
            log(f"no message for {SILENT_SECONDS:.0f} s from {named(silent)}")
        for host in silent:
            self._receiver.set_silent(host, silent=True)

    def _warn(self, message: str) -> None:
        self._limit.log(f"warning: {self._fleet.url}: {message}", time.monotonic())


def _safe(records: bytes) -> bytes:
    """Return records without what a terminal would interpret: an agent may be of any version.
    Raises ValueError."""
    if not records.endswith(b"\n"):
        raise ValueError("the last line is not complete")
    if records.isascii() and b"\x7f" not in records:
        return records
    return escape_controls(records.decode()).encode()
