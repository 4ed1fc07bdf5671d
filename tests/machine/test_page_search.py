"""The field of the filter: its keys, the address, and what is said where nothing matches."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from ..browser import Tab
from .helpers import Holder
from .live import Agent
from .pages import DETAILS, Page, wait_until

NOBODY = "pid=4194304"  # The greatest pid that can be is one less.
FOCUS = "document.activeElement.getAttribute('role') ?? document.activeElement.id"
WORDS = "document.getElementById('words').value"
SELECTED = "document.querySelector('.grid .row.selected')?.getAttribute('aria-rowindex') ?? null"


@pytest.fixture(scope="module")
def agent() -> Iterator[Agent]:
    with Agent() as agent:
        yield agent


@pytest.fixture
def holding(holder: Holder) -> Holder:
    """A process that holds three listeners."""
    holder.do("listeners = [tcp_listener(OWN) for _ in range(3)]")
    return holder


def address(tab: Tab) -> str:
    return str(tab.evaluate("location.search"))


@pytest.mark.usefixtures("holding")
def test_a_filter_that_matches_nothing_says_so(tab: Tab, agent: Agent) -> None:
    page = Page(tab, agent.address).live()
    page.wait_for_rows(3, 1_000_000)
    assert not page.text(".table-empty")
    tab.press("/")
    tab.insert(NOBODY)
    sentence = page.wait_for_text(".table-empty", NOBODY)
    assert re.fullmatch(
        rf"No socket matches {NOBODY}\. Clear the filter to see all [\d,]+\.", sentence
    )
    tab.click("Clear the filter", "button")
    page.wait_for_rows(3, 1_000_000)
    wait_until(lambda: not page.text(".table-empty"), lambda: page.text(".table-empty"))
    assert (address(tab), tab.evaluate(WORDS), tab.evaluate(FOCUS)) == ("", "", "grid")
    # Of a page that begins with a filter it is not known how many there are.
    page.live(f"?{NOBODY}")
    sentence = page.wait_for_text(".table-empty")
    assert sentence == f"No socket matches {NOBODY}. Clear the filter to see all."
    page.check()


def test_a_refused_filter_is_not_in_the_address(tab: Tab, agent: Agent, holding: Holder) -> None:
    page = Page(tab, agent.address).live(f"?pid={holding.pid}")
    tab.press("/")
    for key in (None, "Enter"):
        tab.evaluate("document.activeElement.select()")
        tab.insert("port=http")
        if key is not None:
            tab.press(key)
        page.wait_for_text("#search-error", "http")
        assert address(tab) == f"?pid={holding.pid}"
        assert page.row_count() == 3
    # Another view has neither the wrong words in its address, nor takes them out of the field.
    tab.press("2")
    assert address(tab) == f"?pid={holding.pid}&view=events"
    assert tab.evaluate(WORDS) == "port=http"
    page.open("?port=http")
    page.wait_for_line("refused")
    page.wait_for_text("#search-error", "http")
    assert (address(tab), tab.evaluate(WORDS)) == ("", "port=http")
    tab.press("/")
    tab.press("Escape")
    page.wait_for_line("live")
    tab.insert(f"pid={holding.pid}")
    page.wait_for_rows(3)
    wait_until(lambda: address(tab) == f"?pid={holding.pid}", lambda: address(tab))
    page.check()


def test_enter_applies_the_filter_and_goes_to_the_grid(
    tab: Tab, agent: Agent, holding: Holder
) -> None:
    page = Page(tab, agent.address).live()
    entries = tab.evaluate("history.length")
    tab.press("/")
    # Typing alone applies nothing now.
    tab.evaluate("{ const later = setTimeout; window.setTimeout = (f, ms) => later(f, ms * 1e3); }")
    tab.insert(f"pid={holding.pid}")
    tab.press("Enter")
    assert tab.evaluate(FOCUS) == "grid"
    page.wait_for_rows(3)
    assert address(tab) == f"?pid={holding.pid}"
    assert tab.evaluate("history.length") == entries + 1
    tab.press("ArrowDown")
    assert tab.evaluate(SELECTED) == "2"
    for key, role in (("3", "tree"), ("2", "listbox")):
        tab.press(key)
        tab.press("/")
        tab.press("Enter")
        assert tab.evaluate(FOCUS) == role
    page.check()


def test_esc_clears_the_field_and_then_leaves_it(tab: Tab, agent: Agent, holding: Holder) -> None:
    page = Page(tab, agent.address).live(f"?pid={holding.pid}")
    page.wait_for_rows(3)
    tab.press("ArrowDown")
    tab.press("Enter")
    page.wait_for_text(DETAILS)
    tab.press("/")
    tab.press("Escape")
    assert (tab.evaluate(WORDS), tab.evaluate(FOCUS)) == ("", "words")
    assert page.text(DETAILS)
    page.wait_for_rows(4, 1_000_000)
    wait_until(lambda: address(tab) == "", lambda: address(tab))
    tab.press("Escape")
    assert tab.evaluate(FOCUS) == "grid"
    assert page.text(DETAILS)
    tab.press("Escape")
    wait_until(lambda: not page.text(DETAILS), lambda: page.text(DETAILS))
    page.check()


def test_arrows_move_the_selection_unless_a_field_has_the_focus(
    tab: Tab, agent: Agent, holding: Holder
) -> None:
    page = Page(tab, agent.address).live(f"?pid={holding.pid}")
    page.wait_for_rows(3)
    assert tab.evaluate("document.activeElement === document.body")
    for key, row in (("ArrowDown", "2"), ("ArrowDown", "3"), ("ArrowUp", "2")):
        tab.press(key)
        assert tab.evaluate(SELECTED) == row
    tab.evaluate("document.getElementById('pause').focus()")
    tab.press("ArrowDown")
    assert (tab.evaluate(SELECTED), tab.evaluate(FOCUS)) == ("3", "grid")
    tab.press("/")
    tab.press("ArrowUp")
    assert (tab.evaluate(SELECTED), tab.evaluate(FOCUS)) == ("3", "words")
    for key, role in (("3", "tree"), ("2", "listbox")):
        tab.press(key)
        tab.evaluate("document.activeElement.blur()")
        tab.press(key)
        tab.press("ArrowDown")
        assert tab.evaluate(FOCUS) == role
    page.check()
