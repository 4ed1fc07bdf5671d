"""Recordings that are dropped on the page: whole ones, cut ones, and files that are none."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..browser import Tab
from .helpers import Holder, Record, run
from .live import Agent
from .pages import Page, save_records, wait_until

UNIX = 3
HELLO: Record = {
    "event": "hello", "schema": 1, "version": "0.1.0", "boot_id": None, "epoch": "e1",
    "interval": 1.0, "resumed": False, "complete": True, "processes": 1, "unreadable": 0,
    "netns": 1, "missing": [], "events": False, "events_off": "off",
}  # fmt: skip
ALL = "[...document.querySelectorAll('.table-foot .all input')].find((e) => e.checkVisibility())"


@pytest.fixture(scope="module")
def agent() -> Iterator[Agent]:
    with Agent() as agent:
        yield agent


@pytest.fixture
def snapshot(holder: Holder) -> list[Record]:
    """The records of a process that holds a connection, with both ends, and unix sockets."""
    holder.do("listener = tcp_listener(OWN); pair = tcp_pair(listener)")
    holder.do(f"many = [socket.socket(socket.AF_UNIX) for _ in range({UNIX})]")
    records = [json.loads(line) for line in run("--pid", str(holder.pid)).stdout.splitlines()]
    assert len(records) == 3 + UNIX
    return records


def as_stream(records: list[Record]) -> list[Record]:
    """Return records with what begins a stream."""
    return [{**{name: records[0][name] for name in ("seq", "time", "host")}, **HELLO}, *records]


def test_a_recording_that_ends_within_its_snapshot_is_shown_as_far_as_it_goes(
    tab: Tab, agent: Agent, snapshot: list[Record], tmp_path: Path
) -> None:
    path = save_records(tmp_path / "cut.ndjson", as_stream(snapshot))
    with path.open("a") as file:
        file.write('{"event":"snapshot","se')
    page = Page(tab, agent.address).live()
    tab.drop(path)
    page.wait_for_line("replay of cut.ndjson; it ends within a snapshot", "1 line is no record")
    page.wait_for_rows(3)
    tab.press("4")
    page.wait_for_text(".map-summary", "1 connection of 1 process")
    assert not page.text(".map-empty")
    page.check()


def test_a_recording_lists_other_sockets_on_demand(
    tab: Tab, agent: Agent, snapshot: list[Record], tmp_path: Path
) -> None:
    page = Page(tab, agent.address).live()
    tab.drop(save_records(tmp_path / "all.ndjson", snapshot))
    assert page.wait_for_line("replay") == "replay of all.ndjson"
    page.wait_for_rows(3)
    assert page.text(".not-shown") == f"Not shown: {UNIX} unix"
    tab.evaluate(f"{ALL}.click()")
    page.wait_for_rows(3 + UNIX)
    tab.evaluate(f"{ALL}.click()")
    page.wait_for_rows(3)
    # The field says why it takes no filter.
    tab.press("/")
    tab.type("nginx")
    assert tab.evaluate("document.activeElement.value") == ""
    assert "only an agent filters" in tab.evaluate("document.activeElement.placeholder")
    page.check()


def test_a_file_without_a_record_does_not_replace_the_live_view(
    tab: Tab, agent: Agent, holder: Holder, snapshot: list[Record], tmp_path: Path
) -> None:
    notes = tmp_path / "notes\u202e.txt"
    notes.write_text("no record\n" * 5)
    broken = tmp_path / "broken.ndjson.gz"
    broken.write_bytes(b"no gzip")
    page = Page(tab, agent.address).live(f"?pid={holder.pid}")
    page.wait_for_rows(len(snapshot))
    for path, why in ((notes, "it holds no record"), (broken, "it cannot be read")):
        tab.drop(path)
        name = path.name.replace("\u202e", r"\x{202e}")
        page.wait_for_text("#line-notice", f"{name} is no recording: {why}")
        assert page.line().startswith("live")
    holder.do("late = tcp_listener(OWN)")
    page.wait_for_rows(len(snapshot) + 1)
    # Nor does it replace a recording.
    tab.drop(save_records(tmp_path / "all.ndjson", snapshot))
    page.wait_for_line("replay of all.ndjson")
    tab.drop(notes)
    wait_until(lambda: "notes" in page.text("#line-notice"), lambda: page.text("#line-notice"))
    assert page.line() == "replay of all.ndjson"
    page.wait_for_rows(3)
    page.check()
