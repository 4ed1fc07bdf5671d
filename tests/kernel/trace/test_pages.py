"""Pages made from the formats of several kernels, and broken pages."""

import re
import struct
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.kernel.trace.events import (
    CREATE,
    DESTROY,
    EXECUTE,
    EXIT,
    RENAME,
    SET_STATE,
    Destroyed,
    Event,
    Executed,
    Exited,
    StateChange,
    TaskCreated,
    TaskRenamed,
)
from agent.kernel.trace.formats import EventFormat, PageLayout, parse_event_format
from agent.kernel.trace.pages import DecodedPage, PageDecoder

from ...strategies import mutated
from .captured import (
    KERNELS,
    decoder,
    format_text,
    formats,
    layout,
    make_data,
    make_page,
    make_record,
    pages,
)

LOCAL, REMOTE = bytes(range(16)), bytes(range(16, 32))
TIME = 1 << 50
PADDING_END = struct.pack("=I", 29)

each_kernel = pytest.mark.parametrize("kernel", KERNELS)


def exit_record(kernel: str, tid: int = 5, **how: int) -> bytes:
    data = make_data(formats(kernel)[EXIT], common_pid=tid, pid=tid)
    return make_record(data, how.get("delta", 0), length_word=bool(how.get("length_word")))


def decode(kernel: str, *records: bytes) -> DecodedPage:
    return decoder(kernel).decode(make_page(layout(kernel), *records, time=TIME))


def times(kernel: str, *records: bytes) -> list[int]:
    return [event.time - TIME for event in decode(kernel, *records).events]


# Pages made from the formats.


@each_kernel
@pytest.mark.parametrize("flags", [0, 0x10, 0x24, 0x80, 0xA4, 0xFF])
def test_flags_of_older_kernels_are_passed_on(kernel: str, flags: int) -> None:
    data = make_data(formats(kernel)[EXIT], common_flags=flags, common_pid=7, pid=8)
    assert decode(kernel, make_record(data)).events == [Exited(TIME, flags, 7, 8)]


def all_events(kernel: str) -> list[tuple[bytes, Event]]:
    """Return data of an event of each kind, and the event."""
    known = formats(kernel)
    socket: dict[str, int | bytes] = {
        "common_flags": 1, "common_pid": 2, "skaddr": 3, "sport": 6, "dport": 7, "family": 10,
        "saddr_v6": LOCAL, "daddr_v6": REMOTE,
    }  # fmt: skip
    common = {"common_flags": 1, "common_pid": 2}
    name = b"/a/b"
    end = len(make_data(known[EXECUTE]))
    place = end | (len(name) + 1) << 16
    filename = name + b"\0"
    return [
        (
            make_data(known[SET_STATE], **socket, oldstate=4, newstate=5, protocol=6),
            StateChange(TIME, 1, 2, 3, 4, 5, 6, 7, 10, LOCAL, REMOTE),
        ),
        (
            make_data(known[DESTROY], **socket, sock_cookie=1 << 62),
            Destroyed(TIME, 1, 2, 3, 6, 7, 10, LOCAL, REMOTE, 1 << 62),
        ),
        (
            make_data(known[CREATE], **common, pid=3, comm=b"\xff x\0rest", clone_flags=0x10F00),
            TaskCreated(TIME, 1, 2, 3, b"\xff x", 0x10F00),
        ),
        (
            make_data(
                known[RENAME], **common, newcomm=b"fifteen bytes..", **renamed(known[RENAME])
            ),
            TaskRenamed(TIME, 1, 2, 3 if "pid" in known[RENAME].fields else 2, b"fifteen bytes.."),
        ),
        (
            make_data(known[EXECUTE], **common, filename=place, pid=4, old_pid=5) + filename,
            Executed(TIME, 1, 2, 4, 5, name),
        ),
        (make_data(known[EXIT], **common, pid=3), Exited(TIME, 1, 2, 3)),
    ]


def renamed(format: EventFormat) -> dict[str, int]:
    return {"pid": 3} if "pid" in format.fields else {}


@each_kernel
@pytest.mark.parametrize("length_word", [False, True])
def test_each_event_is_decoded(kernel: str, length_word: bool) -> None:
    made = all_events(kernel)
    records = [make_record(data, length_word=length_word) for data, _event in made]
    decoded = decode(kernel, *records)
    assert decoded == DecodedPage([event for _data, event in made], 0, 0)
    assert [type(event) for event in decoded.events] == [type(event) for _data, event in made]


