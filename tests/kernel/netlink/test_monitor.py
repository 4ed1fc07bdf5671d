import asyncio
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from agent.kernel.netlink import messages
from agent.kernel.netlink import monitor as monitor_module
from agent.kernel.netlink.client import _open_destroy_socket
from agent.kernel.netlink.destroy import GROUPS, PROTOCOLS
from agent.kernel.netlink.monitor import DestroyMonitor, DestroyReport

from ...unshared import in_new_netns
from .captured import answer, message

NETNS = 4026531833
EMPTY_REPORT = DestroyReport({}, Counter(), Counter(), frozenset())
TIMEOUT_SECONDS = 20


@pytest.fixture
def subscribed() -> Iterator[socket.socket]:
    with _open_destroy_socket() as opened:
        yield opened


@pytest.fixture
async def monitor(subscribed: socket.socket) -> AsyncIterator[DestroyMonitor]:
    """A monitor of the namespace of the tests, after its first report."""
    made = DestroyMonitor()
    made.add(NETNS, subscribed)
    assert made.affected_protocols() == {NETNS: PROTOCOLS}
    assert made.take() == EMPTY_REPORT
    yield made
    made.remove([NETNS])


async def wait_until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(TIMEOUT_SECONDS):
        while not condition():  # noqa: ASYNC110 (readers of the event loop signal nothing)
            await asyncio.sleep(0.001)


async def wait_for_port(monitor: DestroyMonitor, port: int) -> list[int]:
    """Return the ports of all notices up to that of this port."""
    found: list[int] = []
    while port not in found:
        await wait_until(lambda: bool(monitor.affected_protocols()))
        found += ports(monitor.take())
    return found


