"""Hostile names stay text on the page: of processes, files, hosts, and in recordings."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from ..browser import Tab
from .helpers import COMMAND, Holder, Record, need_root, need_tool
from .live import Agent
from .pages import DETAILS, Page, save_records, wait_until

MARKUP = "<img src=x onerror=alert(1)><script>alert(2)</script>"
REORDERED = "a\u202egnp.exe\u2066\u200b"
# Runs a command on a machine of another name.
RENAMED = """
import os, socket, sys
socket.sethostname(sys.argv[1])
os.execv(sys.argv[2], sys.argv[2:])
"""


# Texts, and attributes that are shown, with a control or with what reorders or is invisible.
UNSAFE = r"""
(() => {
    const unsafe = /[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069]/;
    const found = [];
    for (const element of document.querySelectorAll("body *")) {
        const shown = [...element.childNodes].filter((node) => node.nodeType === 3);
        const texts = shown.map((node) => node.data);
        for (const name of ["title", "aria-label", "placeholder", "alt", "value"]) {
            texts.push(element.getAttribute(name) ?? "");
        }
        for (const text of texts) {
            if (unsafe.test(text)) found.push([element.outerHTML.slice(0, 200), text.slice(0, 80)]);
        }
    }
    return found;
})()
"""


def check_harmless(page: Page) -> None:
    """Check that no text became an element, ran as a script, or is reordered."""
    assert page.tab.evaluate("document.title").startswith("sockagent")
    assert page.tab.evaluate(UNSAFE) == []
    assert page.tab.evaluate("({}).polluted") is None
    page.check()


def look_at_everything(page: Page) -> None:
    """Show all views, and the details of the first row of the table."""
    for key in "2341":
        page.tab.press(key)
        page.tab.evaluate(
            "new Promise((done) => setTimeout(() => requestAnimationFrame(done), 300))"
        )
        check_harmless(page)
    page.tab.evaluate("document.querySelector('[role=grid]').focus()")
    page.tab.press("Home")
    page.tab.press("Enter")
    page.wait_for_text(DETAILS)
    check_harmless(page)


def test_names_of_processes_and_files_stay_text(tab: Tab, holder: Holder, tmp_path: Path) -> None:
    with Agent("--cmdline") as agent:
        page = Page(tab, agent.address).live(f"?pid={holder.pid}")
        holder.do("import ctypes; libc.prctl(15, ctypes.c_char_p(b'<p>\\x1b<a>'))")
        path = f"{tmp_path.parent}/<img src=x onerror=alert(1)>"
        holder.do("listener = socket.socket(socket.AF_UNIX)")
        holder.do(f"listener.bind({path[:100]!r}); listener.listen(1)")
        name = "\0javascript:alert(1)//<script>\u202e"
        holder.do("named = socket.socket(socket.AF_UNIX); other = tcp_listener(OWN)")
        holder.do(f"named.bind({name.encode()!r}); named.listen(1)")
        page.wait_for_rows(3)
        page.wait_for_text("body", r"<p>\x1b<a>", "=alert(1)>", r"\x{202e}")
        look_at_everything(page)


@pytest.mark.parametrize("name", ["<img src=x onerror=alert(1)>", "a\u202eb<script>"])
def test_the_name_of_the_host_stays_text(tab: Tab, name: str) -> None:
    need_root()
    unshare = need_tool("unshare")
    command = (unshare, "--uts", sys.executable, "-c", RENAMED, name, *COMMAND)
    with Agent(command=command) as agent:
        page = Page(tab, agent.address).live()
        page.wait_for_text("#hosts", name.replace("\u202e", r"\x{202e}"))
        look_at_everything(page)


def hostile_records() -> list[Record]:
    """Return records in which every text is hostile, and some are not even of the right type."""
    head: Record = {"seq": 1, "time": "2026-01-02T03:04:05.000000Z", "host": MARKUP}
    socket: Record = {
        "proto": "tcp", "family": "inet", "state": "ESTABLISHED", "local_addr": "127.0.0.1",
        "local_port": 1, "remote_addr": "10.0.0.1", "remote_port": 2, "interface": None,
        "direction": "inbound", "recv_q": 0, "send_q": 0, "netns": 1, "uid": 0, "user": "root",
        "source": "netlink", "fds": [3], "fd_count": 1, "comm": "app", "exe": "/app", "ppid": 1,
        "start_time": "2026-01-01T00:00:00.000000Z", "cgroup": "/", "unit": "app.service",
        "container": None,
    }  # fmt: skip
    texts = (
        MARKUP, REORDERED, "javascript:alert(1)", "data:text/html,<script>alert(1)</script>",
        "x" * 4096, f"{MARKUP}{'<b>' * 1300}", "\x1b[31m\x07\x00\x9b", "\ud800", "__proto__",
        "constructor", "${alert(1)}", "{{alert(1)}}", "%3Cscript%3E", "\n\r\t\v\f\u2028\u2029", "",
    )  # fmt: skip
    wrong: tuple[Any, ...] = (
        {}, [], {"toString": "x"}, [[MARKUP]], 5, -1, 1e308, True, None,
        {"__proto__": {"polluted": 1}},
    )  # fmt: skip
    records: list[Record] = [
        {**head, "event": "hello", "schema": 1, "version": MARKUP, "boot_id": MARKUP,
         "epoch": MARKUP, "interval": 1.0, "resumed": False, "complete": False, "processes": 1,
         "unreadable": 1, "netns": 1, "missing": list(texts), "events": False,
         "events_off": MARKUP},
    ]  # fmt: skip
    inode = 0
    for field in socket:
        for value in (*texts, *wrong):
            inode += 1
            record = {**head, **socket, "event": "snapshot", "pid": 7, "inode": inode}
            records.append({**record, field: value})
    for number, text in enumerate(texts):
        unix = {"proto": "unix", "family": "unix", "type": "stream", "path": text,
                "peer_inode": None, "peer_pid": None}  # fmt: skip
        own = {**socket, **unix, "comm": text, "unit": text, "cmdline": [text], "user": text}
        records.append({**head, **own, "event": "snapshot", "pid": 8, "inode": 10_000 + number})
    records.append({**head, "event": "snapshot_end", "count": len(records) - 1})
    for number, text in enumerate(texts):
        later = {**head, "seq": 2 + number, "pid": 9, "inode": 20_000 + number, "comm": text}
        change = {**socket, **later, "time_source": "poll"}
        records += [
            {**change, "event": "open"},
            {**change, "event": "update", "previous": {"state": text, text: text}},
            {**change, "event": "close", "reason": text, "duration_ms": 1e300},
        ]
    records.append({**head, "seq": 99, "event": "lost", "from": 1, "to": None})
    records.append({**head, "seq": 99, "event": "coverage", "complete": False, "processes": 1,
                    "unreadable": 0, "netns": 1, "missing": [MARKUP, {}, None], "events": True,
                    "events_off": None})  # fmt: skip
    records.append({**head, "seq": 99, "event": MARKUP})
    return records


BROKEN = [
    "", "null", "[]", "5", '"text"', "{", "{}", '{"event":"open"}', "\0", "<html>", "x" * 1_000_000,
    '{"event":"snapshot","seq":1,"time":"never","host":"h","pid":1,"inode":1}',
    '{"event":"snapshot","seq":1,"time":"2026-01-02T03:04:05Z","host":{},"pid":1,"inode":1}',
    '{"event":"snapshot","seq":1,"time":"2026-01-02T03:04:05Z","host":"h","pid":{},"inode":1}',
    '{"event":"hello","seq":1,"time":"2026-01-02T03:04:05Z","host":"h","epoch":{}}',
    '{"event":"snapshot","seq":1e999,"time":"2026-01-02T03:04:05Z","host":"h","pid":1,"inode":2}',
    '{"event":"snapshot","seq":1,"time":"2026-01-02T03:04:05Z","host":"h","pid":1,"inode":3}',
    "[" * 100_000,
]  # fmt: skip


def test_a_hostile_recording_is_harmless(tab: Tab, tmp_path: Path) -> None:
    recording = save_records(tmp_path / f"{MARKUP.replace('/', '')}.ndjson", hostile_records())
    with Agent() as agent:
        page = Page(tab, agent.address).live("?all=1")
        tab.drop(recording)
        page.wait_for_line("replay")
        wait_until(lambda: [host["complete"] for host in page.hosts()] == [False], page.hosts)
        rows = page.hosts()[0]["rows"]  # The snapshot ended, and then changes were lost.
        assert rows > 500
        page.wait_for_rows(rows)
        look_at_everything(page)
        # Each row has its details.
        tab.press("Home")
        for _ in range(40):
            tab.press("PageDown")
            tab.press("Enter")
        check_harmless(page)
        assert page.text(DETAILS)


def test_a_file_that_is_no_recording_is_harmless(tab: Tab, tmp_path: Path) -> None:
    broken = tmp_path / "broken.ndjson"
    broken.write_text("\n".join(BROKEN))
    binary = tmp_path / "binary"
    binary.write_bytes(bytes(range(256)) * 100)
    with Agent() as agent:
        page = Page(tab, agent.address).live()
        for path in (broken, binary):
            tab.drop(path)
            page.wait_for_line("replay")
            tab.evaluate("new Promise((done) => setTimeout(done, 500))")
            page.check()
