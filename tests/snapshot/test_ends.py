"""Destroy notices and trace events of the same sockets."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.kernel.netlink.destroy import DestroyNotice
from agent.kernel.trace.connections import Endpoints, Finished
from agent.snapshot import ends
from agent.snapshot.ends import EVENT_SECONDS, NOTICE_SECONDS, End, EndCounts, EndMatcher

NETNS = 5
ENDS = Endpoints(2, bytes(16), 80, bytes(16), 4000)


def notice(cookie: int, proto: str = "tcp") -> DestroyNotice:
    return DestroyNotice(cookie, proto, b"row")


def event(cookie: int) -> Finished:
    return Finished(cookie, ENDS, None, None, None, None, 1, False)


class Matcher:
    """A matcher at a time of its own."""

    def __init__(self) -> None:
        self.matcher = EndMatcher()
        self.now = 1000.0
        self.has_events = self.has_notices = True
        self.are_late = False

    def match(
        self, notices: tuple[int, ...] = (), events: tuple[int, ...] = (), *, after: float = 0
    ) -> list[End]:
        self.now += after
        return self.matcher.match(
            {NETNS: [notice(cookie) for cookie in notices]} if notices else {},
            [event(cookie) for cookie in events],
            self.now,
            has_events=self.has_events,
            has_notices=self.has_notices,
            are_late=self.are_late,
        )


BOTH = End(NETNS, notice(7), event(7))
NOTICE_ALONE = End(NETNS, notice(7), None)
EVENT_ALONE = End(None, None, event(7))


@pytest.fixture
def matcher() -> Matcher:
    return Matcher()


def test_an_event_and_its_notice_are_one_end(matcher: Matcher) -> None:
    assert matcher.match((7,), (7,)) == [BOTH]
    assert matcher.match(after=9) == []
    assert matcher.matcher.counts == EndCounts(1, 1)


def test_an_event_waits_for_its_notice(matcher: Matcher) -> None:
    assert matcher.match(events=(7,)) == []
    assert not matcher.matcher.is_waiting  # The next notice or poll is soon enough.
    assert matcher.match((7,), after=NOTICE_SECONDS / 2) == [BOTH]


def test_a_notice_waits_for_its_event(matcher: Matcher) -> None:
    assert matcher.match((7,)) == []
    states = [matcher.matcher.is_waiting]
    assert matcher.match(events=(7,), after=EVENT_SECONDS / 2) == [BOTH]
    states.append(matcher.matcher.is_waiting)
    assert states == [True, False]
    assert matcher.matcher.counts == EndCounts(1, 1)


def test_a_notice_waits_longer_while_the_reading_of_events_is_late(matcher: Matcher) -> None:
    matcher.are_late = True
    assert matcher.match((7,)) == []
    assert matcher.match(after=2 * EVENT_SECONDS) == []
    matcher.are_late = False
    assert matcher.match(events=(7,)) == [BOTH]


def test_an_event_without_a_notice_is_reported_later(matcher: Matcher) -> None:
    matcher.match(events=(7,))
    assert matcher.match(after=NOTICE_SECONDS - 0.1) == []
    assert matcher.match(after=0.2) == [EVENT_ALONE]
    assert matcher.matcher.counts == EndCounts(0, 0)


def test_a_notice_without_an_event_is_reported_later(matcher: Matcher) -> None:
    matcher.match((7,))
    assert matcher.match(after=EVENT_SECONDS / 2) == []
    assert matcher.match(after=2 * EVENT_SECONDS) == [NOTICE_ALONE]
    assert matcher.matcher.counts == EndCounts(1, 0)


def test_a_late_notice_is_counted_but_its_socket_not_reported_again(matcher: Matcher) -> None:
    matcher.match(events=(7,))
    assert matcher.match(after=NOTICE_SECONDS) == [EVENT_ALONE]
    assert matcher.match((7,)) == []
    assert matcher.match(after=9) == []
    assert matcher.matcher.counts == EndCounts(1, 1)


def test_a_late_event_is_counted_but_its_socket_not_reported_again(matcher: Matcher) -> None:
    matcher.match((7,))
    assert matcher.match(after=2 * EVENT_SECONDS) == [NOTICE_ALONE]
    assert matcher.match(events=(7,)) == []
    assert matcher.match(after=9) == []
    assert matcher.matcher.counts == EndCounts(1, 1)


def test_an_event_that_waited_when_reading_stopped_is_matched(matcher: Matcher) -> None:
    matcher.match(events=(7,))
    matcher.has_events = False
    assert matcher.match((7,)) == [BOTH]
    assert matcher.match(after=9) == []


def test_without_events_notices_do_not_wait(matcher: Matcher) -> None:
    matcher.has_events = False
    assert matcher.match((7,)) == [NOTICE_ALONE]
    assert matcher.matcher.counts == EndCounts(0, 0)


def test_without_notices_events_do_not_wait(matcher: Matcher) -> None:
    matcher.has_notices = False
    assert matcher.match(events=(7,)) == [EVENT_ALONE]


def test_notices_of_udp_do_not_wait(matcher: Matcher) -> None:
    other = notice(7, "udp")
    found = matcher.matcher.match({NETNS: [other]}, (), 0, has_events=True, has_notices=True)
    assert found == [End(NETNS, other, None)]
    assert matcher.matcher.counts == EndCounts(0, 0)


def test_the_notice_shows_the_namespace(matcher: Matcher) -> None:
    """Connections in two namespaces may have the same ends; their cookies differ."""
    notices = {5: [notice(7)], 6: [notice(8)]}
    found = matcher.matcher.match(
        notices, [event(8), event(7)], 0, has_events=True, has_notices=True
    )
    assert {one.netns: one.finished and one.finished.cookie for one in found} == {5: 7, 6: 8}


cookies = st.integers(1, 30)
some = st.lists(cookies, max_size=4).map(tuple)
steps = st.lists(
    st.tuples(st.sampled_from([0.0, 0.01, EVENT_SECONDS, 1.0, NOTICE_SECONDS]), some, some,
              st.integers(0, 9).map(bool)),
    max_size=25,
)  # fmt: skip


@given(steps)
def test_every_socket_is_reported_once(
    steps: list[tuple[float, tuple[int, ...], tuple[int, ...], bool]],
) -> None:
    matcher = Matcher()
    noticed: dict[int, tuple[float, bool]] = {}
    finished: dict[int, tuple[float, bool]] = {}
    found: list[End] = []
    for after, notices, events, has_events in steps:
        matcher.has_events = has_events
        new_notices = tuple(one for one in dict.fromkeys(notices) if one not in noticed)
        new_events = tuple(one for one in dict.fromkeys(events) if one not in finished)
        # Where no events are read, none arrives later either.
        unread = [one for one, (_at, reading) in noticed.items() if not reading]
        new_events = tuple(one for one in new_events if has_events and one not in unread)
        found += matcher.match(new_notices, new_events, after=after)
        noticed |= dict.fromkeys(new_notices, (matcher.now, has_events))
        finished |= dict.fromkeys(new_events, (matcher.now, has_events))
    matcher.has_events = True
    found += matcher.match(after=9)
    reported: Counter[int] = Counter()
    for end in found:
        parts = [one for one in (end.notice, end.finished) if one is not None]
        assert len({one.cookie for one in parts}) == 1
        reported[parts[0].cookie] += 1
        if len(parts) == 2:
            assert end.netns == NETNS
    assert reported == Counter(dict.fromkeys(noticed.keys() | finished.keys(), 1))
    both = {end.notice.cookie for end in found if end.notice and end.finished}
    for cookie in noticed.keys() & finished.keys():
        wait = noticed[cookie][0] - finished[cookie][0]
        is_waiting = noticed[cookie][1] or wait >= 0
        if is_waiting and -EVENT_SECONDS < wait < NOTICE_SECONDS:
            assert cookie in both
    while_reading = {one for one, (_at, reading) in noticed.items() if reading}
    counts = matcher.matcher.counts
    assert counts.with_events <= counts.notices
    assert len(while_reading) <= counts.notices <= len(noticed)
    if while_reading == noticed.keys():
        assert counts == EndCounts(len(noticed), len(noticed.keys() & finished.keys()))


def test_what_waits_is_bounded(monkeypatch: pytest.MonkeyPatch, matcher: Matcher) -> None:
    monkeypatch.setattr(ends, "MAX_WAITING", 10)
    monkeypatch.setattr(ends, "MAX_REPORTED", 20)
    found = []
    for number in range(100):
        found += matcher.match((1000 + number,), (2000 + number,))
        inner = matcher.matcher
        assert len(inner._finished) <= 10
        assert len(inner._notices) <= 10
        assert len(inner._reported) <= 20
    told = [one.notice or one.finished for one in found]
    assert [one.cookie for one in told if one and one.cookie < 2000] == list(range(1000, 1090))
    assert [one.cookie for one in told if one and one.cookie >= 2000] == list(range(2000, 2090))
