"""Recorded pages, which captures/README.md describes, and pages that are made from formats."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from agent.kernel.trace.events import EVENTS, ROUTE, UDP_EVENTS
from agent.kernel.trace.formats import (
    EventFormat,
    Field,
    PageLayout,
    parse_event_format,
    parse_header_page,
)
from agent.kernel.trace.pages import PageDecoder

CAPTURES = Path(__file__).parent / "captures"
KERNELS = sorted(path.name for path in CAPTURES.iterdir() if path.is_dir())
UDP_KERNELS = [kernel for kernel in KERNELS if (CAPTURES / kernel / ROUTE).exists()]


def header_text(kernel: str) -> str:
    return (CAPTURES / kernel / "header_page").read_text()


def format_text(kernel: str, event: str) -> str:
    return (CAPTURES / kernel / event / "format").read_text()


@cache
def layout(kernel: str) -> PageLayout:
    return parse_header_page(header_text(kernel))


@cache
def formats(kernel: str) -> Mapping[str, EventFormat]:
    return {event: parse_event_format(event, format_text(kernel, event)) for event in EVENTS}


@cache
def udp_formats(kernel: str) -> Mapping[str, EventFormat]:
    return {event: parse_event_format(event, format_text(kernel, event)) for event in UDP_EVENTS}


def udp_decoder(kernel: str) -> PageDecoder:
    """Return a decoder of all events."""
    return PageDecoder(layout(kernel), {**formats(kernel), **udp_formats(kernel)})


def decoder(kernel: str) -> PageDecoder:
    return PageDecoder(layout(kernel), formats(kernel))


def pages(kernel: str, name: str = "*", folder: str = "pages") -> list[bytes]:
    """Return the recorded pages in files of this name."""
    size = layout(kernel).page_size
    found = []
    for path in sorted((CAPTURES / kernel / folder).glob(f"{name}.bin")):
        data = path.read_bytes()
        assert data, path
        assert not len(data) % size, path
        found += [data[at : at + size] for at in range(0, len(data), size)]
    return found


def having(name: str) -> list[str]:
    """Return the kernels of which a file of this name was recorded."""
    return [kernel for kernel in KERNELS if (CAPTURES / kernel / "pages" / name).exists()]


def make_data(format: EventFormat, **values: int | bytes) -> bytes:
    """Return the data of an event with these fields, and zeros in the others."""
    size = max(field.offset + field.size for field in format.fields.values())
    data = bytearray(size)
    for name, value in {"common_type": format.id, **values}.items():
        put(data, format.fields[name], value)
    return bytes(data)


def put(data: bytearray, field: Field, value: int | bytes) -> None:
    if isinstance(value, int):
        code = {1: "b", 2: "h", 4: "i", 8: "q"}[field.size]
        value = struct.pack("=" + (code if field.signed else code.upper()), value)
    data[field.offset : field.offset + field.size] = value.ljust(field.size, b"\0")


def make_record(data: bytes, delta: int = 0, *, length_word: bool = False) -> bytes:
    """Return a record with this data, so many nanoseconds after the record before."""
    data += bytes(-len(data) % 4)
    if length_word:
        return struct.pack("=II", delta << 5, len(data) + 4) + data
    assert 1 <= len(data) // 4 <= 28
    return struct.pack("=I", delta << 5 | len(data) // 4) + data


def make_page(
    layout: PageLayout, *records: bytes, time: int = 0, flags: int = 0, lost: int | None = None
) -> bytes:
    """Return a whole page with these records."""
    body = b"".join(records)
    page = bytearray(layout.data_offset)
    code = "I" if layout.commit_size == 4 else "Q"
    struct.pack_into("=Q", page, 0, time)
    struct.pack_into("=" + code, page, layout.commit_offset, len(body) | flags)
    page += body
    if lost is not None:
        page += struct.pack("=" + code, lost)
    return bytes(page.ljust(layout.page_size, b"\0"))
