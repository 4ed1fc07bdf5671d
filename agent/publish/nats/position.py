"""The position of a host in the stream of a broker: what was stored, and what is to be sent next.
Pure: no I/O, no clock.

The broker holds the position: the newest message of the host's subject. Each message is stored only
if the newest message before it is the one that is expected, so that no message is stored twice and
two publishers of one name cannot mix their messages.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from typing import NamedTuple

from orjson import OPT_APPEND_NEWLINE, JSONDecodeError, dumps, loads

from ...stream.fleet import Link, encode_body
from ...stream.publication import Positions
from ...text import escape_controls

# Acknowledged messages that are remembered: after a broker lost the end of its stream, the position
# is found among them. At one message a second, a quarter of an hour.
MAX_ACKS = 1000
# What the headers of a message take at most, of the broker's max_payload.
HEADER_BYTES = 512


class InvalidStream(ValueError):
    """Records that no agent sends, or of several hosts."""


class RecordTooLarge(ValueError):
    """A record that is too large for the broker, even without its command line."""


class Part(NamedTuple):
    """Records of one message. ``seqs`` has the number of each line; ``begins``: they begin anew,
    ``completes``: they end a snapshot."""

    epoch: str
    lines: tuple[bytes, ...]
    seqs: tuple[int, ...]
    begins: bool = False
    completes: bool = False


class Message(NamedTuple):
    """A message to publish. ``expected`` is the sequence of the message before it, 0: none."""

    link: Link
    body: bytes
    expected: int


class Verdict(Enum):
    """What to do with a message that was not acknowledged."""

    STORED = "it is stored: go on"
    AGAIN = "publish it again"
    READ = "read the newest message of the host, then judge again"
    MOVED = "the position is another one: begin again from there"


class Position:
    """The position of one host, over all connections to the broker and to the agent."""

    def __init__(self, run: str) -> None:
        """``run`` is 8 random hexadecimal digits, which name this run of the publisher."""
        self._run = run
        self._number = 0
        self._last: Link | None = None  # The newest message of the host, None: unknown or none,
        self._sequence = 0  # and its sequence in the stream, 0: there is none.
        self._snapshot_at = 0  # Where the snapshot under way begins.
        self._acks: dict[int, Link] = {}

    @property
    def resume(self) -> Positions:
        """The (epoch, seq) after which the agent is to continue; none: it is to begin anew."""
        last = self._last
        return ((last.epoch, last.through),) if last is not None and last.whole else ()

    # Messages.

    def make_message(self, part: Part, body: bytes) -> Message:
        """Return the message of a part, whose body is encoded. Raises InvalidStream."""
        last, begins = self._last, part.begins
        if last is None or last.epoch != part.epoch:
            if not begins:
                raise InvalidStream("the stream does not begin with hello")
        elif not begins and part.seqs[-1] < last.through:
            raise InvalidStream("the numbers of the records fall")
        through = part.seqs[-1]
        self._number += 1
        link = Link(
            epoch=part.epoch,
            after=through if begins or last is None else last.through,
            through=through,
            previous=None if last is None else last.id,
            snapshot=self._snapshot_at if part.completes else 0 if last is None else last.snapshot,
            begins=begins,
            whole=part.completes or (not begins and last is not None and last.whole),
            id=f"{self._run}.{self._number}",
        )
        return Message(link, body, self._sequence)

    def store(self, message: Message, sequence: int) -> None:
        """Note that a message is stored."""
        if message.link.begins:
            self._snapshot_at = sequence
        self._adopt(sequence, message.link)

    def _adopt(self, sequence: int, link: Link | None) -> None:
        self._last, self._sequence = link, sequence
        acks = self._acks
        if acks and next(reversed(acks)) >= sequence:  # They are in order.
            self._acks = acks = {known: acks[known] for known in acks if known < sequence}
        if link is not None:
            acks[sequence] = link
        if len(acks) > MAX_ACKS:
            del acks[next(iter(acks))]

    # Answers of the broker.

    def start(self, sequence: int, link: Link | None) -> None:
        """Begin with the newest message of the host, as it was read. ``link`` is None where it is
        no message of this format, ``sequence`` is 0 where there is none."""
        self._adopt(sequence, link)

    def judge_sequence(self, message: Message, sequence: int) -> Verdict:
        """Judge a message that was refused: the newest message has another sequence than it
        expects, 0: there is none."""
        if sequence == message.expected:
            return Verdict.AGAIN
        if sequence and sequence not in self._acks:
            return Verdict.READ
        self._adopt(sequence, self._acks.get(sequence))
        return Verdict.MOVED

    def judge_read(
        self, message: Message, refused: int, sequence: int, link: Link | None
    ) -> Verdict:
        """Judge a message that was refused by the newest message as it was read. ``refused`` is the
        sequence with which it was refused; a read may come from a replica that is behind."""
        if sequence != refused:
            return Verdict.AGAIN
        if link is not None and link.id == message.link.id:
            self.store(message, sequence)
            return Verdict.STORED
        self._adopt(sequence, link)
        return Verdict.MOVED

    @property
    def is_foreign(self) -> bool:
        """Whether the newest message is that of another publisher."""
        return bool(self._sequence) and (self._last is None or self._last.run != self._run)

    # Records of the agent.

    def split(self, chunk: bytes) -> Iterator[Part]:
        """Yield the parts of a chunk of records, each of which is a message if it is not too large.
        The position must be that after the part before. Raises InvalidStream."""
        lines = chunk.splitlines(keepends=True)
        epoch = "" if self._last is None else self._last.epoch
        waiting: list[bytes] = []
        seqs: list[int] = []
        completes = False
        for line in lines:
            event, seq, record = _parse(line)
            if event in ("hello", "lost") and waiting:
                yield Part(epoch, tuple(waiting), tuple(seqs), completes=completes)
                waiting, seqs, completes = [], [], False
            if event == "hello":
                resumed = record.get("resumed") is True
                lost = b"" if resumed else self._lost(record, seq)
                epoch = str(record.get("epoch"))
                found = (lost, line) if lost else (line,)
                yield Part(epoch, found, (seq,) * len(found), begins=not resumed)
            elif event == "lost":
                yield Part(epoch, (line,), (seq,), begins=True)
            else:
                waiting.append(line)
                seqs.append(seq)
                completes |= event == "snapshot_end"
        if waiting:
            yield Part(epoch, tuple(waiting), tuple(seqs), completes=completes)

    def _lost(self, hello: dict[str, object], seq: int) -> bytes:
        """Return the record of the changes between the position and ``hello``, which the agent no
        longer has; nothing where there are none."""
        last = self._last
        if last is None:
            return b""
        is_same = hello.get("epoch") == last.epoch
        if is_same and seq == last.through:
            return b""
        fields = {
            "event": "lost",
            "seq": seq,
            "time": hello.get("time"),
            "host": hello.get("host"),
            "from": last.through + 1,
            # The last number of an epoch that has ended is unknown.
            "to": seq if is_same else None,
        }
        return _line(fields)


def host_of_chunk(chunk: bytes) -> str:
    """Return the host of the first record of a chunk, which must be ``hello``. Raises
    InvalidStream."""
    event, _, record = _parse(chunk.partition(b"\n")[0])
    host = record.get("host")
    if event != "hello" or not isinstance(host, str):
        raise InvalidStream("the stream does not begin with hello")
    return host


def _parse(line: bytes) -> tuple[str, int, dict[str, object]]:
    """Return the event and the number of a record, and the record. Raises InvalidStream."""
    try:
        record = loads(line)
        event, seq = record["event"], record["seq"]
    except (JSONDecodeError, LookupError, TypeError) as error:
        raise InvalidStream("the server is not a sockagent") from error
    if not isinstance(event, str) or not isinstance(seq, int) or seq < 0:
        raise InvalidStream("the server is not a sockagent")
    return event, seq, record


def _line(record: dict[str, object]) -> bytes:
    return escape_controls(dumps(record, option=OPT_APPEND_NEWLINE).decode()).encode()


class Fitted(NamedTuple):
    """A part with its body. ``is_cut``: a command line was left out."""

    part: Part
    body: bytes
    is_cut: bool = False


def fit(part: Part, encoding: str, max_payload: int) -> Iterator[Fitted]:
    """Yield a part with its body, or smaller parts where it is larger than the broker takes: a
    record that is too large alone is sent without its command line. Raises RecordTooLarge."""
    body = encode_body(b"".join(part.lines), encoding)
    if len(body) + HEADER_BYTES <= max_payload:
        yield Fitted(part, body)
        return
    count = len(part.lines)
    if count > 1 and not part.begins:
        for begin, end in ((0, count // 2), (count // 2, count)):
            half = part._replace(
                lines=part.lines[begin:end],
                seqs=part.seqs[begin:end],
                completes=part.completes and end == count,
            )
            yield from fit(half, encoding, max_payload)
        return
    record = loads(part.lines[-1])
    if record.get("cmdline") is None:
        raise RecordTooLarge(f"a record has more than {max_payload} bytes")
    record["cmdline"] = None
    smaller = part._replace(lines=(*part.lines[:-1], _line(record)))
    for fitted in fit(smaller, encoding, max_payload):
        yield fitted._replace(is_cut=True)
