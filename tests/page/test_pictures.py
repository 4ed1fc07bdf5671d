"""The pictures of the page in the documents."""

from __future__ import annotations

import struct
from pathlib import Path

from agent.stream.recording import RecordReader, state_at

from ..publish.terminal.machine import HOST
from . import pictures

README = Path(__file__).parents[2] / "README.md"
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Width and height in the first chunk, IHDR.
_SIZE = struct.Struct(">16x2I")


def size_of(path: Path) -> tuple[int, int]:
    head = path.read_bytes()[: _SIZE.size]
    assert head.startswith(_SIGNATURE)
    width, height = _SIZE.unpack(head)
    return width, height


def test_the_documents_show_each_picture() -> None:
    documents = README.read_text(), (pictures.DOCS / "page.md").read_text()
    for name, _scheme, _view in pictures.PICTURES:
        assert f"(docs/{name}.png)" in documents[0]
        assert f"({name}.png)" in documents[1]
        assert size_of(pictures.DOCS / f"{name}.png") == (pictures.WIDTH, pictures.HEIGHT)


def test_the_recording_of_the_pictures_is_whole() -> None:
    reader = RecordReader(pictures.recording().splitlines(keepends=True))
    state = state_at(reader)
    assert reader.problems() == []
    (host,) = state.hosts()
    assert host.host == HOST
    assert host.complete
    assert len(state) > 50
