"""Recorded pages of several kernels."""

import re
import struct
from itertools import pairwise

import pytest

from agent.kernel.trace.events import (
    Destroyed,
    Event,
    Executed,
    Exited,
    StateChange,
    TaskCreated,
    TaskRenamed,
)

from .captured import CAPTURES, KERNELS, decoder, having, pages

V4_LOOPBACK = bytes(10) + b"\xff\xff\x7f\0\0\1"
SYN_SENT, ESTABLISHED, CLOSE, LISTEN = 2, 1, 7, 10
SOFT_INTERRUPT = 0x10

each_kernel = pytest.mark.parametrize("kernel", KERNELS)


def recorded(kernel: str, name: str) -> list[Event]:
    """Return the events in recorded pages, all of which must be well-formed."""
    events = []
    for page in pages(kernel, name):
        decoded = decoder(kernel).decode(page)
        assert decoded.malformed == 0
        events += decoded.events
    return events


@each_kernel
def test_recorded_pages_are_well_formed_and_in_order(kernel: str) -> None:
    assert pages(kernel)
    for page in pages(kernel):
        decoded = decoder(kernel).decode(page)
        assert decoded.events
        assert decoded.malformed == 0
        (begin,) = struct.unpack_from("=Q", page)
        assert decoded.events[0].time >= begin
        assert all(one.time <= other.time for one, other in pairwise(decoded.events))


@pytest.mark.parametrize("kernel", having("traffic.bin"))
def test_connections_are_complete(kernel: str) -> None:
    events = recorded(kernel, "traffic")
    changes = [event for event in events if isinstance(event, StateChange)]
    clients = [event for event in changes if (event.old, event.new) == (CLOSE, SYN_SENT)]
    assert [client.family for client in clients] == [2, 10, 2]
    assert clients[0].local == clients[0].remote == V4_LOOPBACK
    for client in clients:
        assert client.local_port == 0  # The port is chosen later.
        (connected,) = [
            event
            for event in changes
            if (event.old, event.new, event.remote_port)
            == (SYN_SENT, ESTABLISHED, client.remote_port)
        ]
        assert connected.address == client.address
        ends = {client.remote_port, connected.local_port}
        destroyed = [
            event
            for event in events
            if isinstance(event, Destroyed) and {event.local_port, event.remote_port} == ends
        ]
        assert client.address in {event.address for event in destroyed}
        assert len({event.cookie for event in destroyed}) == len(destroyed) == 2
    assert len([event for event in changes if event.new == LISTEN]) == 3


@pytest.mark.parametrize("kernel", having("traffic.bin"))
def test_a_program_and_a_thread_are_recorded(kernel: str) -> None:
    events = recorded(kernel, "traffic")
    program, thread = (event for event in events if isinstance(event, TaskCreated))
    assert thread.clone_flags & 0x10000  # CLONE_THREAD
    assert not program.clone_flags & 0x10000
    assert program.comm == thread.comm
    assert b"\0" not in program.comm
    (renamed,) = (event for event in events if isinstance(event, TaskRenamed))
    assert (renamed.renamed_tid, renamed.comm) == (program.new_tid, b"true")
    (executed,) = (event for event in events if isinstance(event, Executed))
    assert executed[2:] == (program.new_tid, program.new_tid, program.new_tid, b"/bin/true")
    exits = [event.exited_tid for event in events if isinstance(event, Exited)]
    assert exits[0] == program.new_tid
    assert thread.new_tid in {event.tid for event in events if isinstance(event, StateChange)}


@pytest.mark.parametrize("kernel", having("traffic.bin"))
def test_flags_show_the_softirq_events_of_the_peer(kernel: str) -> None:
    accepted = [
        event
        for event in recorded(kernel, "traffic")
        if isinstance(event, StateChange) and (event.old, event.new) == (3, ESTABLISHED)
    ]
    assert accepted
    assert all(event.flags & SOFT_INTERRUPT for event in accepted)


@pytest.mark.parametrize("kernel", having("idle.bin"))
def test_idle_gaps_are_in_the_times(kernel: str) -> None:
    assert any(
        decoded_gap > 134_217_728
        for decoded_gap in (
            other.time - one.time for one, other in pairwise(recorded(kernel, "idle"))
        )
    )


@pytest.mark.parametrize("kernel", having("lost.stats"))
def test_a_full_buffer_reports_how_many_events_were_lost(kernel: str) -> None:
    stats = (CAPTURES / kernel / "pages" / "lost.stats").read_text()
    overrun = re.search(r"^overrun: (\d+)$", stats, re.MULTILINE)
    assert overrun is not None
    lost = [decoder(kernel).decode(page).lost or 0 for page in pages(kernel, "lost")]
    assert sum(lost) == int(overrun[1]) > 0


@pytest.mark.parametrize("kernel", having("traffic.bin"))
def test_nothing_was_lost_otherwise(kernel: str) -> None:
    assert {decoder(kernel).decode(page).lost for page in pages(kernel, "traffic")} == {0}
