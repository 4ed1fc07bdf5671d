"""Descriptions of pages and events, of recorded kernels and with other sizes."""

import re
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.kernel.trace.events import EVENTS, EXECUTE, SET_STATE
from agent.kernel.trace.formats import (
    Field,
    PageLayout,
    UnknownFormat,
    parse_event_format,
    parse_header_page,
)
from agent.kernel.trace.pages import PageDecoder

from ...strategies import mutated
from .captured import KERNELS, format_text, formats, header_text, layout, pages

REQUIRED = [(event, field) for event, fields in EVENTS.items() for field in fields]


def changed(text: str, field: str, **places: int) -> str:
    """Return a format in which the line of a field has other numbers, for example size=3."""
    lines = text.splitlines(keepends=True)
    for number, line in enumerate(lines):
        if re.search(rf"field:.*\b{field}(\[\w*\])?;", line):
            for place, value in places.items():
                lines[number] = re.sub(rf"{place}:\d+", f"{place}:{value}", lines[number])
            return "".join(lines)
    raise AssertionError(field)


def without(text: str, field: str) -> str:
    kept = [line for line in text.splitlines(True) if not re.search(rf" {field}(\[\w*\])?;", line)]
    assert len(kept) < len(text.splitlines())
    return "".join(kept)


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_layout_of_a_page(kernel: str) -> None:
    assert layout(kernel) == PageLayout(8, 8, 16, 4080)
    assert layout(kernel).page_size == 4096


@pytest.mark.parametrize("kernel", KERNELS)
def test_every_event_has_an_id_of_its_own(kernel: str) -> None:
    assert len({format.id for format in formats(kernel).values()}) == len(EVENTS)


@pytest.mark.parametrize("kernel", KERNELS)
def test_names_are_without_type_and_brackets(kernel: str) -> None:
    state = formats(kernel)[SET_STATE].fields
    assert state["skaddr"] == Field("skaddr", 8, 8, signed=False, is_data_loc=False)
    assert state["saddr_v6"].size == 16
    assert state["common_pid"] == Field("common_pid", 4, 4, signed=True, is_data_loc=False)
    assert formats(kernel)[EXECUTE].fields["filename"].is_data_loc


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(("event", "field"), REQUIRED)
def test_a_missing_field_is_named_with_its_event(kernel: str, event: str, field: str) -> None:
    with pytest.raises(UnknownFormat, match=f"{event} has no field {field}$"):
        parse_event_format(event, without(format_text(kernel, event), field))


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(("event", "field"), REQUIRED)
def test_an_unusable_size_is_named(kernel: str, event: str, field: str) -> None:
    text = changed(format_text(kernel, event), field, size=0)
    with pytest.raises(UnknownFormat, match=f"{event} the field {field} cannot be read"):
        parse_event_format(event, text)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("field", ["common_type", "common_flags", "common_pid"])
def test_common_fields_are_required(kernel: str, field: str) -> None:
    text = format_text(kernel, SET_STATE)
    for broken in (without(text, field), changed(text, field, size=3)):
        with pytest.raises(UnknownFormat, match=field):
            parse_event_format(SET_STATE, broken)


@pytest.mark.parametrize("kernel", KERNELS)
def test_other_formats_that_cannot_be_read(kernel: str) -> None:
    state = format_text(kernel, SET_STATE)
    for event, text, message in (
        (SET_STATE, state.replace("ID: ", "id "), "no ID"),
        (SET_STATE, changed(state, "common_type", offset=1), "common_type cannot be read"),
        (
            SET_STATE,
            changed(state, "newstate", offset=17),
            "newstate begins at byte 17, within old",
        ),
        (SET_STATE, changed(state, "daddr_v6", offset=1 << 40), "daddr_v6 cannot be read"),
        (EXECUTE, format_text(kernel, EXECUTE).replace("__data_loc", "__rel_loc"), "filename"),
    ):
        with pytest.raises(UnknownFormat, match=message):
            parse_event_format(event, text)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("field", ["timestamp", "commit", "data"])
def test_a_page_without_a_field_is_unknown(kernel: str, field: str) -> None:
    text = header_text(kernel)
    for broken in (without(text, field), changed(text, field, size=0)):
        with pytest.raises(UnknownFormat, match=f"header_page.* {field}"):
            parse_header_page(broken)


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_page_of_a_32_bit_kernel(kernel: str) -> None:
    text = changed(header_text(kernel), "commit", size=4)
    text = changed(text, "data", offset=12, size=4084)
    assert parse_header_page(text) == PageLayout(8, 4, 12, 4084)


@given(st.data())
def test_no_text_raises_anything_else(data: st.DataObject) -> None:
    event = data.draw(st.sampled_from(sorted(EVENTS)))
    kernel = data.draw(st.sampled_from(KERNELS))

    def draw(text: str) -> str:
        return data.draw(mutated(text.encode())).decode("latin-1")

    with suppress(UnknownFormat):
        assert parse_header_page(draw(header_text(kernel))).page_size > 0
    with suppress(UnknownFormat):
        format = parse_event_format(event, draw(format_text(kernel, event)))
        PageDecoder(layout(kernel), {event: format}).decode(pages(kernel)[0])
