"""The page in use: tokens, the search, the keyboard, saved files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from ..browser import Tab
from ..devtools import SHIFT
from .helpers import Holder, run
from .live import Agent
from .pages import DETAILS, Page, comparable, wait_until

TOKEN = "0123456789abcdef"


@pytest.fixture(scope="module")
def agent() -> Iterator[Agent]:
    with Agent() as agent:
        yield agent


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    """An agent that requires a token."""
    tokens = tmp_path_factory.mktemp("tokens") / "tokens"
    tokens.write_text(f"{TOKEN}\n")
    tokens.chmod(0o600)
    with Agent("--token-file", str(tokens)) as agent:
        yield agent


@pytest.fixture
def holding(holder: Holder) -> Holder:
    """A process that holds three listeners and one connection with both ends."""
    holder.do("listeners = [tcp_listener(OWN) for _ in range(3)]")
    holder.do("pair = tcp_pair(listeners[0])")
    return holder


def check_token_is_hidden(page: Page) -> None:
    """Check that the token is in no URL, and in no header but that of the subprotocol."""
    page.check()
    page.tab.take_events(0.2)
    for url in (*(one.url for one in page.tab.requests), *page.tab.sockets):
        assert TOKEN not in url
    assert TOKEN not in page.tab.evaluate("location.href + document.cookie + document.referrer")
    assert TOKEN not in page.tab.evaluate("JSON.stringify({...localStorage})")
    assert TOKEN not in page.tab.evaluate("document.documentElement.outerHTML")


# The token.


def test_the_form_takes_the_token(tab: Tab, guarded: Agent) -> None:
    page = Page(tab, guarded.address).open()
    page.wait_for_text("#token-form", "token")
    assert not page.text("#token-reason")
    focused = tab.focused()
    assert focused
    assert focused.role == "textbox"
    assert tab.evaluate("document.activeElement.type") == "password"
    tab.insert("wrong")
    tab.press("Enter")
    page.wait_for_text("#token-reason", "token")
    assert "wrong" not in page.text("body")
    tab.insert("with blanks (and more)")
    tab.press("Enter")
    wait_until(lambda: tab.evaluate("document.activeElement.value") == "", page.line)
    page.wait_for_text("#token-reason", "token")
    tab.insert(TOKEN)
    tab.press("Enter")
    page.wait_for_line("live")
    assert not page.text("#token-form")
    check_token_is_hidden(page)
    # This tab keeps it, and no other one gets it.
    tab.reload()
    page.wait_for_line("live")
    assert tab.evaluate("Object.values({...sessionStorage})") == [TOKEN]
    check_token_is_hidden(page)


def test_a_token_in_the_address_is_taken_and_removed(tab: Tab, guarded: Agent) -> None:
    page = Page(tab, guarded.address).open("?proto=tcp", f"#token={TOKEN}")
    page.wait_for_line("live")
    assert tab.evaluate("location.href") == f"{page.url}/?proto=tcp"
    assert tab.evaluate("history.length") == 2  # about:blank was first.
    tab.reload()
    page.wait_for_line("live")
    requested = [one.url for one in tab.requests if "#" in one.url or TOKEN in one.url]
    assert not requested
    check_token_is_hidden(page)


def test_a_wrong_token_in_the_address_leads_to_the_form(tab: Tab, guarded: Agent) -> None:
    page = Page(tab, guarded.address).open("", "#token=wrong")
    page.wait_for_text("#token-reason", "token")
    assert tab.evaluate("location.hash") == ""
    tab.insert(TOKEN)
    tab.press("Enter")
    page.wait_for_line("live")
    check_token_is_hidden(page)


# The search.


def test_a_wrong_filter_is_explained_and_a_right_one_applied(
    tab: Tab, agent: Agent, holding: Holder
) -> None:
    page = Page(tab, agent.address).live()
    page.wait_for_rows(5, 1_000_000)
    tab.press("/")
    tab.type("port=http")
    sentence = page.wait_for_text("#search-error", "http")
    assert tab.evaluate("location.search") == ""
    refused = run("port=http")
    assert sentence in refused.stderr.replace("argument ", "")
    # What was shown goes on.
    assert page.line().startswith("live")
    assert page.row_count() >= 5
    tab.evaluate("document.activeElement.select()")
    tab.insert(f"pid={holding.pid} state=listen")
    page.wait_for_rows(3)
    wait_until(lambda: not page.text("#search-error"), lambda: page.text("#search-error"))
    for row in page.shown_rows():
        assert "LISTEN" in row
        assert str(holding.pid) in row
    tab.evaluate("document.activeElement.select()")
    tab.insert(f"pid={holding.pid} state!=listen")
    page.wait_for_rows(2)
    tab.press("Escape")
    tab.evaluate("document.activeElement.blur()")
    page.check()


def test_the_view_is_in_the_address(tab: Tab, agent: Agent, holding: Holder) -> None:
    page = Page(tab, agent.address).live()
    tab.press("/")
    tab.insert(f"pid={holding.pid}  state=listen :1-65535")
    page.wait_for_rows(3)
    tab.evaluate("document.activeElement.blur()")
    tab.press("2")
    address = tab.evaluate("location.search")
    assert f"pid={holding.pid}" in address
    assert "view=events" in address
    tab.reload()
    page.wait_for_line("live")
    assert tab.evaluate("location.search") == address
    assert tab.evaluate("document.querySelector('#words').value").split() == [
        f"pid={holding.pid}", "state=listen", ":1-65535"
    ]  # fmt: skip
    assert tab.evaluate("document.querySelector('[aria-current=page]').dataset.view") == "events"
    page.wait_for_state(lambda state: len(state["rows"]) == 3)
    tab.evaluate("history.back()")
    wait_until(lambda: tab.evaluate("location.search") != address, lambda: address)
    page.wait_for_line("live")
    page.check()


@pytest.mark.parametrize(
    "query",
    [
        "?view=nothing&sort=nothing&columns=nothing,%3Cb%3E", "?" + quote("<img src=x>"), "?&&=&==",
        "?view=map&view=tree", "?pid=1&pid=2&columns=" + "x," * 500, "?%ff%fe=%00", "?sort=-",
        "?__proto__=1", "?recording",
    ],
)  # fmt: skip
def test_an_address_that_makes_no_sense(tab: Tab, agent: Agent, query: str) -> None:
    page = Page(tab, agent.address).open(query)
    wait_until(lambda: page.line() not in ("", "starting", "connecting"), page.line)
    page.check()


# The keyboard.


def test_the_keyboard_alone_leads_from_the_token_to_a_socket(
    tab: Tab, guarded: Agent, holding: Holder
) -> None:
    page = Page(tab, guarded.address).open()
    page.wait_for_text("#token-form", "token")
    tab.type(TOKEN)
    tab.press("Enter")
    page.wait_for_line("live")
    tab.press("/")
    tab.type(f"pid={holding.pid} state=listen")
    page.wait_for_rows(3)
    page.focus_on("grid", "sockets")
    tab.press("ArrowDown")
    tab.press("ArrowDown")
    active = "document.getElementById(document.activeElement.getAttribute('aria-activedescendant'))"
    assert tab.evaluate(f"{active}.getAttribute('aria-rowindex')") == "3"
    assert tab.evaluate(f"{active}.getAttribute('aria-selected')") == "true"
    selected = tab.evaluate(
        f"[...{active}.querySelectorAll('[role=gridcell]')].map((cell) => cell.innerText)"
    )
    tab.press("Enter")
    details = page.wait_for_text(DETAILS)
    end = next(cell for cell in selected if cell.startswith(holding.address))
    assert end in details
    assert str(holding.pid) in details
    tab.press("Escape")
    wait_until(lambda: not page.text(DETAILS), lambda: page.text(DETAILS))
    # Back from the grid, too.
    tab.evaluate("document.querySelector('[role=grid]').focus()")
    page.focus_on("textbox", tab.evaluate("words.labels[0].innerText"), most=60)
    check_token_is_hidden(page)


def test_keys_choose_views_pause_and_help(tab: Tab, agent: Agent) -> None:
    page = Page(tab, agent.address).live()
    shown = "document.querySelector('[aria-current=page]').dataset.view"
    for key, view in (("2", "events"), ("3", "tree"), ("4", "map"), ("1", "table")):
        tab.press(key)
        assert tab.evaluate(shown) == view
        wait_until(lambda: page.text("#view"), lambda: view)  # noqa: B023
    tab.press(" ")
    page.wait_for_line("paused")
    tab.press(" ")
    page.wait_for_line("live")
    tab.press("?", SHIFT)
    page.wait_for_text("dialog", "Keyboard")
    tab.press("2")
    assert tab.evaluate(shown) == "table"
    tab.press("Escape")
    wait_until(lambda: not page.text("dialog"), lambda: page.text("dialog"))
    # A digit in the search is text.
    tab.press("/")
    tab.press("2")
    assert tab.evaluate(shown) == "table"
    assert tab.evaluate("document.querySelector('#words').value") == "2"
    page.check()


# Files.


def test_what_is_saved_can_be_read_and_shows_the_same(
    tab: Tab, agent: Agent, holding: Holder, tmp_path: Path
) -> None:
    page = Page(tab, agent.address).live(f"?pid={holding.pid}")
    page.wait_for_state(lambda state: len(state["rows"]) == 5)
    holding.do("late = tcp_listener(OWN)")
    before = page.wait_for_state(lambda state: len(state["rows"]) == 6)["rows"]
    tab.save_to(tmp_path)
    tab.click("Save", "button")
    wait_until(lambda: list(tmp_path.glob("*.ndjson")), lambda: list(tmp_path.iterdir()))
    (saved,) = tmp_path.glob("*.ndjson")
    wait_until(lambda: saved.read_text().endswith("\n"), saved.read_text)
    read = run("--read", str(saved), "-o", "ndjson")
    assert not read.stderr
    records = [json.loads(line) for line in read.stdout.splitlines()]
    found = {(one["host"], one["pid"], one["inode"]) for one in records if "inode" in one}
    assert found >= before.keys()
    assert len(run("--read", str(saved), "-o", "pid", f":{port_of(holding)}").stdout.split()) == 1
    holding.end()
    page.wait_for_state(lambda state: not state["rows"])
    tab.drop(saved)
    page.wait_for_line("replay")
    after = page.wait_for_state(lambda state: len(state["rows"]) == 6)["rows"]
    assert {key: comparable(one) for key, one in after.items()} == {
        key: comparable(one) for key, one in before.items()
    }
    page.wait_for_rows(6)
    page.check()


def port_of(holder: Holder) -> int:
    return int(holder.do("listeners[0].getsockname()[1]"))


def test_a_recording_of_the_agent_is_replayed(
    tab: Tab, agent: Agent, holding: Holder, tmp_path: Path
) -> None:
    recording = tmp_path / "recording.ndjson"
    snapshot = run("--pid", str(holding.pid)).stdout
    recording.write_text(snapshot)
    page = Page(tab, agent.address).live()
    tab.drop(recording)
    page.wait_for_line("replay of recording.ndjson")
    page.wait_for_state(lambda state: len(state["rows"]) == 5)
    # Nothing more comes from the agent.
    holding.do("late = tcp_listener(OWN)")
    tab.evaluate("new Promise((done) => setTimeout(done, 300))")
    assert len(page.state()["rows"]) == 5
    page.check()
