"""What a connection to a broker makes of its answers."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from agent.publish.nats.broker import BrokerTrouble, NatsConnection, WrongSequence
from agent.publish.nats.position import Message
from agent.stream.fleet import Link, format_link

from .brokers import ACCESS

pytest.importorskip("nats", reason="nats-py is not installed")
LINK = Link("e", 4, 6, "0badcafe.1", 1, begins=False, whole=True, id="0badcafe.2")
MESSAGE = Message(LINK, b"{}\n", 7)


@dataclass
class Answer:
    """A message of the client library."""

    data: bytes = b""
    headers: dict[str, str] | None = None


@dataclass
class Client:
    """A client whose broker gives one answer to everything."""

    answer: Answer
    asked: list[tuple[str, bytes, Any]] = field(default_factory=list)

    async def request(self, subject: str, body: bytes, *, timeout: float, headers: Any) -> Answer:  # noqa: ASYNC109
        self.asked.append((subject, body, headers))
        return self.answer


def connected(answer: Answer) -> tuple[NatsConnection, Client]:
    client = Client(answer)
    return NatsConnection(ACCESS, cast("Any", client)), client


def failed(code: int, text: str, status: int = 400) -> Answer:
    error = {"code": status, "err_code": code, "description": text}
    return Answer(json.dumps({"type": "t", "error": error}).encode())


async def test_a_message_is_stored_behind_the_one_that_is_expected() -> None:
    connection, client = connected(Answer(b'{"stream":"SOCKAGENT","seq":8}'))
    assert await connection.publish("sockagent.a", MESSAGE) == 8
    headers = {"Sockagent": format_link(LINK), "Nats-Expected-Last-Subject-Sequence": "7"}
    assert client.asked == [("sockagent.a", b"{}\n", headers)]


async def test_another_sequence_than_the_expected_one() -> None:
    connection, _ = connected(failed(10071, "wrong last sequence: 12"))
    with pytest.raises(WrongSequence) as raised:
        await connection.publish("sockagent.a", MESSAGE)
    assert raised.value.sequence == 12


@pytest.mark.parametrize(
    ("answer", "reason", "is_lasting"),
    [
        (failed(10077, "maximum bytes exceeded", 503),
         "the stream refuses messages: maximum bytes exceeded", True),
        # Servers of a cluster store a message in steps: another one has to wait for it.
        (failed(10164, "wrong last sequence"), "the broker is busy: wrong last sequence", False),
        (failed(10163, "expected last sequence per subject temporarily unavailable", 503),
         "the broker is busy: expected last sequence per subject temporarily unavailable", False),
        (failed(10008, "JetStream system temporarily unavailable", 503),
         "the broker is busy: JetStream system temporarily unavailable", False),
        (Answer(b"+OK"), "the broker's answer is not understood", False),
        (Answer(b"[]"), "the broker's answer is not understood", False),
        (Answer(b"{}"), "the broker's answer is not understood", False),
    ],
)  # fmt: skip
async def test_messages_that_are_refused(answer: Answer, reason: str, is_lasting: bool) -> None:
    connection, _ = connected(answer)
    with pytest.raises(BrokerTrouble) as raised:
        await connection.publish("sockagent.a", MESSAGE)
    trouble = raised.value
    assert (str(trouble), trouble.is_lasting, trouble.is_lost) == (reason, is_lasting, False)


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        ({"Status": "404", "Description": "Message Not Found"}, (0, None)),
        ({"Nats-Sequence": "9", "Sockagent": format_link(LINK)}, (9, LINK)),
        ({"Nats-Sequence": "9", "Sockagent": "2 of another version"}, (9, None)),
        ({"Nats-Sequence": "9"}, (9, None)),
    ],
)
async def test_the_newest_message_of_a_host(
    headers: dict[str, str], found: tuple[int, Link | None]
) -> None:
    connection, client = connected(Answer(b"", headers))
    assert await connection.last("sockagent.a") == found
    assert client.asked == [("$JS.API.DIRECT.GET.SOCKAGENT.sockagent.a", b"", None)]


async def test_an_answer_that_is_not_understood() -> None:
    connection, _ = connected(Answer(b"", {"Status": "408", "Description": "Bad Request"}))
    with pytest.raises(BrokerTrouble, match=r"is not understood: Bad Request$"):
        await connection.last("sockagent.a")
