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
from ..attempts import Attempts
from .budget import Budget
from .chain import Action, Chains, HostPosition, Verdict
from .inventory import SILENT_SECONDS, Inventory, named
from .lines import LineFilter, passed_on, safe_records
from .pull import StreamMessage
from .reports import SessionError
from .session import NO_STREAM_CODES, Session, StreamInfo, open_session

# Time between attempts, doubled after each one.
MIN_BACKOFF_SECONDS, MAX_BACKOFF_SECONDS = 0.1, 5.0
# Seconds between the newest message of a host and that of the fleet, from which on a start reads
# the host apart.
_APART_SECONDS = 3600.0
# Messages between two turns of the event loop.
_TURN_MESSAGES = 16
# Seconds without a message after which none is expected to be on its way.
_QUIET_TICKS = 5


class Start(NamedTuple):
    """Where to begin: with the newest snapshot of each host, with the oldest message (``oldest``),
    or with the first one after ``time``, in seconds since the Unix epoch."""

    oldest: bool = False
    time: float | None = None


class Fleet(NamedTuple):
    """A fleet to read, and the filter of its records."""

    url: str
    broker: Broker
    chosen: Filter
    creds: str | None = None
    tls: ssl.SSLContext | None = None
    start: Start = Start()


class HostRecords(NamedTuple):
    """Records of one host, of a message that the broker stored at ``time``, in seconds since the
    Unix epoch."""

    host: str
    records: bytes
    time: float


class FleetPosition(NamedTuple):
    """What was read: the messages up to ``sequence``, the position in the chain of each subject,
    and the records so far of the snapshots under way. ``made`` is when the stream was made."""

    sequence: int
    hosts: Mapping[str, HostPosition]
    counts: Mapping[str, int]
    made: str = ""


