"""The delays that the bench of the relay measures, from what a subscriber receives."""

import pytest

from agent.publish.websocket.protocol import frame
from bench.delays import Delays

from ..feeding import AGENT, ONE, TWO
from ..relaying import Agent

# The time of the polls.
NOW = 1_700_000_100.0


def stream() -> bytes:
    """Return what a server sends of a snapshot, and of an open and a close."""
    agent = Agent(AGENT.host, AGENT.epoch)
    agent.poll(ONE)
    subscription = agent.feed.subscribe(wrap=frame)
    parts = list(iter(subscription.take, None))
    agent.poll(TWO)
    return b"".join((*parts, *iter(subscription.take, None)))


@pytest.mark.parametrize("size", [1, 7, 100, 100_000])
def test_changes_are_counted_with_their_delays(size: int) -> None:
    data, delays = stream(), Delays()
    delays.measures = True
    # The length of a message may have the byte of a newline.
    for begin in range(0, len(data), size):
        delays.take(data[begin : begin + size], NOW + 0.25)
    assert delays.snapshots == 1
    assert delays.summary() == {"records": 2, "lost": 0, "p50": 0.25, "p99": 0.25}


def test_a_newline_in_the_header_of_a_frame_is_no_record() -> None:
    record = b'{"event":"close","seq":1,"time":"2023-11-14T22:13:20.000Z"}\n'
    delays = Delays()
    delays.measures = True
    for _ in range(3):
        delays.take(b"\x81\x7e\x0a\x0a" + record, NOW)
    assert delays.summary()["records"] == 3


def test_nothing_is_counted_before_the_measurement() -> None:
    delays = Delays()
    delays.take(stream(), NOW)
    with pytest.raises(SystemExit):
        delays.summary()
