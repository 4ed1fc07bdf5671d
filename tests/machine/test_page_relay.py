"""The page of a relay over three hosts that call each other: the map, the rows, and the line."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from ..browser import Tab
from .hosts import ADDRESSES, CALLED, CALLER, NAMES, Site
from .live import Agent
from .pages import Connected, Page, State, comparable, wait_until, wait_until_equal
from .roles import WORKERS

CLIENTS = 4
CHURN_SAMPLES, CHURN_CHANGES = 30, 100
# The lines of the map as drawn: both ends, each with its column, and the connections.
_LINES = """
(() => {
    const titles = [...document.querySelectorAll(".map-title:not([hidden])")]
        .map((title) => [parseFloat(title.style.left), title.textContent]);
    const boxes = new Map([...document.querySelectorAll(".map-box")].map((box) => {
        const x = parseFloat(box.style.transform.slice("translate(".length));
        const column = titles.find(([left]) => Math.abs(left - x) < 1)?.[1];
        const name = box.querySelector(".map-label").textContent.replace(/\\[\\d+\\]$/, "");
        return [box.dataset.id, [column, name]];
    }));
    return [...document.querySelectorAll(".map-line")].map((line) => {
        const { id } = line.dataset;
        const from = [...boxes].find(([end]) => id.startsWith(end + "\\0"));
        const to = [...boxes].find(([end]) => id.includes("\\0" + end + "\\0"));
        const count = line.querySelector("title").textContent.match(/: (\\d+) connection/)[1];
        return [...from[1], ...to[1], Number(count), line.classList.contains("is-dashed")];
    });
})()
"""
EPOCH = """
import("/assets/app.js").then(({{ app: {{ model }} }}) => model.state.hosts.get("{host}").epoch)
""".strip()
_TITLES = "[...document.querySelectorAll('.map-title:not([hidden])')].map((one) => one.innerText)"
_SILENT = """
[...document.querySelectorAll(".map-box.is-silent .map-label")]
    .map((label) => label.textContent.replace(/\\[\\d+\\]$/, ""))
