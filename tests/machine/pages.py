"""The page of an agent in a tab, and a ``sockagent --connect`` beside it to compare it with."""

from __future__ import annotations

import json
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

from ..browser import Tab
from ..devtools import BrowserError
from ..feeding import UNTRACKED
from .helpers import COMMAND, Record

# A browser on a loaded machine is slow.
SECONDS = 60.0
Key = tuple[str, int | None, int]
State = dict[Key, Record]

_STATE = """
import("/assets/app.js").then(({ app: { model: { state } } }) => ({
    violations: state.violations,
    counts: state.counts,
    rows: [...state.rows.values()].map(({ key, record }) => ({ key, record })),
}))
"""
# Without the rows, of which there may be many.
_HOSTS = """
import("/assets/app.js").then(({ app: { model: { state } } }) =>
    [...state.hosts.values()].map(({ host, seq, complete, lost }) =>
        ({ host, seq, complete, lost, rows: state.rows.size })))
"""
# Elements that no text of a record may become, and none that the page has.
_FOREIGN = """
[...document.querySelectorAll("img, iframe, object, embed, base, meta[http-equiv], style,"
    + "link:not([rel=icon]):not([rel=stylesheet]), [onerror], [onload], [onclick], form[action],"
    + "script:not([src^='/assets/']), a[href^='javascript' i], a[href^='data' i]")]
    .map((element) => element.outerHTML)
"""
DETAILS = "[aria-label=Details]"


def wait_until(holds: Callable[[], object], why: Callable[[], object]) -> None:
    """Wait until a condition holds; ``why`` tells what holds instead."""
    end = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < end, why()
        time.sleep(0.05)


def comparable(record: Record) -> Record:
    """Return a record without the fields that differ between equal states."""
    return {name: value for name, value in record.items() if name not in UNTRACKED}