@each_kernel
def test_short_data_is_counted_and_the_next_record_is_decoded(kernel: str) -> None:
    for data, _event in all_events(kernel):
        decoded = decode(kernel, make_record(data[:12]), exit_record(kernel))
        assert decoded == DecodedPage([Exited(TIME, 0, 5, 5)], 0, 1)


@each_kernel
@pytest.mark.parametrize("place", [0xFFFF, 0xFFFF << 16, 21 << 16 | 60_000])
def test_a_file_name_outside_the_record_is_malformed(kernel: str, place: int) -> None:
    format, value = formats(kernel)[EXECUTE], place | 1 << 16
    if format.fields["filename"].signed and value >= 1 << 31:
        value -= 1 << 32
    data = make_data(format, filename=value)
    decoded = decode(kernel, make_record(data), exit_record(kernel))
    assert decoded == DecodedPage([Exited(TIME, 0, 5, 5)], 0, 1)


@each_kernel
def test_sockets_of_mptcp_are_dropped(kernel: str) -> None:
    format = formats(kernel)[SET_STATE]
    if format.fields["protocol"].size == 1:
        pytest.skip("protocol is one byte")
    assert decode(kernel, make_record(make_data(format, protocol=262))) == DecodedPage([], 0, 0)


@each_kernel
def test_records_of_other_events_are_skipped(kernel: str) -> None:
    other = make_record(struct.pack("=HBBi", 65_000, 0, 0, 1))
    assert decode(kernel, other, exit_record(kernel)).events == [Exited(TIME, 0, 5, 5)]
    only = {EXIT: formats(kernel)[EXIT]}
    records = [make_record(data) for data, _event in all_events(kernel)]
    page = make_page(layout(kernel), *records, time=TIME)
    assert PageDecoder(layout(kernel), only).decode(page).events == [Exited(TIME, 1, 2, 3)]


@each_kernel
def test_time_extends_and_time_stamps(kernel: str) -> None:
    extend = struct.pack("=II", 3 << 5 | 30, 2)
    assert times(kernel, exit_record(kernel, delta=7), extend, exit_record(kernel, delta=1)) == [
        7,
        7 + (2 << 27) + 3 + 1,
    ]
    top = 3 << 59
    page = make_page(
        layout(kernel),
        struct.pack("=II", 9 << 5 | 31, 0xFFFFFFFF),
        exit_record(kernel),
        time=top | TIME,
    )
    (event,) = decoder(kernel).decode(page).events
    assert event.time == top | 0xFFFFFFFF << 27 | 9


@each_kernel
def test_discarded_records_are_skipped_and_their_time_counts(kernel: str) -> None:
    discarded = struct.pack("=II8x", 4 << 5 | 29, 12)
    assert times(kernel, discarded, exit_record(kernel, delta=1)) == [5]


@each_kernel
def test_padding_without_a_time_ends_the_page(kernel: str) -> None:
    decoded = decode(kernel, exit_record(kernel), PADDING_END, bytes(4), exit_record(kernel))
    assert decoded == DecodedPage([Exited(TIME, 0, 5, 5)], 0, 0)


@each_kernel
@pytest.mark.parametrize(
    "bad",
    [
        struct.pack("=II", 0, 0),
        struct.pack("=II", 0, 3),
        struct.pack("=II", 0, 1 << 31),
        struct.pack("=II", 1 << 5 | 29, 0),
        struct.pack("=II", 1 << 5 | 29, 0xFFFFFFFF),
        struct.pack("=I", 28),
    ],
)
def test_a_bad_length_ends_the_page(kernel: str, bad: bytes) -> None:
    decoded = decode(kernel, exit_record(kernel), bad, exit_record(kernel))
    assert decoded == DecodedPage([Exited(TIME, 0, 5, 5)], 0, 1)


@each_kernel
def test_lost_events_are_counted_or_not(kernel: str) -> None:
    record = exit_record(kernel)
    for flags, lost, expected in (
        (0, None, 0),
        (1 << 31, None, None),
        (1 << 31 | 1 << 30, 12_345, 12_345),
    ):
        page = make_page(layout(kernel), record, flags=flags, lost=lost)
        assert decoder(kernel).decode(page) == DecodedPage([Exited(0, 0, 5, 5)], expected, 0)
    page = make_page(layout(kernel), record, flags=1 << 31 | 1 << 30, lost=7)
    cut = page[: layout(kernel).data_offset + len(record) + 4]
    assert decoder(kernel).decode(cut).lost is None