class FleetReceiver(Protocol):
    """Takes what is read of a fleet, over all connections."""

    def connect(self) -> None:
        """Note that there is a connection."""

    def disconnect(self, reason: str) -> None:
        """Note that the connection has ended, or could not be made."""

    async def receive(self, found: HostRecords) -> None:
        """Take records. The position of the consumer includes them from the call on, also while
        this method waits."""

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
        # By subject: where the messages begin of hosts that are read apart, before the others.
        self._apart: dict[str, int] = {}
        self._made = position.made if position else ""  # When the stream was made.
        self._budget = Budget()
        self._stored = 0  # The newest message when the connection was made.
        self._inventory = Inventory()
        self._limit = LineLimit(f"about messages of {fleet.url}")
        self.attempts = Attempts(fleet.url, MIN_BACKOFF_SECONDS, MAX_BACKOFF_SECONDS)

    @property
    def position(self) -> FleetPosition | None:
        """What was read; None: nothing yet."""
        if self._sequence is None or self._apart:
            return None
        counts = dict(self._filter.counts)
        return FleetPosition(self._sequence, dict(self._chains.positions), counts, self._made)

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
                # A broker that lost its store gets its stream again.
                if error.is_final and not (self._made and error.code in NO_STREAM_CODES):
                    raise RuntimeFailure(f"{fleet.url}: {reason}") from error
            task = asyncio.current_task()
            if task is not None and task.cancelling():  # The client library may swallow it.
                raise asyncio.CancelledError
            await self.attempts.wait(reason)

    def _explained(self, error: SessionError) -> str:
        broker = self._fleet.broker
        if error.code in NO_STREAM_CODES:
            return no_stream(broker)
        return f"{error}{prefix_note(broker) if is_denial(error) else ''}"

    async def _read(self, session: Session) -> AsyncGenerator[None]:
        """Read messages; yield after each, and now and then. Raises SessionError."""
        info = await session.info()
        prefix = self._fleet.broker.prefix
        # A filter that all messages pass makes some versions of the broker much slower.
        subject = None if info.subjects == (f"{prefix}.>",) else f"{prefix}.>"
        self._inventory.restart(time.monotonic())
        start = await self._start(session, info)
        self._stored = info.last
        self._receiver.connect()
        # Messages of other subjects do not arrive, so that it may be none of them.
        pending = info.last - (self._sequence or 0)
        quiet = turn = 0
        async with aclosing(self._read_apart(session)) as apart:
            async for _ in apart:
                yield
        async with aclosing(session.messages(start, subject)) as messages:
            async for message in messages:
                if message is None:
                    quiet += 1
                else:
                    pending, quiet = message.pending, 0
                    await self._take(session, message)
                    self._sequence = message.sequence
                    turn += 1
                    if turn % _TURN_MESSAGES == 0:
                        await asyncio.sleep(0)
                if not pending or quiet >= _QUIET_TICKS:
                    self._report_silent()
                yield

    async def _start(self, session: Session, info: StreamInfo) -> Mapping[str, object]:
        """Return where the reading begins, as settings of the broker's consumer."""
        made, self._made = self._made, info.made
        # The stream had what precedes the first wanted message of a host, too.
        known = max(self._sequence or 0, *(wanted - 1 for wanted in self._skipped.values()), 0)
        if made and made != info.made:
            log(f"{self._fleet.url}: the stream was made anew; reading it from its beginning")
            self._sequence = max(info.first, 1) - 1
            self._skipped.clear()
            self._apart.clear()
        elif self._sequence is None:
            start = self._fleet.start
            if start.time is not None:
                at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(start.time))
                return {"deliver_policy": "by_start_time", "opt_start_time": at}
            first = info.first if start.oldest else await self._newest(session, info)
            self._sequence = max(first, 1) - 1
        elif info.last < known:
            log(
                f"{self._fleet.url}: the stream has lost its messages after {info.last}; "
                "going back to it"
            )
            self._sequence = min(self._sequence, info.last)
            self._skipped.clear()  # What follows has these sequences again.
            self._apart.clear()
        return {"deliver_policy": "by_start_sequence", "opt_start_seq": self._sequence + 1}

    async def _newest(self, session: Session, info: StreamInfo) -> int:
        """Return the sequence at which the newest snapshots of the hosts have begun that sent
        messages lately. The others are read apart: the stream may have much since then."""
        newest: list[tuple[StreamMessage, int]] = []
        if not info.last:
            return info.last + 1
        start = {"deliver_policy": "last_per_subject", "headers_only": True}
        subjects = f"{self._fleet.broker.prefix}.>"
        async with aclosing(session.messages(start, subjects, to_end=True)) as messages:
            async for message in messages:
                link = None if message is None else self._link_of(message)
                if message is None or link is None:
                    continue
                host = host_of(message.subject)
                if self._filter.matches_host(host):
                    begins = (
                        message.sequence if link.begins and not link.snapshot else link.snapshot
                    )
                    newest.append((message, begins))
                    self._inventory.note_message(host, _stored_at(message))
        lately = max((message.time for message, _ in newest), default=0.0) - _APART_SECONDS
        first = info.last + 1
        for message, begins in newest:
            if message.time < lately:
                self._apart[message.subject] = begins or message.sequence
                self._skipped[message.subject] = message.sequence + 1
            else:
                first = min(first, begins or message.sequence)
                self._skipped[message.subject] = begins
        return max(first, info.first)

    async def _read_apart(self, session: Session) -> AsyncGenerator[None, None]:
        """Read the messages of hosts that have sent none for long; yield after each. Raises
        SessionError."""
        for subject, begins in list(self._apart.items()):
            start = {"deliver_policy": "by_start_sequence", "opt_start_seq": max(begins, 1)}
            async with aclosing(session.messages(start, subject, to_end=True)) as messages:
                async for message in messages:
                    if message is not None:
                        await self._judge(session, message)
                    yield
            del self._apart[subject]

    async def _take(self, session: Session, message: StreamMessage) -> None:
        """Pass on what is new of a message that is wanted. Raises SessionError."""
        if message.sequence >= self._skipped.get(message.subject, 0):
            await self._judge(session, message)

    async def _judge(self, session: Session, message: StreamMessage) -> None:
        """Pass on what is new of a message. Raises SessionError."""
        link = self._link_of(message)
        if link is None:
            return
        host = host_of(message.subject)
        if not self._filter.matches_host(host):
            return
        is_new = message.sequence > self._stored
        if self._inventory.note_message(host, time.monotonic() if is_new else _stored_at(message)):
            log(f"{host} sends again")
            self._receiver.set_silent(host, silent=False)
        body = self._body_of(message)
        if body is None:  # As if it were missing.
            return
        verdict = self._chains.take(message.subject, link)
        if verdict.action is Action.READ_AGAIN:
            if self._budget.allows(message.subject, time.monotonic()):
                await self._read_again(session, message, link)
            else:
                self._warn(f"{host} sends messages with gaps; they are not read again")
            verdict = self._chains.take(message.subject, link, again=True)
        await self._pass_on(verdict, message, link, body)

    async def _read_again(self, session: Session, until: StreamMessage, link: Link) -> None:
        """Pass on what is new of a host from its newest snapshot on up to a message. Raises
        SessionError."""
        if link.snapshot >= until.sequence:
            return
        start = {"deliver_policy": "by_start_sequence", "opt_start_seq": max(link.snapshot, 1)}
        async with aclosing(session.messages(start, until.subject, to_end=True)) as messages:
            async for message in messages:
                if message is None:
                    continue
                if message.sequence >= until.sequence:
                    return
                earlier, body = self._link_of(message), self._body_of(message)
                size = len(message.body if body is None else body)
                self._budget.spend(message.subject, time.monotonic(), size)
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
            await self._receiver.receive(HostRecords(host, records, message.time))

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
            records, left_out = safe_records(decode_body(message.body), host_of(message.subject))
            if left_out:
                self._warn(f"{left_out} lines of message {message.sequence} are no records")
            return records
        except ValueError as error:
            self._warn(f"the records of message {message.sequence} cannot be read: {error}")
            return None

    def _report_silent(self) -> None:
        silent = self._inventory.take_silent(time.monotonic())
        if silent:
            log(f"no message for {SILENT_SECONDS:.0f} s from {named(silent)}")
        for host in silent:
            self._receiver.set_silent(host, silent=True)

    def _warn(self, message: str) -> None:
        self._limit.log(f"warning: {self._fleet.url}: {message}", time.monotonic())


def _stored_at(message: StreamMessage) -> float:
    """Return when a message was stored, on the clock of this process."""
    return time.monotonic() - max(0.0, time.time() - message.time)
