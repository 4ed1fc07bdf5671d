"""The position of a host in the stream of a broker: single steps. Sequences of them are tested with
the publisher."""

from __future__ import annotations

import json

import pytest

from agent.publish.nats.position import (
    HEADER_BYTES,
    MAX_ACKS,
    Fitted,
    InvalidStream,
    Message,
    Part,
    Position,
    RecordTooLarge,
    Verdict,
    fit,
    host_of_chunk,
)
from agent.stream.fleet import Link

RUN, OTHER_RUN = "0badcafe", "0ddba115"


def line(event: str, seq: int, **more: object) -> bytes:
    return json.dumps({"event": event, "seq": seq, "host": "a", **more}).encode() + b"\n"


def hello(seq: int, epoch: str = "e", *, resumed: bool = False) -> bytes:
    return line("hello", seq, epoch=epoch, resumed=resumed)


SNAPSHOT = hello(4) + line("snapshot", 4) + line("snapshot_end", 4)


def changes(*seqs: int) -> Part:
    return Part("e", tuple(line("open", seq) for seq in seqs), seqs)


class Stored:
    """A position, and the messages that were stored from a sequence on."""

    def __init__(self, first: int = 1) -> None:
        self.position = Position(RUN)
        self.sequence = first - 1
        self.links: list[Link] = []

    def store(self, part: Part) -> Message:
        message = self.position.make_message(part, b"")
        self.sequence += 1
        self.position.store(message, self.sequence)
        self.links.append(message.link)
        return message

    def take(self, chunk: bytes) -> list[Part]:
        parts = []
        for part in self.position.split(chunk):
            parts.append(part)
            self.store(part)
        return parts


def whole() -> Stored:
    """Return what has stored a snapshot, in the messages 1 and 2."""
    stored = Stored()
    stored.take(SNAPSHOT)
    return stored


def test_a_snapshot_is_a_message_that_begins_and_one_that_completes_it() -> None:
    stored = Stored(first=7)
    assert [(one.begins, one.completes, len(one.lines)) for one in stored.take(SNAPSHOT)] \
        == [(True, False, 1), (False, True, 2)]  # fmt: skip
    first, second = stored.links
    assert (first.previous, first.snapshot, first.whole) == (None, 0, False)
    assert (second.previous, second.snapshot, second.whole) == (first.id, 7, True)
    assert stored.position.resume == (("e", 4),)


def test_lost_changes_begin_anew_within_a_chunk() -> None:
    stored = whole()
    chunk = line("open", 5) + line("lost", 9) + line("snapshot", 9) + line("snapshot_end", 9)
    chunk += line("lost", 12) + line("snapshot", 12)
    found = stored.take(chunk)
    assert [(one.begins, one.completes, len(one.lines)) for one in found] == [
        (False, False, 1), (True, False, 1), (False, True, 2), (True, False, 1), (False, False, 1),
    ]  # fmt: skip
    assert [link.whole for link in stored.links[2:]] == [True, False, True, False, False]
    assert stored.position.resume == ()


@pytest.mark.parametrize(
    ("chunk", "missing"),
    [
        (hello(4), None),
        (hello(6), (5, 6)),
        (hello(6, "f"), (5, None)),
    ],
)
def test_what_the_agent_no_longer_has_is_lost(
    chunk: bytes, missing: tuple[int, int | None] | None
) -> None:
    (part,) = whole().position.split(chunk)
    lost = [json.loads(one) for one in part.lines if b'"lost"' in one]
    assert [(one["from"], one["to"]) for one in lost] == ([missing] if missing else [])
    assert part.begins


def test_an_agent_that_resumes_does_not_begin_anew() -> None:
    (part,) = whole().take(hello(4, resumed=True))
    assert not part.begins


@pytest.mark.parametrize("part", [changes(5), changes(5)._replace(epoch="f")])
def test_changes_need_a_beginning(part: Part) -> None:
    stored = Stored() if part.epoch == "e" else whole()
    with pytest.raises(InvalidStream, match="does not begin with hello"):
        stored.store(part)


def test_numbers_that_fall_are_not_of_an_agent() -> None:
    stored = whole()
    stored.store(changes(5, 6))
    with pytest.raises(InvalidStream, match="fall"):
        stored.store(changes(5))


@pytest.mark.parametrize("chunk", [b"x\n", b"[]\n", b'{"seq":1}\n', line("open", -1)])
def test_what_is_no_record_is_not_of_an_agent(chunk: bytes) -> None:
    with pytest.raises(InvalidStream, match="not a sockagent"):
        list(Position(RUN).split(chunk))


