"""The order that is held still."""

from __future__ import annotations

from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from agent.publish.top.order import HOLD_SECONDS, Order


class Item(NamedTuple):
    key: str
    rate: float | None


def arranged(order: Order, now: float, *, descending: bool = True, **rates: float | None) -> str:
    rows = [Item(key, rate) for key, rate in rates.items()]
    found = order.arrange(rows, lambda row: row.rate, now, descending=descending)
    return "".join(row.key for row in found)


def test_rows_are_sorted_and_unknown_values_come_last() -> None:
    assert arranged(Order(), 0.0, a=1, b=None, c=3) == "cab"
    assert arranged(Order(), 0.0, descending=False, a=1, b=None, c=3) == "acb"


def test_the_order_changes_every_two_seconds_at_most() -> None:
    order = Order()
    assert arranged(order, 10.0, a=1, b=2) == "ba"
    assert arranged(order, 11.9, a=3, b=2) == "ba"
    assert arranged(order, 12.0, a=3, b=2) == "ab"


def test_the_order_is_held_after_a_key() -> None:
    order = Order()
    assert arranged(order, 10.0, a=1, b=2) == "ba"
    order.touch(11.5)
    assert order.held(12.0) == 1.5
    assert arranged(order, 12.0, a=3, b=2) == "ba"
    assert arranged(order, 13.5, a=3, b=2) == "ab"


def test_another_column_sorts_at_once() -> None:
    order = Order()
    assert arranged(order, 10.0, a=1, b=2) == "ba"
    order.touch(10.5)
    order.renew()
    assert arranged(order, 10.5, descending=False, a=1, b=2) == "ab"


def test_while_it_is_held_new_rows_are_at_the_end_and_others_move_up() -> None:
    order = Order()
    assert arranged(order, 10.0, a=1, b=2, c=3) == "cba"
    assert arranged(order, 11.0, a=1, c=3, d=9) == "cad"


def test_equal_rows_keep_their_places() -> None:
    order = Order()
    assert arranged(order, 10.0, a=1, b=2) == "ba"
    assert arranged(order, 20.0, a=2, b=2) == "ba"


def test_a_clock_that_is_set_back_holds_nothing() -> None:
    order = Order()
    assert arranged(order, 1000.0, a=1, b=2) == "ba"
    assert arranged(order, 10.0, a=3, b=2) == "ab"


rates = st.dictionaries(st.sampled_from("abcdef"), st.none() | st.integers(0, 3), max_size=6)
steps = st.tuples(rates, st.floats(0, 3), st.booleans())


@given(st.lists(steps, max_size=12), st.booleans())
def test_rows_are_neither_lost_nor_repeated_and_held_ones_stand_still(
    steps: list[tuple[dict[str, int | None], float, bool]], descending: bool
) -> None:
    order, now, before = Order(), 0.0, ""
    since = float("-inf")
    for values, seconds, is_key in steps:
        now += seconds
        if is_key:
            order.touch(now)
            since = now
        is_held = order.held(now) > 0
        after = arranged(order, now, descending=descending, **values)
        assert sorted(after) == sorted(values)
        if is_held:
            stay = [key for key in before if key in values]
            assert after.startswith("".join(stay))
        else:
            assert now - since >= HOLD_SECONDS
        before = after
