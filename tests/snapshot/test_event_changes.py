"""What events show between two snapshots, and ends of sockets that are in no table."""

import time
from collections import Counter

import pytest

from agent.kernel.trace.connections import CONNECT, SERVER, Endpoints, Finished
from agent.model import Holding, Owner, SocketEnd, TcpFigures
from agent.snapshot.attribution import Attribution
from agent.snapshot.event_changes import (
    CLOCK_NOISE_SECONDS,
    EventChanges,
    Taken,
    without_unlisted,
)
from agent.snapshot.holders import Holders
from agent.snapshot.holding import HoldingBuilder
from agent.snapshot.reading import Ended, EndedSocket

from ..make import tcp

PEERLESS = EndedSocket(tcp(0, "CLOSE"))
CONNECTED = EndedSocket(tcp(0, "ESTABLISHED", remote_addr="127.0.0.1", remote_port=80))
UDP = EndedSocket(PEERLESS.socket._replace(proto="udp"))


def test_the_end_of_a_bound_socket_that_is_gone_is_not_reported_again() -> None:
    ended = [PEERLESS, CONNECTED, PEERLESS]
    assert without_unlisted(ended, Counter({"tcp": 1})) == [CONNECTED, PEERLESS]


def test_the_end_of_a_udp_socket_is_always_reported() -> None:
    assert without_unlisted([UDP], Counter({"udp": 1, "tcp": 1})) == [UDP]


SECOND = 10**9
FIGURES = TcpFigures(1, 2, 3, 4, 5, 0.5)
NOTHING = Ended({}, [])


class Clock:
    """A clock that is set to another time by ``offset`` seconds."""

    def __init__(self) -> None:
        self.offset = 0.0

    def __call__(self) -> float:
        return time.time() + self.offset


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def changes(clock: Clock) -> EventChanges:
    builder = HoldingBuilder(lambda uid: Owner(uid, None))
    attribution = Attribution(Holders(), builder, None, float, lambda _socket: ())
    return EventChanges(attribution, clock)


def finished(opened: int | None, closed: int) -> Finished:
    ends = Endpoints(2, bytes(16), 80, bytes(16), 4000)
    return Finished(7, ends, SERVER, None, CONNECT, opened, closed, exited=False)


def test_what_was_taken_is_not_taken_again(changes: EventChanges) -> None:
    changes.add_holdings([Holding(CONNECTED.socket, None, (), None)])
    changes.add_times({11: SECOND})
    assert changes.has_short_lived
    taken = changes.take()
    assert len(taken.short_lived) == len(taken.event_times) == 1
    assert changes.take() == Taken((), {}, {})
    assert not changes.has_short_lived


def test_times_are_those_of_the_wall_clock(changes: EventChanges, clock: Clock) -> None:
    changes.add_ended(NOTHING, [])
    booted = clock() - time.clock_gettime(time.CLOCK_BOOTTIME)
    changes.add_times({11: 5 * SECOND})
    assert changes.take().event_times[11] == pytest.approx(booted + 5, abs=0.5)


def test_a_time_is_converted_alike_until_the_clock_is_set(
    changes: EventChanges, clock: Clock
) -> None:
    found = []
    for offset in (0.0, CLOCK_NOISE_SECONDS / 4, -CLOCK_NOISE_SECONDS / 4, 100.0):
        clock.offset = offset
        changes.add_ended(NOTHING, [])
        changes.add_times({11: SECOND})
        found.append(changes.take().event_times[11])
    assert found[3] - found[0] == pytest.approx(100, abs=0.5)
    # The machine may be so busy that reading both clocks takes longer than the noise allowed for.
    assert max(found[:3]) - min(found[:3]) < 0.5


def test_a_socket_that_was_published_ends_with_its_time_and_figures(changes: EventChanges) -> None:
    listed = {11: EndedSocket(CONNECTED.socket, finished(SECOND, 3 * SECOND), FIGURES)}
    changes.add_ended(Ended(listed, []), [])
    changes.add_times({11: 3 * SECOND})
    taken = changes.take()
    assert taken.ended == {11: SocketEnd(taken.event_times[11], FIGURES)}
    assert taken.short_lived == ()


@pytest.mark.parametrize("opened", [None, SECOND])
def test_without_its_beginning_an_end_has_no_time_of_its_own(
    changes: EventChanges, opened: int | None
) -> None:
    changes.add_short_lived([EndedSocket(CONNECTED.socket, finished(opened, 3 * SECOND), FIGURES)])
    (one,) = changes.take().short_lived
    assert (one.opened is None) == (one.end.time is None) == (opened is None)
    assert one.end.figures == FIGURES


def test_the_reason_is_not_that_of_the_process_that_opened_the_socket(
    changes: EventChanges,
) -> None:
    one = EndedSocket(CONNECTED.socket, finished(SECOND, 3 * SECOND))
    holding = Holding(CONNECTED.socket, None, (3,), None)
    changes.add_ended(Ended({11: one}, []), [(one, holding)])
    (found,) = changes.take().short_lived
    assert (found.holding, found.reason) == (holding, None)
