"""What the screen writes can be read again."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.model import HostHolding
from agent.publish.top.saving import save
from agent.stream.filters import Filter
from agent.stream.recording import RecordReader, open_recording, state_at

from ...feeding import ONE, THREE, TWO
from ...recorded import START

HOLDINGS = [HostHolding("a", ONE, None), HostHolding("a", TWO, 5.0), HostHolding("b", THREE, None)]


def read(path: Path) -> set[tuple[str, int]]:
    with open_recording(str(path)) as file:
        state = state_at(RecordReader(file))
    return {(one.host, one.holding.socket.inode) for one in state.holdings()}


def test_a_saved_file_shows_the_same_sockets(tmp_path: Path) -> None:
    name, count = save(HOLDINGS, Filter(), START, str(tmp_path))
    assert (name, count) == ("sockagent-20231114T221320Z.ndjson", 3)
    assert read(tmp_path / name) == {("a", 1), ("a", 2), ("b", 3)}
    assert (tmp_path / name).stat().st_mode & 0o777 == 0o600


def test_only_what_passes_the_filter_is_written(tmp_path: Path) -> None:
    name, count = save(HOLDINGS, Filter({"port": ["2"]}), START, str(tmp_path))
    assert count == 1
    assert read(tmp_path / name) == {("a", 2)}
    name, count = save(HOLDINGS, Filter({"host": ["b"]}), START + 1, str(tmp_path))
    assert read(tmp_path / name) == {("b", 3)}


def test_a_file_that_cannot_be_written_whole_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def chunks(*_arguments: object) -> Iterator[bytes]:
        yield b"{}\n"
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("agent.publish.top.saving.snapshot_chunks", chunks)
    with pytest.raises(OSError, match="No space"):
        save(HOLDINGS, Filter(), START, str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_no_file_is_overwritten(tmp_path: Path) -> None:
    save(HOLDINGS, Filter(), START, str(tmp_path))
    with pytest.raises(FileExistsError):
        save(HOLDINGS, Filter(), START, str(tmp_path))
