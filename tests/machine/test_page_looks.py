"""How the page looks and what assistive technology sees: pictures of all views, names, roles.

The pictures are kept in the directory that SOCKAGENT_SCREENSHOTS names.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from ..browser import Tab
from .helpers import Holder
from .live import Agent
from .pages import DETAILS, Page, wait_until

VIEWS = {"table": "1", "events": "2", "tree": "3", "map": "4"}
# What each view has many of.
ITEMS = {
    "table": "[role=gridcell]", "events": "[role=option]", "tree": "[role=treeitem]",
    "map": ".map-box",
}  # fmt: skip
SIZES = ((1280, 800), (390, 844))
CONTROLS = frozenset(
    {
        "button", "checkbox", "combobox", "grid", "link", "listbox", "menuitem", "option", "radio",
        "searchbox", "slider", "spinbutton", "switch", "tab", "textbox", "tree", "treegrid",
        "treeitem", "dialog",
    }
)  # fmt: skip
PAINTED = """
new Promise((done) =>
    setTimeout(() => requestAnimationFrame(() => requestAnimationFrame(done)), 300))
"""
LOW_CONTRAST = Path(__file__).with_name("contrast.js").read_text(encoding="utf-8")
OVERFLOW = "document.documentElement.scrollWidth - innerWidth"


@pytest.fixture(scope="module")
def sockets() -> Iterator[Holder]:
    """Processes with sockets of all kinds, some of them in CLOSE_WAIT."""
    with ExitStack() as stack:
        holders = [stack.enter_context(Holder()) for _ in range(3)]
        for holder in holders:
            holder.do("listeners = [tcp_listener(OWN) for _ in range(4)]")
            holder.do("pairs = [tcp_pair(listeners[0]) for _ in range(4)]")
            holder.do("rest = [*socket.socketpair(), socket.socket(type=socket.SOCK_DGRAM)]")
            holder.do("[client.close() for client, _server in pairs[:2]]")
        yield holders[0]


@pytest.fixture(scope="module")
def agent(sockets: Holder) -> Iterator[Agent]:
    with Agent() as agent:
        yield agent


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    directory = Path(os.environ.get("SOCKAGENT_SCREENSHOTS") or tmp_path)
    directory.mkdir(parents=True, exist_ok=True)
    return directory


@pytest.mark.parametrize("view", VIEWS)
def test_pictures_of_all_views(
    tab: Tab, agent: Agent, sockets: Holder, pictures: Path, view: str
) -> None:
    page = Page(tab, agent.address).live(f"?view={view}")
    sockets.do("late = [tcp_pair(listeners[1]) for _ in range(3)]; late.pop()[0].close()")
    page.wait_for_text(f"#view {ITEMS[view]}")
    for width, height in SIZES:
        for scheme in ("light", "dark"):
            tab.set_view(width, height, scheme)
            tab.evaluate(PAINTED)
            tab.screenshot(pictures / f"{view}-{width}x{height}-{scheme}.png")
            assert tab.evaluate(OVERFLOW) <= 0, (width, "the page is wider than the window")
            assert tab.evaluate(LOW_CONTRAST) == [], (width, scheme)
    page.check()


def test_pictures_of_details_help_and_cut_off(
    tab: Tab, agent: Agent, sockets: Holder, pictures: Path
) -> None:
    page = Page(tab, agent.address).live(f"?pid={sockets.pid}")
    page.wait_for_rows(3 + 1, 1_000_000)
    page.focus_on("grid", "sockets")
    tab.press("ArrowDown")
    tab.press("Enter")
    page.wait_for_text(DETAILS)
    for number, (width, height) in enumerate(SIZES):
        tab.set_view(width, height, ("light", "dark")[number])
        tab.evaluate(PAINTED)
        tab.screenshot(pictures / f"details-{width}x{height}.png")
        assert tab.evaluate(LOW_CONTRAST) == []
    tab.press("Escape")
    tab.press("?")
    page.wait_for_text("dialog")
    tab.evaluate(PAINTED)
    tab.screenshot(pictures / "help.png")
    assert tab.evaluate(OVERFLOW) <= 0
    tab.press("Escape")
    page.check()


@pytest.mark.parametrize("view", VIEWS)
def test_every_control_has_a_name(tab: Tab, agent: Agent, sockets: Holder, view: str) -> None:
    page = Page(tab, agent.address).live(f"?view={view}&pid={sockets.pid}")
    wait_until(lambda: page.text("#view"), page.line)
    tab.evaluate(PAINTED)
    nodes = tab.accessible()
    controls = [node for node in nodes if node.role in CONTROLS or node.properties.get("focusable")]
    assert len([node for node in controls if node.role == "button"]) >= 7
    assert not [node for node in controls if not node.name.strip()]
    assert [node.name for node in nodes if node.role == "RootWebArea"]
    assert [node for node in nodes if node.role == "main"]
    page.check()


def test_the_grid_counts_all_rows(tab: Tab, agent: Agent, sockets: Holder) -> None:
    sockets.do("many = [tcp_listener(OWN) for _ in range(300)]")
    page = Page(tab, agent.address).live(f"?pid={sockets.pid}&state=listen")
    page.wait_for_rows(304)
    page.focus_on("grid", "sockets")
    tab.press("End")
    index = "Number(document.querySelector('[aria-selected=true]').getAttribute('aria-rowindex'))"
    assert tab.evaluate(index) == 305  # The head is row 1.
    heads = [node for node in tab.accessible() if node.role == "columnheader"]
    assert len(heads) >= 9
    assert all(node.name for node in heads)
    sockets.do("many.clear()")
    page.check()


def test_both_ends_of_a_connection_are_joined(tab: Tab, agent: Agent, holder: Holder) -> None:
    with Holder() as other:
        other.do("listener = tcp_listener(OWN)")
        where = other.do("listener.getsockname()")
        holder.do(f"client = socket.create_connection({tuple(where)!r})")
        other.do("server = listener.accept()[0]")
        for one, name in ((holder, b"caller"), (other, b"called")):
            one.do(f"libc.prctl(15, {name!r})")  # PR_SET_NAME
        end = f":{where[1]}"
        page = Page(tab, agent.address).live(f"?pid={holder.pid},{other.pid}")
        page.wait_for_rows(3)
        wait_until(
            lambda: any(f"[{other.pid}]" in cell for row in page.shown_rows()
                        if str(holder.pid) in row for cell in row),
            page.shown_rows,
        )  # fmt: skip
        tab.press("4")
        shown = page.wait_for_text("#view", f"caller[{holder.pid}]", f"called[{other.pid}]", end)
        assert "not seen" not in shown
        tab.press("3")
        page.wait_for_text("#view", f"called[{other.pid}]")
    page.check()


def test_motion_can_be_switched_off(tab: Tab, agent: Agent) -> None:
    page = Page(tab, agent.address).live()
    tab.call(
        "Emulation.setEmulatedMedia",
        features=[{"name": "prefers-reduced-motion", "value": "reduce"}],
    )
    running = "document.getAnimations().filter((one) => one.playState === 'running').length"
    tab.press("4")
    assert tab.evaluate(running) == 0
    page.check()
