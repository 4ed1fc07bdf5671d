"""The page with a recording."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from agent.errors import RuntimeFailure
from agent.publish.http import recordings
from agent.publish.http.recordings import recording_page

LINES = b'{"event":"hello"}\nno record\n{"event":"open"}\n{"cut'


@pytest.mark.parametrize(
    ("suffix", "content"), [("", LINES), (".gz", gzip.compress(LINES))], ids=["plain", "gz"]
)
def test_the_lines_of_a_recording(suffix: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / f"recording.ndjson{suffix}"
    path.write_bytes(content)
    page = recording_page(str(path))
    reply = page.reply()
    assert not page.is_public
    assert (reply.status, reply.body) == (200, LINES)
    assert reply.content_type == "application/x-ndjson; charset=utf-8"
    assert ("Cache-Control", "no-store") in reply.headers


def test_the_files_of_a_directory(tmp_path: Path) -> None:
    for name in ("2026-11-28T13Z.ndjson", "2026-11-28T12Z.ndjson"):
        (tmp_path / name).write_text(f"{name}\n")
    (tmp_path / "position.json").write_text("{}")
    body = recording_page(str(tmp_path)).reply().body
    assert body == b"2026-11-28T12Z.ndjson\n2026-11-28T13Z.ndjson\n"


def test_a_compressed_recording_that_is_cut_off_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logged: list[str] = []
    monkeypatch.setattr(recordings, "log", logged.append)
    path = tmp_path / "recording.gz"
    path.write_bytes(gzip.compress(LINES * 1000)[:-9])
    assert recording_page(str(path)).reply().body.startswith(LINES)
    assert logged == [f"warning: {path}: the compressed data is cut off"]


@pytest.mark.parametrize(("limit", "fits"), [(len(LINES), True), (len(LINES) - 1, False)])
def test_the_size_is_limited(
    limit: int, fits: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recordings, "MAX_RECORDING_BYTES", limit)
    path = tmp_path / "recording.ndjson"
    path.write_bytes(LINES)
    if fits:
        assert recording_page(str(path)).reply().body == LINES
    else:
        with pytest.raises(RuntimeFailure, match=rf"^{path}: the page shows recordings of at most"):
            recording_page(str(path))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RuntimeFailure, match="No such file or directory"):
        recording_page(str(tmp_path / "none"))
