"""Parse the descriptions of ring-buffer pages and of events in tracefs. Pure.

Offsets, sizes and ids differ between kernels; ``events/header_page`` and
``events/GROUP/NAME/format`` state them for the running one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import pairwise
from types import MappingProxyType
from typing import NamedTuple

from .events import FIELDS, FieldKind

# Common fields that are read for each event. common_type is read before the format is known.
COMMON = MappingProxyType({"common_flags": FieldKind.INTEGER, "common_pid": FieldKind.INTEGER})
_TYPE = "common_type"
_TYPE_BYTES = 2

# For example "field:unsigned char common_flags;	offset:2;	size:1;	signed:0;". The name is the
# last word of the declaration, before the brackets of an array.
_FIELD = re.compile(
    r"^\s*field:(?P<type>[^;]*?)(?P<name>\w+)(?:\[\w*\])?;"
    r"\s*offset:(?P<offset>\d+);\s*size:(?P<size>\d+);(?:\s*signed:(?P<signed>[01]);)?",
    re.MULTILINE,
)
_ID = re.compile(r"^ID: (\d+)$", re.MULTILINE)
_DATA_LOC = "__data_loc"  # u32: the offset of the text in the data | its length << 16.

_INTEGER_SIZES = (1, 2, 4, 8)
# One page of a ring buffer has at most 2 MiB, and a record at most a page.
_MAX_BYTES = 1 << 21


class UnknownFormat(Exception):
    """A page or an event lacks what is needed. The message names the event and the field."""


class Field(NamedTuple):
    """Where a field is in the data of an event."""

    name: str
    offset: int
    size: int
    signed: bool
    is_data_loc: bool


class EventFormat(NamedTuple):
    """The id of an event, and its fields by name, the common ones included."""

    id: int
    fields: Mapping[str, Field]


class PageLayout(NamedTuple):
    """Where a page has the bytes of its records (commit) and the records (data).

    The time of the page is a u64 at offset 0.
    """

    commit_offset: int
    commit_size: int
    data_offset: int
    data_size: int

    @property
    def page_size(self) -> int:
        """Return how many bytes a reader asks for to get one whole page."""
        return self.data_offset + self.data_size


def parse_header_page(text: str) -> PageLayout:
    """Return the layout that ``events/header_page`` states. Raises UnknownFormat."""
    fields = _parse_fields(text)
    time = _require("header_page", fields, "timestamp")
    commit = _require("header_page", fields, "commit")
    data = _require("header_page", fields, "data")
    for field, usable in (
        (time, (time.offset, time.size) == (0, 8)),
        (commit, commit.size in (4, 8) and commit.offset >= 8),
        (data, 0 < data.size <= _MAX_BYTES and commit.offset + commit.size <= data.offset < 4096),
    ):
        if not usable:
            raise _unusable("header_page", field)
    return PageLayout(commit.offset, commit.size, data.offset, data.size)


def parse_event_format(event: str, text: str) -> EventFormat:
    """Return the format of an event of FIELDS, for example ``task/task_newtask``.

    Raises UnknownFormat unless all fields that the event needs are there and can be read.
    """
    id = _ID.search(text)
    if id is None:
        raise UnknownFormat(f"the format of {event} has no ID")
    fields = _parse_fields(text)
    type = _require(event, fields, _TYPE)
    if (type.offset, type.size) != (0, _TYPE_BYTES):
        raise _unusable(event, type)
    required = []
    for name, kind in (COMMON | FIELDS[event]).items():
        field = _require(event, fields, name)
        if not is_usable(field, kind):
            raise _unusable(event, field)
        required.append(field)
    required.sort(key=lambda field: field.offset)
    for field, following in pairwise(required):
        if field.offset + field.size > following.offset:
            raise UnknownFormat(
                f"in the format of {event} the field {following.name} begins at byte"
                f" {following.offset}, within {field.name}"
            )
    return EventFormat(int(id[1]), MappingProxyType(fields))


def is_usable(field: Field, kind: FieldKind) -> bool:
    """Return whether a field has a size that can be read as this kind."""
    if field.offset + field.size > _MAX_BYTES:
        return False
    match kind:
        case FieldKind.INTEGER:
            return field.size in _INTEGER_SIZES
        case FieldKind.ADDRESS:
            return field.size == 16
        case FieldKind.IPV4_ADDRESS:
            return field.size == 4
        case FieldKind.TEXT:
            return field.size > 0 and not field.is_data_loc
        case FieldKind.DYNAMIC_TEXT:
            return field.size == 4 and field.is_data_loc


def _parse_fields(text: str) -> dict[str, Field]:
    """Return the fields of a format by name."""
    return {
        found["name"]: Field(
            found["name"],
            int(found["offset"]),
            int(found["size"]),
            found["signed"] == "1",
            found["type"].startswith(_DATA_LOC),
        )
        for found in _FIELD.finditer(text)
    }


def _require(event: str, fields: Mapping[str, Field], name: str) -> Field:
    field = fields.get(name)
    if field is None:
        raise UnknownFormat(f"the format of {event} has no field {name}")
    return field


def _unusable(event: str, field: Field) -> UnknownFormat:
    return UnknownFormat(
        f"in the format of {event} the field {field.name} cannot be read: it has"
        f" {field.size} bytes at offset {field.offset}"
    )