def close_a_socket() -> int:
    """Bind a UDP socket, close it and return its port."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        opened.bind(("127.0.0.1", 0))
        port: int = opened.getsockname()[1]
    return port


def ports(report: DestroyReport) -> list[int]:
    return [int.from_bytes(notice.row[4:6], "big") for notice in report.notices.get(NETNS, ())]


async def test_a_new_namespace_is_affected_but_has_lost_nothing(
    subscribed: socket.socket,
) -> None:
    monitor = DestroyMonitor()
    assert monitor.affected_protocols() == {}
    monitor.add(NETNS, subscribed)
    assert set(monitor.affected_protocols()) == {NETNS}
    assert monitor.take() == EMPTY_REPORT
    assert monitor.affected_protocols() == {}
    monitor.remove([NETNS])


async def test_a_closed_socket_is_reported(monitor: DestroyMonitor) -> None:
    assert list(monitor.namespaces) == [NETNS]
    port = close_a_socket()
    await wait_until(lambda: bool(monitor.affected_protocols()))
    assert set(monitor.affected_protocols()) == {NETNS}
    assert port in await wait_for_port(monitor, port)


async def test_a_notice_has_the_time_at_which_it_was_received(monitor: DestroyMonitor) -> None:
    before = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    close_a_socket()
    await wait_until(lambda: bool(monitor.affected_protocols()))
    after = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    notices = monitor.take().notices[NETNS]
    assert notices
    assert all(before < notice.received < after for notice in notices)


async def test_a_notice_is_reported_once(monitor: DestroyMonitor) -> None:
    close_a_socket()
    await wait_until(lambda: bool(monitor.affected_protocols()))
    first = ports(monitor.take())
    assert first
    assert not set(first) & set(ports(monitor.take()))


async def test_adding_the_same_socket_again_changes_nothing(
    monitor: DestroyMonitor, subscribed: socket.socket
) -> None:
    monitor.add(NETNS, subscribed)
    assert monitor.take().lost == set()


async def test_another_socket_replaces_the_first(monitor: DestroyMonitor) -> None:
    with _open_destroy_socket() as other:
        monitor.add(NETNS, other)
        assert set(monitor.affected_protocols()) == {NETNS}
        monitor.take()
        assert list(monitor.namespaces) == [NETNS]
        port = close_a_socket()
        found = await wait_for_port(monitor, port)
        assert found.count(port) == 1
        monitor.remove([NETNS])


async def test_a_removed_namespace_is_not_read(
    monitor: DestroyMonitor, subscribed: socket.socket
) -> None:
    close_a_socket()
    await wait_until(lambda: bool(monitor.affected_protocols()))
    monitor.remove([NETNS, NETNS + 1])
    assert monitor.affected_protocols() == {}
    assert monitor.take() == EMPTY_REPORT
    assert list(monitor.namespaces) == []
    close_a_socket()
    subscribed.settimeout(TIMEOUT_SECONDS)  # The kernel sends the notice a little later.
    assert subscribed.recv(65536)  # The notice is still queued.
    assert monitor.affected_protocols() == {}


async def test_notices_beyond_the_limit_are_lost(
    monitor: DestroyMonitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monitor_module, "MAX_NOTICES", 3)
    for _ in range(10):
        close_a_socket()
    await wait_until(lambda: NETNS in monitor._lost)
    report = monitor.take()
    assert 3 <= len(report.notices[NETNS]) < 10
    assert report.lost == {NETNS}


async def test_more_notices_than_one_turn_reads_are_all_reported(monitor: DestroyMonitor) -> None:
    closed = {close_a_socket() for _ in range(monitor_module._MAX_READS + 50)}
    found: set[int] = set()
    while not closed <= found:
        await wait_until(lambda: bool(monitor.affected_protocols()))
        found.update(ports(monitor.take()))


async def test_a_socket_that_fails_is_dropped_and_reported_as_lost(
    monitor: DestroyMonitor,
) -> None:
    # A refused datagram makes reading fail with another error than an overrun.
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as failing:
        failing.setblocking(False)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as closed:
            closed.bind(("127.0.0.1", 0))
            failing.connect(closed.getsockname())
        monitor.add(7, failing)
        monitor.take()
        failing.send(b"x")
        await wait_until(lambda: 7 not in monitor.namespaces)
        assert 7 in monitor.take().lost


async def test_an_overrun_is_reported_as_lost(
    monitor: DestroyMonitor, subscribed: socket.socket
) -> None:
    subscribed.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)  # Rounded up to the minimum.
    async with asyncio.timeout(TIMEOUT_SECONDS):
        while True:
            closed = [close_a_socket() for _ in range(100)]
            time.sleep(0.05)  # noqa: ASYNC251 (the kernel sends meanwhile, and nothing is read)
            await asyncio.sleep(0.01)
            assert set(monitor.affected_protocols()) == {NETNS}
            report = monitor.take()
            assert len(report.notices.get(NETNS, ())) < len(closed)
            if report.lost == {NETNS}:
                break
    assert list(monitor.namespaces) == [NETNS]  # Reading continues.
    assert monitor.affected_protocols() == {}
    ours: set[int] = set()
    found: set[int] = set()
    async with asyncio.timeout(TIMEOUT_SECONDS):
        while not ours & found:  # Sockets of other processes may cause another overrun.
            ours.add(close_a_socket())
            await wait_until(lambda: bool(monitor.affected_protocols()))
            found.update(ports(monitor.take()))


def test_messages_of_another_process_are_ignored_and_counted() -> None:
    async def forge() -> tuple[list[int], int, Counter[int], Counter[int]]:
        found: list[int] = []
        ignored, malformed = Counter[int](), Counter[int]()
        with (
            _open_destroy_socket() as subscribed,
            socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 4) as forger,
        ):
            forger.bind((0, 0))
            monitor = DestroyMonitor()
            monitor.add(NETNS, subscribed)
            for group in GROUPS:
                for forged in (answer("destroyed"), message(b"short"), b"\0"):
                    forger.sendto(forged, (0, 1 << group - 1))
            port = close_a_socket()
            async with asyncio.timeout(TIMEOUT_SECONDS):
                while port not in found:
                    await wait_until(lambda: bool(monitor.affected_protocols()))
                    report = monitor.take()
                    found += ports(report)
                    ignored += report.ignored
                    malformed += report.malformed
            assert monitor.take() == EMPTY_REPORT
            monitor.remove([NETNS])
        return found, port, ignored, malformed

    # In a namespace without other sockets.
    found, port, ignored, malformed = in_new_netns(lambda: asyncio.run(forge()))
    assert found == [port]
    assert (ignored, malformed) == ({NETNS: 3 * len(GROUPS)}, {})


async def test_truncated_datagrams_are_counted_as_malformed(
    monitor: DestroyMonitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def truncate(subscribed: socket.socket) -> messages.Datagram:
        return messages.receive(subscribed)._replace(truncated=True)  # After a whole message.

    monkeypatch.setattr(monitor_module, "receive", truncate)
    close_a_socket()
    await wait_until(lambda: bool(monitor._malformed))
    report = monitor.take()
    assert not report.ignored
    assert report.malformed[NETNS] >= 1
    assert ports(report) == []


async def test_malformed_messages_of_the_kernel_are_counted(
    monitor: DestroyMonitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = messages.Datagram(message(b"short"), from_kernel=True, truncated=False)

    def receive(subscribed: socket.socket) -> messages.Datagram:
        messages.receive(subscribed)
        return short

    monkeypatch.setattr(monitor_module, "receive", receive)
    close_a_socket()
    await wait_until(lambda: bool(monitor._malformed))
    assert monitor.take().malformed[NETNS] >= 1
    assert list(monitor.namespaces) == [NETNS]
