"""Trace events of the real kernel, from the instance to what is reported."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator

import pytest

from agent.kernel.procfs.mount import ProcFS
from agent.kernel.procfs.scanner import ProcessScanner
from agent.kernel.procfs.threads import is_initial_pid_namespace
from agent.kernel.trace import instance
from agent.kernel.trace.routes import MAX_PER_SECOND
from agent.kernel.trace.unavailable import TraceUnavailable
from agent.snapshot import trace_events
from agent.snapshot.trace_events import TraceEvents
from agent.snapshot.udp_switch import FLOODED, RETRY_SECONDS

from ..fakeproc import FakeProc

TIMEOUT_SECONDS = 10.0
needs_events = pytest.mark.skipif(
    os.geteuid() != 0 or not instance.find_tracefs() or not is_initial_pid_namespace("/proc"),
    reason="requires root, tracefs and the initial pid namespace",
)


@pytest.fixture
async def events(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[TraceEvents]:
    """Trace events with those of UDP, in an instance of the name of this test."""
    monkeypatch.setattr(instance, "SERVICE_INSTANCE", "sockagent-test-agent")
    made = TraceEvents(ProcessScanner(ProcFS("/proc")), udp=True)
    await made.open()
    try:
        if made.missing():
            pytest.skip(made.missing()[0])
        yield made
    finally:
        await made.close()


def send(count: int = 1) -> int:
    """Send datagrams from a socket of its own; return its port."""
    with socket.socket(type=socket.SOCK_DGRAM) as one:
        for _ in range(count):
            one.sendto(b"x", ("127.0.0.1", 9))
        return int(one.getsockname()[1])


def has_sent(events: TraceEvents, port: int) -> bool:
    """Return whether events show that this process sent from a port."""
    until = time.monotonic() + TIMEOUT_SECONDS
    while time.monotonic() < until:
        events.take()
        if any(one.task.pid == os.getpid() for one in events.senders_of(port)):
            return True
        time.sleep(0.005)
    return False


@needs_events
async def test_a_datagram_shows_its_sender_until_that_is_forgotten(events: TraceEvents) -> None:
    port = send()
    assert events.has_senders
    assert has_sent(events, port)
    events.forget_senders(port, {one.process for one in events.senders_of(port)})
    assert not events.senders_of(port)


@needs_events
async def test_after_a_flood_of_datagrams_the_events_are_read_again(
    events: TraceEvents, monkeypatch: pytest.MonkeyPatch
) -> None:
    until = time.monotonic() + TIMEOUT_SECONDS
    while events.has_senders:
        assert time.monotonic() < until
        send(MAX_PER_SECOND)
        events.take()
        await asyncio.sleep(0)
    assert events.missing() == [FLOODED]
    await asyncio.sleep(0.2)  # The events are switched off in a thread.
    monkeypatch.setattr(trace_events, "CHECK_SECONDS", 0.0)
    await events.check()
    assert events.missing() == [FLOODED]  # It is too early.
    loop = asyncio.get_running_loop()
    monkeypatch.setattr(loop, "time", lambda: time.monotonic() + RETRY_SECONDS)
    await events.check()
    assert events.missing() == []
    assert has_sent(events, send())


async def test_an_agent_that_started_without_events_tries_again(
    fake: FakeProc, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def refuse(_self: TraceEvents) -> None:
        calls.append("open")
        raise TraceUnavailable(f"reason {len(calls)}")

    monkeypatch.setattr(TraceEvents, "_open", refuse)
    events = TraceEvents(fake.scanner())
    with pytest.raises(TraceUnavailable):
        await events.open()
    events.set_off("reason 1")
    await events.check()
    assert (events.off, len(calls)) == ("reason 1", 1)
    monkeypatch.setattr(trace_events, "RETRY_SECONDS", 0.0)
    await events.check()
    assert (events.off, len(calls)) == ("reason 2", 2)
    assert not events.is_reading
