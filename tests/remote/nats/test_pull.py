"""What arrives from a broker, and how much is asked for."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.remote.nats.pull import BATCH, MAX_BYTES, Queue, Requests
from agent.remote.nats.reports import SessionError


@dataclass
class Arrived:
    """A message of the client library: that of a stream, or a status without a reply subject."""

    reply: str = ""
    headers: dict[str, str] | None = field(default_factory=dict)
    data: bytes = b"{"
    subject: str = "sockagent.a"


def of_stream(number: int, sequence: int = 7, **headers: str) -> Arrived:
    return Arrived(f"$JS.ACK.S.C.1.{sequence}.{number}.1500000000.9", headers)


def status(code: str, **headers: str) -> Arrived:
    return Arrived("", {"Status": code, **headers}, b"")


def low_after(requests: Requests) -> int:
    """Return how many messages arrive until the next request is due."""
    number = 0
    while not requests.are_low:
        number += 1
        requests.take(of_stream(number))
    return number


def test_a_message_has_what_the_broker_says_of_it() -> None:
    requests = Requests()
    found = requests.take(of_stream(1, 40, Sockagent="link"))
    assert found == ("sockagent.a", 40, 1.5, 9, "link", b"{")
    # Brokers with domains, and newer ones, have more words in the subject.
    found = requests.take(Arrived("$JS.ACK.D.A.S.C.1.41.2.2500000000.8.x", None))
    assert found == ("sockagent.a", 41, 2.5, 8, "", b"{")


def test_the_next_request_is_due_when_half_of_the_messages_have_arrived() -> None:
    requests = Requests()
    assert requests.are_low
    requests.next()
    assert low_after(requests) == BATCH // 2


@pytest.mark.parametrize(
    ("ended", "due"),
    [
        (status("408", **{"Nats-Pending-Messages": "100"}), BATCH * 2 - 100 - BATCH // 2),
        (status("404", **{"Nats-Pending-Messages": "9999"}), 0),
        (status("404"), 0),
        (status("100"), BATCH * 2 - BATCH // 2),
    ],
)
def test_a_request_that_has_ended_gets_no_more(ended: Arrived, due: int) -> None:
    requests = Requests()
    requests.next()
    requests.next()
    assert requests.take(ended) is None
    assert low_after(requests) == due


def test_another_status_ends_the_reading() -> None:
    with pytest.raises(SessionError, match=r"^the broker ended the reading: Consumer Deleted$"):
        Requests().take(status("409", Description="Consumer Deleted"))
    with pytest.raises(SessionError, match=r"reading: 503$"):
        Requests().take(status("503"))


@pytest.mark.parametrize("code", ["100", "404", "409"])
def test_a_stored_message_is_no_status_whatever_its_header_is(code: str) -> None:
    requests = Requests()
    found = requests.take(of_stream(1, 40, Status=code))
    assert found is not None
    assert found.sequence == 40
    assert requests.take(of_stream(2, 41)) is not None


def test_missing_messages_and_missing_metadata_are_reported() -> None:
    requests = Requests()
    requests.take(of_stream(1))
    with pytest.raises(SessionError, match=r"^messages are missing$"):
        requests.take(of_stream(3))
    with pytest.raises(SessionError, match="without metadata"):
        Requests().take(Arrived("$JS.ACK.S.C"))


NUMBERS = st.sampled_from(["9" * 6003, "²", "٣", "-1", "", "1e9", "1"]) | st.text(max_size=4)


@given(NUMBERS, NUMBERS, NUMBERS)
def test_whatever_a_broker_says_of_a_message_is_a_number_or_ends_the_reading(
    sequence: str, time: str, unsent: str
) -> None:
    requests = Requests()
    try:
        requests.take(status("408", **{"Nats-Pending-Messages": unsent}))
        found = requests.take(Arrived(f"$JS.ACK.S.C.1.{sequence}.1.{time}.9"))
    except SessionError:
        return
    assert found is not None
    assert found.sequence >= 0


def test_a_message_that_does_not_fit_is_asked_for_alone() -> None:
    requests = Requests()
    asked = json.loads(requests.next())
    assert (asked["batch"], asked["max_bytes"]) == (BATCH, MAX_BYTES)
    reason = {"Description": "Message Size Exceeds MaxBytes"}
    requests.take(status("409", **reason, **{"Nats-Pending-Messages": str(BATCH)}))
    assert requests.are_low
    asked = json.loads(requests.next())
    assert (asked["batch"], "max_bytes" in asked) == (1, False)
    assert json.loads(requests.next())["batch"] == BATCH


@pytest.mark.parametrize(("count", "size"), [(2 * BATCH, 0), (3, 40 * 1024 * 1024)])
async def test_what_was_not_asked_for_ends_the_reading(count: int, size: int) -> None:
    queue = Queue()
    message = of_stream(1)
    message.data = bytes(size)
    for _ in range(count - 1):
        await queue.put(message)
    assert queue.take() is message
    await queue.put(message)
    assert queue.take() is message
    for _ in range(3):
        await queue.put(message)
    with pytest.raises(SessionError, match=r"^the broker sends what was not asked for$"):
        queue.take()
