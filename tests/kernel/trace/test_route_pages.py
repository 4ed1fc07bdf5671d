"""Pages with look-ups of routes: recorded ones, made ones, and broken ones."""

from __future__ import annotations

import json
from socket import AF_INET, AF_INET6, inet_pton

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.kernel.trace.events import ROUTE, ROUTE6, UDP_EVENTS, RouteLookup
from agent.kernel.trace.pages import DecodedPage

from ...strategies import mutated
from .captured import (
    CAPTURES,
    UDP_KERNELS,
    decoder,
    layout,
    make_data,
    make_page,
    make_record,
    pages,
    udp_decoder,
    udp_formats,
)

TIME = 1 << 50
each_kernel = pytest.mark.parametrize("kernel", UDP_KERNELS)
V4, V4_TO = bytes([127, 0, 0, 1]), bytes([10, 0, 0, 2])
V6, V6_TO = bytes(range(16)), bytes(range(16, 32))
MAPPED = bytes(10) + b"\xff\xff"


def data_of(kernel: str, event: str, **values: int) -> bytes:
    is_v4 = event == ROUTE
    usual: dict[str, int | bytes] = {
        "common_pid": 7, "iif": 1, "proto": 17, "sport": 40_000, "dport": 53,
        "src": V4 if is_v4 else V6, "dst": V4_TO if is_v4 else V6_TO,
    }  # fmt: skip
    return make_data(udp_formats(kernel)[event], **{**usual, **values})


def decode(kernel: str, *data: bytes) -> DecodedPage:
    records = [make_record(one) for one in data]
    return udp_decoder(kernel).decode(make_page(layout(kernel), *records, time=TIME))


def test_a_kernel_has_recorded_look_ups() -> None:
    assert UDP_KERNELS


@each_kernel
def test_recorded_look_ups_are_those_of_the_sockets(kernel: str) -> None:
    found = []
    for page in pages(kernel, folder="udp"):
        decoded = udp_decoder(kernel).decode(page)
        assert (decoded.malformed, decoded.lost) == (0, 0)
        found += [event for event in decoded.events if isinstance(event, RouteLookup)]
    sent = json.loads((CAPTURES / kernel / "udp" / "sent.json").read_text())
    assert {event.local_port for event in found} == {one["port"] for one in sent}
    assert len({one["tid"] for one in sent}) == 2
    for one in sent:
        first, *_others = [event for event in found if event.local_port == one["port"]]
        to = one["to"].removeprefix("::ffff:")
        family = AF_INET6 if ":" in to else AF_INET
        assert (first.tid, first.family, first.protocol) == (one["tid"], family, 17)
        assert (first.remote, first.remote_port) == (raw(to), 9)
        assert first.local in (raw(one["bound"]), MAPPED + bytes(4), bytes(16))
        assert not first.flags & 0x18


def raw(address: str) -> bytes:
    return inet_pton(AF_INET6, address if ":" in address else f"::ffff:{address}")


@each_kernel
def test_each_family_is_decoded(kernel: str) -> None:
    decoded = decode(kernel, data_of(kernel, ROUTE), data_of(kernel, ROUTE6, common_flags=0x80))
    assert decoded == DecodedPage([
        RouteLookup(TIME, 0, 7, AF_INET, 17, 40_000, 53, MAPPED + V4, MAPPED + V4_TO),
        RouteLookup(TIME, 0x80, 7, AF_INET6, 17, 40_000, 53, V6, V6_TO),
    ], 0, 0)  # fmt: skip
    assert all(isinstance(event, RouteLookup) for event in decoded.events)


@each_kernel
@pytest.mark.parametrize("event", UDP_EVENTS)
def test_other_protocols_and_forwarded_packets_are_dropped(kernel: str, event: str) -> None:
    others = (data_of(kernel, event, proto=6), data_of(kernel, event, iif=2))
    assert decode(kernel, *others) == DecodedPage([], 0, 0)


@each_kernel
@pytest.mark.parametrize("event", UDP_EVENTS)
def test_short_data_is_counted(kernel: str, event: str) -> None:
    decoded = decode(kernel, data_of(kernel, event)[:24], data_of(kernel, event))
    assert (len(decoded.events), decoded.malformed) == (1, 1)


@each_kernel
def test_a_decoder_without_them_skips_look_ups(kernel: str) -> None:
    page = make_page(layout(kernel), make_record(data_of(kernel, ROUTE)), time=TIME)
    assert decoder(kernel).decode(page) == DecodedPage([], 0, 0)


@given(st.data())
def test_no_bytes_raise(data: st.DataObject) -> None:
    kernel = data.draw(st.sampled_from(UDP_KERNELS))
    page = data.draw(st.sampled_from(pages(kernel, folder="udp")))
    broken = data.draw(mutated(page) | mutated(page[:300]) | st.binary(max_size=200))
    decoded = udp_decoder(kernel).decode(broken)
    assert decoded.malformed >= 0
    for event in decoded.events:
        if isinstance(event, RouteLookup):
            assert event.protocol == 17
            assert len(event.local) == len(event.remote) == 16


@given(st.integers(0, 65_535), st.integers(0, 65_535), st.binary(min_size=4, max_size=4))
def test_any_ports_and_addresses_are_kept(local: int, remote: int, address: bytes) -> None:
    kernel = UDP_KERNELS[-1]
    values: dict[str, int | bytes] = {
        "iif": 1, "proto": 17, "sport": local, "dport": remote, "src": address, "dst": address
    }  # fmt: skip
    (event,) = decode(kernel, make_data(udp_formats(kernel)[ROUTE], **values)).events
    assert isinstance(event, RouteLookup)
    assert (event.local_port, event.remote_port) == (local, remote)
    assert event.local == event.remote == MAPPED + address
