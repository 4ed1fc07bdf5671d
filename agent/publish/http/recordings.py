"""The page /recording: the records of a file, which the page for browsers replays."""

from __future__ import annotations

from ...errors import RuntimeFailure
from ...log import log
from ...stream.recording import open_recording
from .pages import Page, Reply, fixed

RECORDING_PATH = "/recording"
# A browser keeps the text and the records of it; this is about 100,000 of them.
MAX_RECORDING_BYTES = 64 * 1024 * 1024
_NDJSON = "application/x-ndjson; charset=utf-8"
_HEADERS = (("Cache-Control", "no-store"), ("X-Content-Type-Options", "nosniff"))


def recording_page(path: str) -> Page:
    """Read a recording, decompressed by its suffix; return the page with it. Raises
    RuntimeFailure."""
    content = bytearray()
    with open_recording(path) as file:
        for line in file:
            content += line
            if len(content) > MAX_RECORDING_BYTES:
                raise RuntimeFailure(
                    f"{path}: the page shows recordings of at most {MAX_RECORDING_BYTES >> 20} "
                    f"MiB; make a smaller one: sockagent --read {path} -o ndjson TARGET"
                )
        if file.problem:
            log(f"warning: {file.problem}")
    return fixed(Reply(200, _NDJSON, bytes(content), _HEADERS))
