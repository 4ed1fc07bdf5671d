"""Requests, answers, attributes and datagrams."""

import errno
import socket
import struct
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.kernel.netlink import messages
from agent.kernel.netlink.client import _open_destroy_socket
from agent.kernel.netlink.inet_diag import inet_dump
from agent.kernel.netlink.messages import MALFORMED, DumpError, MalformedRow, split_rows

from .captured import NAMES, answer, message, rows

# Answers.


def test_done_with_an_errno_is_an_error() -> None:
    with pytest.raises(DumpError) as raised:
        split_rows([answer("unsupported_raw")])
    assert raised.value.errno == errno.ENOENT


@pytest.mark.parametrize(
    ("name", "code"), [("unsupported_family", errno.ENOENT), ("error", errno.EINVAL)]
)
def test_an_error_message_is_an_error(name: str, code: int) -> None:
    with pytest.raises(DumpError) as raised:
        split_rows([answer(name)])
    assert raised.value.errno == code


def test_a_failure_after_some_rows_is_an_error() -> None:
    done = answer("unsupported_raw")
    with pytest.raises(DumpError):
        split_rows([answer("udp")[:-20] + done])


def test_done_without_rows_is_an_empty_answer() -> None:
    assert split_rows([answer("udp")[-20:]]) == []


def test_an_answer_in_several_buffers_is_the_same() -> None:
    parts = [message(row) for row in rows("tcp")]
    done = answer("tcp")[len(b"".join(parts)) :]
    assert split_rows([*parts, done]) == rows("tcp")


@pytest.mark.parametrize("name", NAMES)
def test_an_incomplete_answer_is_an_error(name: str) -> None:
    data = answer(name)
    assert [messages.is_last(data), messages.is_last(data[:-20])] == [True, False]
    for cut in (data[:-20], data[:-1], data[:-21], data[:100], data[:10]):
        with pytest.raises(DumpError):
            split_rows([cut])


@pytest.mark.parametrize("trailing", [b"\0", bytes(5), bytes(6), bytes(15)])
def test_bytes_after_the_last_message_are_an_error(trailing: bytes) -> None:
    with pytest.raises(DumpError):
        split_rows([answer("udp") + trailing])


def test_done_without_an_errno_is_an_error() -> None:
    with pytest.raises(DumpError):
        split_rows([message(b"", kind=3)])


def test_a_length_below_that_of_a_header_is_an_error() -> None:
    with pytest.raises(DumpError):
        split_rows([bytes(64)])


@pytest.mark.parametrize("name", ["unsupported_raw", "unsupported_family", "error"])
def test_an_error_is_the_end_of_an_answer(name: str) -> None:
    assert messages.is_last(answer(name))


def test_an_answer_has_the_sequence_number_of_its_request() -> None:
    (request,) = inet_dump("tcp").requests
    numbered = messages.number_request(request, 0x01020304)
    assert messages.read_sequence(numbered) == 0x01020304
    assert len(numbered) == len(request)


runs_of_rows = st.lists(
    st.tuples(st.sampled_from([0, 56, 68, 72, 74]), st.sampled_from([20, 21]), st.integers(1, 40)),
    max_size=12,
)


@given(runs_of_rows)
def test_rows_of_every_length_are_split(runs: list[tuple[int, int, int]]) -> None:
    made = [
        (bytes([number]) * length, kind) for length, kind, count in runs for number in range(count)
    ]
    buffer = b"".join(message(row, kind) for row, kind in made) + message(bytes(4), kind=3)
    assert split_rows([buffer]) == [row for row, _kind in made]


@given(st.lists(st.binary(max_size=300), max_size=3))
def test_no_bytes_raise_anything_but_dump_errors_and_malformed_rows(buffers: list[bytes]) -> None:
    with suppress(DumpError):
        split_rows(buffers)
    for buffer in buffers:
        messages.is_last(buffer)
        messages.read_sequence(buffer)
        with suppress(*MALFORMED):
            messages.parse_attributes(buffer, 0)


# Attributes.


def test_attributes_are_parsed_by_type() -> None:
    row = b"row." + struct.pack("=HHc3xHHHH2s", 5, 1, b"x", 4, 2, 6, 3, b"yz")
    assert messages.parse_attributes(row, 4) == {1: b"x", 2: b"", 3: b"yz"}
    assert messages.parse_attributes(row, len(row)) == {}
    with pytest.raises(MalformedRow):
        messages.parse_attributes(row[:-1], 4)


# Datagrams.


@pytest.mark.parametrize("length", [20, 90])
def test_a_datagram_longer_than_the_buffer_is_truncated(
    monkeypatch: pytest.MonkeyPatch, length: int
) -> None:
    monkeypatch.setattr(messages, "_MAX_DATAGRAM_BYTES", length)
    with _open_destroy_socket() as subscribed:
        subscribed.settimeout(20)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
            opened.bind(("127.0.0.1", 0))
        datagram = messages.receive(subscribed)
    assert (len(datagram.data), datagram.truncated, datagram.from_kernel) == (length, True, True)
