"""Where the user is, and the way back."""

from __future__ import annotations

from agent.publish.top.model import Grouping, GroupKey
from agent.publish.top.places import Place, View, Way

KEY = GroupKey(Grouping.PROCESS, "web1", None, 7, 70)


def test_the_way_back_leads_to_the_row_of_the_cursor() -> None:
    way = Way()
    first = way.place
    assert first == Place(View.GROUPS, Grouping.PROCESS)
    way.go(Place(View.SOCKETS, Grouping.PROCESS, KEY), KEY)
    way.go(Place(View.EVENTS, Grouping.PROCESS, KEY), None)
    assert way.back() is None
    assert way.place.view is View.SOCKETS
    assert way.back() == KEY
    assert way.place == first


def test_at_the_first_place_there_is_no_way_back() -> None:
    way = Way()
    assert way.back() is None
    assert way.place == Place(View.GROUPS, Grouping.PROCESS)


def test_the_groupings_come_round() -> None:
    way = Way()
    seen = [way.place.grouping]
    for _ in Grouping:
        way.go(Place(View.SOCKETS, way.place.grouping, KEY), KEY)
        way.regroup()
        assert way.place.view is View.GROUPS
        seen.append(way.place.grouping)
        assert way.back() is None
    assert seen == [*Grouping, Grouping.PROCESS]