class Page:
    """The page at an address."""

    def __init__(self, tab: Tab, address: str) -> None:
        self.tab = tab
        self.url = f"http://{address}"

    def open(self, query: str = "", fragment: str = "") -> Self:
        """Load the page."""
        self.tab.navigate(f"{self.url}/{query}{fragment}")
        return self

    def live(self, query: str = "") -> Self:
        """Load the page, and wait for the end of the snapshot."""
        self.open(query)
        self.wait_for_line("live")
        wait_until(lambda: any(host["complete"] for host in self.hosts()), self.line)
        return self

    # What it shows.

    def text(self, selector: str) -> str:
        """Return the text of an element; empty if it is hidden or missing."""
        return str(self.tab.evaluate(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)});"
            " return e?.checkVisibility() ? e.innerText.trim() : ''; })()"
        ))  # fmt: skip

    def line(self) -> str:
        """Return the state of the line."""
        return self.text("#line-text")

    def wait_for_text(self, selector: str, *parts: str) -> str:
        """Wait until an element has a text with these parts; return it."""
        shown = ""

        def holds() -> bool:
            nonlocal shown
            shown = self.text(selector)
            return bool(shown) and all(part in shown for part in parts)

        wait_until(
            holds, lambda: (selector, parts, shown, self.line(), self.tab.errors, self.tab.log)
        )
        return shown

    def wait_for_line(self, *parts: str) -> str:
        """Wait until the state of the line has these parts; return it."""
        return self.wait_for_text("#line-text", *parts)

    def shown_rows(self) -> list[list[str]]:
        """Return the cells of the rows of the table that are in view."""
        found: list[list[str]] = self.tab.evaluate("""
            [...document.querySelectorAll("#view [role=row]")]
                .filter((row) => row.checkVisibility() && row.querySelector("[role=gridcell]"))
                .map((row) => [...row.querySelectorAll("[role=gridcell]")]
                    .map((cell) => cell.innerText))
        """)
        return found

    def wait_for_rows(self, least: int, most: int | None = None) -> None:
        """Wait until the table has so many rows, in view or not."""
        wait_until(
            lambda: least <= self.row_count() <= (least if most is None else most),
            lambda: (self.row_count(), self.line(), self.tab.errors),
        )

    def row_count(self) -> int:
        """Return how many rows the table has, in view or not."""
        return int(self.tab.evaluate(
            "Number(document.querySelector('[role=grid]').getAttribute('aria-rowcount')) - 1"
        ))  # fmt: skip

    # What it holds.

    def state(self) -> dict[str, Any]:
        """Return the state that the records led to, with its rows by key."""
        found: dict[str, Any] = self.tab.evaluate(_STATE)
        rows: State = {}
        for row in found["rows"]:
            record = row["record"]
            key = record["host"], record["pid"], record["inode"]
            # JavaScript has no null in a key, and separates its parts by NUL.
            assert row["key"] == "\0".join("" if one is None else str(one) for one in key)
            assert key not in rows
            rows[key] = record
        return {**found, "rows": rows}

    def hosts(self) -> list[dict[str, Any]]:
        """Return what is known of the hosts, and how many rows all of them have."""
        found: list[dict[str, Any]] = self.tab.evaluate(_HOSTS)
        return found

    def wait_for_state(self, holds: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
        """Wait until the state fulfils a condition; return it."""
        found: dict[str, Any] = {}

        def fulfilled() -> object:
            nonlocal found
            found = self.state()
            return holds(found)

        wait_until(fulfilled, lambda: {**found, "rows": len(found.get("rows", ()))})
        return found

    # What it must not do.

    def check(self) -> None:
        """Check that there was no error, no violation of the policy, and no foreign request."""
        self.tab.take_events(0.1)
        assert self.tab.evaluate(_FOREIGN) == []
        assert not self.tab.errors
        assert not self.tab.violations
        own = (f"{self.url}/", f"ws{self.url.removeprefix('http')}/events", "blob:")
        urls = [*(one.url for one in self.tab.requests), *self.tab.sockets]
        assert urls
        assert not [url for url in urls if not url.startswith(own)]

    def focus_on(self, role: str, name: str, key: str = "Tab", most: int = 60) -> None:
        """Press a key until an element has the focus."""
        seen = []
        for _ in range(most):
            focused = self.tab.focused()
            if focused and (focused.role, focused.name) == (role, name):
                return
            seen.append(focused and (focused.role, focused.name))
            self.tab.press(key)
        raise BrowserError(f"{role} {name!r} cannot be reached; the focus went {seen}")


class Connected:
    """``sockagent --connect`` to an agent: what its records lead to."""

    def __init__(self, address: str, *arguments: str) -> None:
        self.rows: State = {}
        self.events: list[str] = []
        self.problems: list[str] = []
        self._arriving: dict[str, State] = {}  # Snapshots that have not ended, by host.
        self._lock = threading.Lock()
        url = address if address.startswith("unix:") else f"ws://{address}"
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 (closed at exit)
        self.process = subprocess.Popen(
            (*COMMAND, "--connect", url, *arguments),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self._stderr,
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_raised: object) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join()
        assert self.process.stdout
        self.process.stdout.close()
        self._stderr.close()

    def state(self) -> State:
        """Return the state, by host, pid and inode."""
        with self._lock:
            return dict(self.rows)

    def wait_for(self, event: str, count: int = 1) -> None:
        """Wait until so many records of an event came."""
        wait_until(lambda: self.events.count(event) >= count, lambda: self.events[-10:])

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            if not line.endswith(b"\n"):  # The process was killed.
                return
            record = json.loads(line)
            with self._lock:
                self._apply(record)
                self.events.append(record["event"])

    def _apply(self, record: Record) -> None:
        event, host = record["event"], record["host"]
        if event == "lost" or (event == "hello" and not record["resumed"]):
            self._arriving[host] = {}
        elif event == "snapshot_end":
            rest = {key: one for key, one in self.rows.items() if key[0] != host}
            self.rows = rest | self._arriving.pop(host)
        elif event in ("snapshot", "open", "update", "close"):
            key = host, record["pid"], record["inode"]
            rows = self._arriving.get(host) if event == "snapshot" else self.rows
            if rows is None or (key in rows) != (event in ("update", "close")):
                self.problems.append(f"{event} of {key}")
            elif event == "close":
                del rows[key]
            else:
                rows[key] = record


def wait_until_equal(page: Page, connected: Connected, least: int = 1) -> State:
    """Wait until the page has the rows of ``--connect``, at least so many; return them."""
    difference: object = None
    state: dict[str, Any] = {}

    def are_equal() -> bool:
        nonlocal difference, state
        theirs, hosts = connected.state(), page.hosts()
        if not hosts or not len(theirs) == hosts[0]["rows"] >= least:
            difference = len(theirs), hosts
            return False
        state = page.state()
        rows: State = state["rows"]
        missing, extra = theirs.keys() - rows.keys(), rows.keys() - theirs.keys()
        different = [
            (comparable(rows[key]), comparable(theirs[key]))
            for key in rows.keys() & theirs.keys()
            if comparable(rows[key]) != comparable(theirs[key])
        ]
        difference = len(rows), len(missing), len(extra), different[:3], hosts
        return not (missing or extra or different)

    wait_until(are_equal, lambda: difference)
    assert not connected.problems
    assert state["violations"] == 0
    assert state["counts"]["total"] == len(state["rows"])
    rows: State = state["rows"]
    return rows


def save_records(path: Path, records: Sequence[Record]) -> Path:
    """Write a recording."""
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path
