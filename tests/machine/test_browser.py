"""The driver of the browser sees what the tests of the page rely on."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..browser import Browser, Tab
from ..devtools import BrowserError
from .helpers import DEADLINE
from .site import Site

POLICY = "default-src 'none'; script-src 'self'; require-trusted-types-for 'script'"
PAGE = """<!doctype html><title>t</title><meta name="viewport" content="width=device-width">
<button aria-label="count" id="count">+</button><label>name <input id="name"></label>
<p id="out">0</p><img src="/img.png"><div style="color: red"></div>
<script src="/page.js"></script>"""
SCRIPT = """
const out = document.querySelector("#out");
document.querySelector("#count").onclick = () => { out.textContent = +out.textContent + 1; };
addEventListener("keydown", ({key}) => { out.dataset.keys = (out.dataset.keys ?? "") + key; });
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", async (event) => {
  event.preventDefault();
  out.textContent = await event.dataTransfer.files[0].text();
});
"""


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    pages = {"/": PAGE, "/page.js": SCRIPT, "/fails": "<script>throw new Error('here')</script>"}
    with Site(pages, {"Content-Security-Policy": POLICY}) as site:
        yield site


def test_what_the_policy_forbids_is_seen(tab: Tab, site: Site) -> None:
    tab.navigate(f"{site.url}/")
    assert f"{site.url}/page.js" in [one.url for one in tab.requests]
    with pytest.raises(BrowserError, match="TrustedHTML"):
        tab.evaluate("document.body.innerHTML = '<b>'")
    directives = ["img-src", "require-trusted-types-for", "style-src-attr"]
    end = time.monotonic() + DEADLINE
    while sorted(one.partition(":")[0] for one in tab.violations) != directives:
        assert time.monotonic() < end, tab.violations
        tab.take_events(0.05)


def test_errors_of_a_page_are_seen(tab: Tab) -> None:
    page = (
        "<script>console.error('broken', 1); console.log('fine'); throw new Error('here')</script>"
    )
    with Site({"/": page}) as site:
        tab.navigate(f"{site.url}/")
        assert [one.partition("\n")[0] for one in tab.errors] == ["broken 1", "Error: here"]
        assert tab.console == ["error: broken 1", "log: fine"]


def test_keys_clicks_and_names(tab: Tab, site: Site) -> None:
    tab.navigate(f"{site.url}/")
    tab.click("count", "button")
    assert tab.evaluate("out.textContent") == "1"
    tab.press("Enter")
    assert tab.evaluate("out.textContent") == "2"
    tab.press("Tab")
    focused = tab.focused()
    assert focused
    assert (focused.role, focused.name) == ("textbox", "name")
    tab.type("a b")
    tab.insert("ü")
    assert tab.evaluate("document.activeElement.value") == "a bü"
    tab.press("ArrowDown")
    assert tab.evaluate("out.dataset.keys") == "EnterTaba bArrowDown"
    assert ("button", "count") in tab.names()


def test_files_are_dropped(tab: Tab, site: Site, tmp_path: Path) -> None:
    dropped = tmp_path / "file.txt"
    dropped.write_text("content")
    tab.navigate(f"{site.url}/")
    tab.drop(dropped)
    tab.wait_for("out.textContent === 'content'")


def test_sizes_schemes_and_pictures(tab: Tab, site: Site, tmp_path: Path) -> None:
    tab.navigate(f"{site.url}/")
    tab.set_view(390, 844, "dark")
    dark = "matchMedia('(prefers-color-scheme: dark)').matches"
    assert tab.evaluate(f"[innerWidth, innerHeight, {dark}]") == [390, 844, True]
    tab.set_view(1280, 800)
    assert tab.evaluate(f"[innerWidth, innerHeight, {dark}]") == [1280, 800, False]
    tab.screenshot(tmp_path / "page.png")
    png = (tmp_path / "page.png").read_bytes()
    assert png[:4] == b"\x89PNG"
    assert (int.from_bytes(png[16:20]), int.from_bytes(png[20:24])) == (1280, 800)


def test_memory_that_is_kept_is_seen(tab: Tab, site: Site) -> None:
    tab.navigate(f"{site.url}/")
    before = tab.heap()
    tab.evaluate("window.kept = Array.from({length: 1e6}, (_, i) => i + 0.5); 1")
    assert tab.heap() - before > 7_000_000
    tab.evaluate("delete window.kept")
    assert tab.heap() - before < 1_000_000


def test_tabs_share_nothing(browser: Browser, site: Site) -> None:
    with browser.tab() as one, browser.tab() as other:
        for tab in (one, other):
            tab.navigate(f"{site.url}/")
        one.evaluate("localStorage.setItem('a', '1')")
        one.reload()
        read = "localStorage.getItem('a')"
        assert (one.evaluate(read), other.evaluate(read)) == ("1", None)


def test_values_failures_and_pages_that_are_not_there(tab: Tab) -> None:
    assert tab.evaluate("new Promise((done) => setTimeout(() => done({a: [1]}), 1))") == {"a": [1]}
    with pytest.raises(BrowserError, match="nothing"):
        tab.evaluate("nothing.there")
    with pytest.raises(BrowserError, match="never true"):
        tab.wait_for("false", 0)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(BrowserError, match="ERR_CONNECTION_REFUSED"):
        tab.navigate(f"http://127.0.0.1:{port}/")


def test_no_process_remains() -> None:
    with Browser() as browser, browser.tab():
        group = browser.process.pid
    with pytest.raises(ProcessLookupError):
        os.killpg(group, 0)