"""
ENDS = {
    ("who calls", CALLER, "web", "nginx"), ("web", "nginx", "app", "gunicorn"),
    ("app", "gunicorn", "db", "postgres"),
}  # fmt: skip


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with ExitStack() as stack:
        site = Site(stack, tmp_path_factory.mktemp("site"))
        site.clients(CLIENTS)
        yield site


@pytest.fixture
def relay(site: Site) -> Iterator[Agent]:
    urls = [f"unix:{host.path}" for host in site.hosts.values()]
    words = [word for url in urls for word in ("--connect", url)]
    with Agent(*words, interval=None) as relay:
        yield relay


def open_page(tab: Tab, relay: Agent, query: str = "") -> Page:
    """Open the page of the relay; wait for the snapshots of all hosts."""
    page = Page(tab, relay.address).live(query)
    wait_until(
        lambda: sorted(host["host"] for host in page.hosts() if host["complete"]) == sorted(NAMES),
        page.hosts,
    )
    return page


def joined(rows: State) -> dict[tuple[str, str], set[tuple[object, ...]]]:
    """Return the connections between hosts that both ends report, by calling and called host."""
    found: dict[tuple[str, str], set[tuple[object, ...]]] = {}
    hosts = {address: name for name, address in ADDRESSES.items()}
    ends = {
        (one["host"], one["local_addr"], one["local_port"], one["remote_addr"], one["remote_port"])
        for one in rows.values()
        if one.get("proto") == "tcp" and one["remote_addr"]
    }
    for host, *end in ends:
        there = hosts.get(end[2])
        if there and end[3] == CALLED[there] and (there, *end[2:], *end[:2]) in ends:
            found.setdefault((host, there), set()).add(tuple(end))
    return found


def lines(page: Page) -> list[list[Any]]:
    found: list[list[Any]] = page.tab.evaluate(_LINES)
    return found


def wait_for_map(page: Page) -> list[list[Any]]:
    """Wait until the map has what the rows say, and nothing else; return its lines."""
    drawn: list[list[Any]] = []
    expected: list[list[Any]] = []

    def holds() -> bool:
        nonlocal drawn, expected
        counts = {pair: len(found) for pair, found in joined(page.state()["rows"]).items()}
        drawn = sorted(lines(page))
        expected = sorted([
            ["who calls", CALLER, "web", "nginx", CLIENTS, False],
            ["web", "nginx", "app", "gunicorn", counts.get(("web", "app"), 0), False],
            ["app", "gunicorn", "db", "postgres", counts.get(("app", "db"), 0), False],
        ])  # fmt: skip
        return drawn == expected and page.tab.evaluate(_TITLES) == [
            "who calls", *NAMES, "what they call"
        ]  # fmt: skip

    wait_until(holds, lambda: (drawn, expected, page.tab.evaluate(_TITLES)))
    return drawn


def changes(page: Page) -> int:
    return sum(host["seq"] for host in page.hosts())


def test_the_map_joins_the_processes_of_three_hosts(
    tab: Tab, site: Site, relay: Agent, tmp_path: Path
) -> None:
    tab.set_view(1280, 800)
    page = open_page(tab, relay, "?view=map")
    drawn = wait_for_map(page)
    by_ends = {tuple(line[:4]): line[4] for line in drawn}
    assert by_ends["app", "gunicorn", "db", "postgres"] == WORKERS
    assert by_ends["web", "nginx", "app", "gunicorn"] >= 1
    # Connections that come and go through all hosts add no line.
    with site.churn():
        before = changes(page)
        wait_until(lambda: changes(page) > before + CHURN_CHANGES, page.hosts)
        for _ in range(CHURN_SAMPLES):
            assert {tuple(line[:4]) for line in lines(page)} <= ENDS
            tab.evaluate("new Promise((done) => setTimeout(done, 100))")
    wait_for_map(page)
    directory = Path(os.environ.get("SOCKAGENT_SCREENSHOTS") or tmp_path)
    directory.mkdir(parents=True, exist_ok=True)
    tab.screenshot(directory / "map-relay-1280x800-light.png")
    page.check()


def wait_until_all_equal(page: Page, site: Site, relayed: Connected) -> None:
    """Wait until page, relay and agents have the same rows."""
    wait_until_equal(page, relayed)
    with ExitStack() as stack:
        agents = [stack.enter_context(Connected(f"unix:{host.path}"))
                  for host in site.hosts.values()]  # fmt: skip
        for agent in agents:
            agent.wait_for("snapshot_end")
        difference: object = None

        def are_equal() -> bool:
            nonlocal difference
            direct = {key: one for agent in agents for key, one in agent.state().items()}
            there, shown = relayed.state(), page.state()["rows"]
            difference = direct.keys() ^ there.keys(), direct.keys() ^ shown.keys()
            return all(
                {key: comparable(one) for key, one in direct.items()}
                == {key: comparable(one) for key, one in found.items()}
                for found in (there, shown)
            )

        wait_until(are_equal, lambda: difference)
        assert not relayed.problems
        assert not [agent.problems for agent in agents if agent.problems]


def test_the_rows_are_right_after_each_agent_and_the_relay_were_killed(
    tab: Tab, site: Site, relay: Agent
) -> None:
    page = open_page(tab, relay)
    assert "HOST" in page.text(".titles")
    with Connected(relay.address) as relayed:
        wait_until_all_equal(page, site, relayed)
        for host in site.hosts.values():
            ends = relayed.events.count("snapshot_end")
            epoch = tab.evaluate(EPOCH.format(host=host.name))
            with site.churn():
                host.kill_agent()
                tab.wait_for(f"{EPOCH.format(host=host.name)}.then((now) => now !== '{epoch}')")
                page.wait_for_text("#line-notice", "began anew")
                assert page.line() == "live"
            relayed.wait_for("snapshot_end", ends + 1)
            wait_until_all_equal(page, site, relayed)
        ends = relayed.events.count("snapshot_end")
        with site.churn():
            relay.crash()
            page.wait_for_line("cut off since")
            relay.start_again()
            page.wait_for_text("#line-notice", "resumed, nothing missed")
            page.wait_for_line("live")
        wait_until_all_equal(page, site, relayed)
        assert relayed.events.count("snapshot_end") == ends
    positions = tab.evaluate(
        'import("/assets/app.js").then(({ app: { model } }) => model.state.positions().length)'
    )
    assert positions == len(NAMES)
    assert sum("epoch=" in url and url.count("since=") == len(NAMES) for url in tab.sockets) >= 1
    page.check()


def test_a_host_that_is_cut_off_is_shown_as_silent(tab: Tab, site: Site, relay: Agent) -> None:
    page = open_page(tab, relay)
    silent = "[...document.querySelectorAll('.grid .row.silent')].map((row) => row.innerText)"
    with site.churn(), site.hosts["web"].without_agent():
        # The clock of the browser goes on by less than what makes the line itself stale, and the
        # other hosts report something, twice.
        for _ in range(2):
            heard = changes(page)
            tab.evaluate("{ const date = Date.now.bind(Date); Date.now = () => date() + 20000; }")
            wait_until(lambda: changes(page) > heard + 10, page.hosts)  # noqa: B023
        sentence = page.wait_for_text("#line-silent", "web: nothing since")
        assert re.fullmatch(r"web: nothing since \d\d:\d\d:\d\d", sentence)
        assert page.line() == "live"
        spoken = "document.getElementById('announcements').textContent"
        wait_until(lambda: sentence in tab.evaluate(spoken), lambda: tab.evaluate(spoken))
        tab.press("Home")
        rows = tab.wait_for(f"{silent}.length > 0 && {silent}")
        assert all("web" in row.split("\n") for row in rows)
        assert tab.evaluate("document.querySelectorAll('.grid .window .row').length") > len(rows)
        tab.press("4")
        tab.wait_for("document.querySelector('.map-box.is-silent') !== null")
        titles = ["who calls", "web (silent)", "app", "db", "what they call"]
        wait_until(lambda: tab.evaluate(_TITLES) == titles, lambda: tab.evaluate(_TITLES))
        names = set(tab.evaluate(_SILENT))
        assert "nginx" in names
        assert not names & {"gunicorn", "postgres"}
    wait_until(lambda: not page.text("#line-silent"), lambda: page.text("#line-silent"))
    tab.wait_for("!document.querySelector('.is-silent')")
    tab.press("1")
    tab.wait_for(f"{silent}.length === 0")
    page.check()


def test_the_filter_of_hosts(tab: Tab, site: Site, relay: Agent) -> None:
    page = open_page(tab, relay)
    tab.press("/")
    tab.insert("host=app,db")
    wait_until(lambda: {host["host"] for host in page.hosts()} == {"app", "db"}, page.hosts)
    page.wait_for_line("live")
    tab.evaluate("document.activeElement.select()")
    tab.insert("host!=app,db")
    wait_until(lambda: {host["host"] for host in page.hosts()} == {"web"}, page.hosts)
    state = page.wait_for_state(lambda state: state["rows"])
    assert {key[0] for key in state["rows"]} == {"web"}
    page.check()