def test_the_host_is_that_of_hello() -> None:
    assert host_of_chunk(SNAPSHOT) == "a"
    for chunk in (line("open", 1), b'{"event":"hello","seq":1,"host":3}\n'):
        with pytest.raises(InvalidStream, match="does not begin with hello"):
            host_of_chunk(chunk)


# Messages that were refused.


def test_a_refusal_by_the_expected_sequence_is_tried_again() -> None:
    stored = whole()
    message = stored.position.make_message(changes(5), b"")
    assert stored.position.judge_sequence(message, 2) is Verdict.AGAIN


def test_an_empty_log_is_begun_anew() -> None:
    stored = whole()
    message = stored.position.make_message(changes(5), b"")
    assert stored.position.judge_sequence(message, 0) is Verdict.MOVED
    assert stored.position.resume == ()
    assert not stored.position.is_foreign


def test_a_log_that_lost_its_end_goes_on_where_it_ended() -> None:
    stored = whole()
    for seq in (5, 6):
        stored.store(changes(seq))
    message = stored.position.make_message(changes(7), b"")
    assert stored.position.judge_sequence(message, 3) is Verdict.MOVED
    assert stored.position.resume == (("e", 5),)
    # The message 4 is another one now.
    message = stored.position.make_message(changes(6), b"")
    assert stored.position.judge_sequence(message, 4) is Verdict.READ


def test_so_many_messages_are_remembered() -> None:
    stored = whole()
    for seq in range(5, 5 + MAX_ACKS):
        stored.store(changes(seq))
    newest, oldest = stored.sequence, stored.sequence - MAX_ACKS + 1
    message = stored.position.make_message(changes(9999), b"")
    assert newest == MAX_ACKS + 2
    assert stored.position.judge_sequence(message, oldest - 1) is Verdict.READ
    assert stored.position.judge_sequence(message, oldest) is Verdict.MOVED


def test_the_newest_message_is_ours_by_its_id() -> None:
    stored = whole()
    message = stored.position.make_message(changes(5), b"")
    assert stored.position.judge_sequence(message, 9) is Verdict.READ
    assert stored.position.judge_read(message, 9, 2, stored.links[-1]) is Verdict.AGAIN
    assert stored.position.judge_read(message, 9, 9, message.link) is Verdict.STORED
    assert stored.position.resume == (("e", 5),)
    assert not stored.position.is_foreign


@pytest.mark.parametrize(
    ("identity", "is_foreign"), [(f"{RUN}.1", False), (f"{OTHER_RUN}.3", True), (None, True)]
)
def test_another_message_than_ours_is_the_position(identity: str | None, is_foreign: bool) -> None:
    stored = whole()
    message = stored.position.make_message(changes(5), b"")
    other = None if identity is None else message.link._replace(id=identity, epoch="f")
    assert stored.position.judge_read(message, 9, 9, other) is Verdict.MOVED
    assert stored.position.resume == ((("f", 5),) if other else ())
    assert stored.position.is_foreign == is_foreign


# Sizes.


def fitted(part: Part, max_bytes: int) -> list[Fitted]:
    return list(fit(part, "none", max_bytes + HEADER_BYTES))


def test_a_message_has_room_for_its_headers() -> None:
    part = changes(5, 6)
    size = len(b"".join(part.lines))
    assert [len(one.part.lines) for one in fitted(part, size)] == [2]
    assert [len(one.part.lines) for one in fitted(part, size - 1)] == [1, 1]


def test_the_end_of_a_snapshot_is_in_the_last_message_of_it() -> None:
    lines = (line("snapshot", 4), line("snapshot", 4), line("snapshot_end", 4))
    part = Part("e", lines, (4, 4, 4), completes=True)
    found = fitted(part, len(lines[2]))
    assert [one.part.lines for one in found] == [(one,) for one in lines]
    assert [one.part.completes for one in found] == [False, False, True]


def test_a_record_that_is_too_large_loses_its_command_line_or_is_refused() -> None:
    large = line("open", 5, cmdline=["x" * 100])
    part = Part("e", (large,), (5,))
    (found,) = fitted(part, 80)
    assert found.is_cut
    assert json.loads(found.body)["cmdline"] is None
    with pytest.raises(RecordTooLarge):
        fitted(part, 20)