# Other formats.


def altered(kernel: str, event: str, alter: Callable[[str], str]) -> PageDecoder:
    text = alter(format_text(kernel, event))
    return PageDecoder(layout(kernel), {event: parse_event_format(event, text)})


@each_kernel
def test_a_protocol_of_one_byte(kernel: str) -> None:
    def narrow(text: str) -> str:
        return re.sub(r"(protocol;\s*offset:\d+;\s*size:)\d", r"\g<1>1", text)

    data = make_data(formats(kernel)[SET_STATE], protocol=6, newstate=3)
    page = make_page(layout(kernel), make_record(data))
    (event,) = altered(kernel, SET_STATE, narrow).decode(page).events
    assert isinstance(event, StateChange)
    assert event.new == 3


@each_kernel
def test_fields_in_another_order(kernel: str) -> None:
    def swap(text: str) -> str:
        return text.replace("sport;", "x;").replace("dport;", "sport;").replace("x;", "dport;")

    data = make_data(formats(kernel)[DESTROY], sport=1, dport=2)
    (event,) = altered(kernel, DESTROY, swap).decode(
        make_page(layout(kernel), make_record(data))
    ).events  # fmt: skip
    assert isinstance(event, Destroyed)
    assert (event.local_port, event.remote_port) == (2, 1)


@each_kernel
@pytest.mark.parametrize("size", [0, 3])
def test_without_a_pid_a_thread_renames_itself(kernel: str, size: int) -> None:
    def unusable(text: str) -> str:
        return re.sub(r"( pid;\s*offset:\d+;\s*size:)\d", rf"\g<1>{size}", text)

    data = make_data(formats(kernel)[RENAME], common_pid=9, newcomm=b"new")
    page = make_page(layout(kernel), make_record(data))
    decoded = altered(kernel, RENAME, unusable).decode(page)
    assert decoded.events == [TaskRenamed(0, 0, 9, 9, b"new")]


@each_kernel
def test_a_page_of_a_32_bit_kernel(kernel: str) -> None:
    narrow = PageLayout(8, 4, 12, 4084)
    page = make_page(narrow, exit_record(kernel), flags=1 << 31 | 1 << 30, lost=3)
    assert PageDecoder(narrow, formats(kernel)).decode(page) == DecodedPage(
        [Exited(0, 0, 5, 5)], 3, 0
    )


# Broken pages.


@each_kernel
def test_an_empty_read_is_not_malformed(kernel: str) -> None:
    assert decoder(kernel).decode(b"") == DecodedPage([], 0, 0)


@each_kernel
@pytest.mark.parametrize("size", [1, 15])
def test_less_than_a_header_is_malformed(kernel: str, size: int) -> None:
    assert decoder(kernel).decode(pages(kernel)[0][:size]) == DecodedPage([], 0, 1)


@each_kernel
def test_a_truncated_page_gives_its_first_events(kernel: str) -> None:
    known = decoder(kernel)
    for page in pages(kernel):
        whole = known.decode(page).events
        begin = layout(kernel).data_offset
        end = begin + (struct.unpack_from("=Q", page, 8)[0] & 0xFFFFF)
        for size in range(begin, end, 7):
            decoded = known.decode(page[:size])
            assert decoded.events == whole[: len(decoded.events)]
            assert decoded.malformed == 1


@each_kernel
def test_a_record_with_a_length_word_that_is_cut_off_is_malformed(kernel: str) -> None:
    first, second = exit_record(kernel), exit_record(kernel, length_word=True)
    page = make_page(layout(kernel), first, second, time=TIME)
    begin = layout(kernel).data_offset + len(first)
    for size in range(begin, begin + len(second)):
        decoded = decoder(kernel).decode(page[:size])
        assert decoded == DecodedPage([Exited(TIME, 0, 5, 5)], 0, 1)


@given(st.data())
def test_no_bytes_raise(data: st.DataObject) -> None:
    kernel = data.draw(st.sampled_from(KERNELS))
    page = data.draw(st.sampled_from(pages(kernel)))
    broken = data.draw(mutated(page) | mutated(page[:200]) | st.binary(max_size=200))
    decoded = decoder(kernel).decode(broken)
    assert decoded.malformed >= 0
    assert decoded.lost is None or decoded.lost >= 0
