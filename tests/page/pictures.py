"""Pictures of the page for the documents: a recording of a small web server, replayed.

``python -m tests.page.pictures`` writes them into docs/.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

from agent.model import Closed, Opened, Updated
from agent.stream.encoder import AgentInfo, Encoder

from ..browser import Browser
from ..publish.terminal.machine import COVERAGE, HOST, START, events, web_server

DOCS = Path(__file__).parents[2] / "docs"
# The name of a picture, the colour scheme and the view.
PICTURES = (
    ("page-table", "light", "view=table"),
    ("page-events", "light", "view=events"),
    ("page-map", "dark", "view=map"),
)
WIDTH, HEIGHT = 1280, 800
_URL = re.compile(r"http://127\.0\.0\.1:\d+/\S*")


def recording() -> bytes:
    """Return the recording: a snapshot, and what changed after it."""
    encoder = Encoder(AgentInfo(HOST, None, "0123456789abcdef", 1.0))
    holdings = [one.holding for one in web_server()]
    head = encoder.head("snapshot", 0, START)
    lines = [encoder.hello(0, START, COVERAGE, resumed=False)]
    lines += encoder.holdings(head, holdings)
    lines.append(encoder.snapshot_end(0, START, len(holdings)))
    changes = [
        (time, value)
        for time, value in events()
        if isinstance(value, Opened | Updated | Closed) and value.holding.process is not None
    ]
    lines += [encoder.delta(value, seq, time) for seq, (time, value) in enumerate(changes, 1)]
    return b"".join(lines)


def write(folder: Path) -> None:
    """Write the pictures into a folder."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "web1.ndjson"
        path.write_bytes(recording())
        command = [sys.executable, "-m", "agent", "page", "--no-open", "--read", str(path)]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as agent:
            try:
                assert agent.stderr is not None
                found = _URL.search(agent.stderr.readline())
                assert found is not None, "the command printed no URL"
                _take(found.group(), folder)
            finally:
                agent.terminate()


def _take(url: str, folder: Path) -> None:
    place, _, fragment = url.partition("#")
    with Browser() as browser, browser.tab() as tab:
        tab.call("Emulation.setTimezoneOverride", timezoneId="UTC")
        for name, scheme, view in PICTURES:
            tab.set_view(WIDTH, HEIGHT, scheme)
            separator = "&" if "?" in place else "?"
            tab.navigate(f"{place}{separator}{view}#{fragment}")
            tab.wait_for(f"document.body.innerText.includes({HOST!r})")
            tab.wait_for("document.body.innerText.includes('nginx')")
            # The map is drawn once a second at most, after the other ends were found.
            tab.evaluate(
                "new Promise((done) => setTimeout(() => requestAnimationFrame(done), 1500))"
            )
            tab.screenshot(folder / f"{name}.png")


if __name__ == "__main__":
    write(DOCS)
