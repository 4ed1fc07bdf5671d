"""Recordings that were made to do harm: no view of them fails or controls a terminal."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from pathlib import Path
from typing import Any

import pytest

from agent import replay
from agent.config import FORMATS, Config, View
from agent.publish.terminal.columns import COLUMNS
from agent.publish.terminal.options import Options
from agent.replay import RecordingOutput
from agent.stream.encoder import Encoder
from agent.stream.recording import MAX_LINE_BYTES, Recording, open_recording

from .feeding import AGENT, ONE
from .make import FULL_COVERAGE, records

START = 1_700_000_000.0
# Ends a string, colours, and moves to the start of the line.
EVIL = '"\\\x1b[31m\x9b31m\x7f\r\t\u202e'
_encoder = Encoder(AGENT)
HELLO = _encoder.hello(1, START, FULL_COVERAGE, resumed=False)
SNAPSHOT = _encoder.holding(_encoder.head("snapshot", 1, START), ONE)
_CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f]")


# Most records have all of these.
CONNECTED = {
    "state": "ESTABLISHED", "remote_addr": "10.0.0.2", "remote_port": 9, "recv_q": 0, "send_q": 0,
    "interface": None, "direction": "inbound", "netns": 1, "uid": 0, "user": "root",
}  # fmt: skip


def changed(**fields: object) -> bytes:
    """A snapshot record of a connection with other values."""
    record: dict[str, Any] = json.loads(SNAPSHOT) | CONNECTED
    return json.dumps(record | fields, ensure_ascii=False).encode() + b"\n"


def shown(path: Path, output: str, **view: Any) -> bytes:
    """What is printed of a recording."""
    config = Config(view=View(read=str(path), **view))
    printed = RecordingOutput(str(path), config, output, Options(columns=view.get("columns", ())))

    async def run() -> bytes:
        return b"".join([chunk async for chunk in printed])

    return asyncio.run(run())


@pytest.mark.parametrize(
    "name",
    ["proto", "state", "direction", "local_addr", "remote_addr", "source", "user", "comm", "unit",
     "host", "interface"],
)  # fmt: skip
@pytest.mark.parametrize("output", FORMATS)
def test_text_of_a_record_controls_nothing(tmp_path: Path, name: str, output: str) -> None:
    path = tmp_path / "recording"
    path.write_bytes(HELLO + changed(**{name: EVIL}))
    text = shown(path, output).decode()
    allowed = {"csv": "\r\n", "tsv": "\t"}.get(output, "\n")
    assert not _CONTROL.search(text.replace(allowed, ""))
    if output == "json":
        assert [record[name] for record in json.loads(text)] == [EVIL]


@pytest.mark.parametrize("time", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z"])
@pytest.mark.parametrize("output", FORMATS)
def test_a_time_at_the_end_of_the_calendar(tmp_path: Path, time: str, output: str) -> None:
    path = tmp_path / "recording"
    path.write_bytes(changed(start_time=time) + changed(time=time))
    view = {"columns": tuple(COLUMNS)} if output in ("table", "wide", "csv", "tsv") else {}
    shown(path, output, **view)


def test_a_last_line_without_an_end_gets_one(tmp_path: Path) -> None:
    path = tmp_path / "recording"
    path.write_bytes(HELLO + SNAPSHOT.rstrip())
    assert shown(path, "ndjson") == HELLO + SNAPSHOT


def test_long_lines_are_not_gathered(tmp_path: Path) -> None:
    """A small compressed file may have many of them."""
    path = tmp_path / "recording"
    line = changed(cmdline=["x" * (MAX_LINE_BYTES // 8)])
    path.write_bytes(line * 4)
    config = Config(view=View(read=str(path)))

    async def run() -> list[int]:
        printed = RecordingOutput(str(path), config, "ndjson", Options())
        return [len(records(chunk)) async for chunk in printed]

    assert asyncio.run(run()) == [1] * 4


def test_a_file_is_opened_in_a_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The opening of a named pipe without a writer blocks."""
    threads = []

    def opened(path: str, *, rereadable: bool = False) -> Recording:
        threads.append(threading.current_thread())
        return open_recording(path, rereadable=rereadable)

    monkeypatch.setattr(replay, "open_recording", opened)
    path = tmp_path / "recording"
    path.write_bytes(SNAPSHOT)
    assert shown(path, "ndjson") == SNAPSHOT
    assert threads
    assert threading.main_thread() not in threads
