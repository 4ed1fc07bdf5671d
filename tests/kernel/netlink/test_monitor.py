import asyncio
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from agent.kernel.netlink import messages
from agent.kernel.netlink import monitor as ears_module
from agent.kernel.netlink.client import _open_destroy_socket
from agent.kernel.netlink.destroy import GROUPS, PROTOCOLS
from agent.kernel.netlink.monitor import DestroyMonitor, DestroyReport

from ...unshared import in_new_netns
from .captured import answer, message

NETNS = 4026531833
NOTHING = DestroyReport({}, Counter(), Counter(), frozenset())


@pytest.fixture
def hearing() -> Iterator[socket.socket]:
    with _open_destroy_socket() as opened:
        yield opened


@pytest.fixture
async def ears(hearing: socket.socket) -> AsyncIterator[DestroyMonitor]:
    """They hear our own namespace, from now on."""
    made = DestroyMonitor()
    made.add(NETNS, hearing)
    assert made.affected_protocols() == {NETNS: PROTOCOLS}
    assert made.take() == NOTHING
    yield made
    made.remove([NETNS])


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not true():  # noqa: ASYNC110 (it reads in the event loop, and tells nobody)
            await asyncio.sleep(0.001)


def end_a_socket() -> int:
    """Its port."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        opened.bind(("127.0.0.1", 0))
        port: int = opened.getsockname()[1]
    return port


def ports(ears: DestroyMonitor) -> list[int]:
    """Taken from what was heard."""
    heard = ears.take().notices
    return [int.from_bytes(one.row[4:6], "big") for one in heard.get(NETNS, ())]


async def test_what_ended_before_was_not_heard(hearing: socket.socket) -> None:
    ears = DestroyMonitor()
    assert ears.affected_protocols() == {}
    ears.add(NETNS, hearing)
    # It is doubt, but no overrun that anybody need be told of.
    assert set(ears.affected_protocols()) == {NETNS}
    assert ears.take() == NOTHING
    assert ears.affected_protocols() == {}
    ears.remove([NETNS])


async def test_an_end_is_heard_and_is_doubt(ears: DestroyMonitor) -> None:
    assert list(ears.namespaces) == [NETNS]
    port = end_a_socket()
    found: list[int] = []
    async with asyncio.timeout(20):
        while port not in found:
            await until(lambda: set(ears.affected_protocols()) == {NETNS})
            found += ports(ears)


async def test_what_was_taken_is_not_told_again(ears: DestroyMonitor) -> None:
    end_a_socket()
    await until(lambda: bool(ears.affected_protocols()))
    first = ports(ears)
    assert first
    assert not set(first) & set(ports(ears))


async def test_to_listen_again_to_the_same_is_no_doubt(
    ears: DestroyMonitor, hearing: socket.socket
) -> None:
    ears.add(NETNS, hearing)
    assert ears.take().lost == set()


async def test_another_socket_replaces_the_first(ears: DestroyMonitor) -> None:
    with _open_destroy_socket() as other:
        ears.add(NETNS, other)
        assert set(ears.affected_protocols()) == {NETNS}
        ears.take()
        assert list(ears.namespaces) == [NETNS]
        port = end_a_socket()
        found: list[int] = []
        while port not in found:
            await until(lambda: bool(ears.affected_protocols()))
            found += ports(ears)
        assert found.count(port) == 1
        ears.remove([NETNS])


async def test_who_left_hears_nothing(ears: DestroyMonitor, hearing: socket.socket) -> None:
    end_a_socket()
    await until(lambda: bool(ears.affected_protocols()))
    ears.remove([NETNS, NETNS + 1])
    assert (ears.affected_protocols(), ears.take(), list(ears.namespaces)) == ({}, NOTHING, [])
    end_a_socket()
    hearing.settimeout(20)  # A notice comes a little after the end.
    assert hearing.recv(65536)  # It waits here still: nobody has read it.
    assert ears.affected_protocols() == {}


async def test_more_than_is_kept_is_doubt(
    ears: DestroyMonitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ears_module, "MAX_NOTICES", 3)
    for _ in range(10):
        end_a_socket()
    await until(lambda: NETNS in ears._lost)
    heard, _ignored, _malformed, overrun = ears.take()
    assert 3 <= len(heard[NETNS]) < 10
    assert overrun == {NETNS}


async def test_more_notices_than_one_turn_reads_are_all_heard(ears: DestroyMonitor) -> None:
    ended = {end_a_socket() for _ in range(ears_module._MAX_READS + 50)}
    found: set[int] = set()
    while not ended <= found:
        await until(lambda: bool(ears.affected_protocols()))
        found |= set(ports(ears))


async def test_a_socket_that_fails_is_left_in_doubt(ears: DestroyMonitor) -> None:
    # A peer that is not there makes reading fail, otherwise than an overrun does.
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as failing:
        failing.setblocking(False)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as nobody:
            nobody.bind(("127.0.0.1", 0))
            failing.connect(nobody.getsockname())
        ears.add(7, failing)
        ears.take()
        failing.send(b"x")
        await until(lambda: 7 not in ears.namespaces)
        # What ends from now on is not heard.
        assert 7 in ears.take().lost


async def test_an_overrun_is_doubt(ears: DestroyMonitor, hearing: socket.socket) -> None:
    hearing.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)  # As little as the kernel grants.
    async with asyncio.timeout(20):
        while True:
            ended = [end_a_socket() for _ in range(100)]
            time.sleep(0.05)  # noqa: ASYNC251 (the kernel tells meanwhile, and nobody reads)
            await asyncio.sleep(0.01)
            assert set(ears.affected_protocols()) == {NETNS}
            heard, _ignored, _malformed, overrun = ears.take()
            assert len(heard.get(NETNS, ())) < len(ended)
            if overrun == {NETNS}:
                break
    assert list(ears.namespaces) == [NETNS]  # It goes on to hear.
    assert ears.affected_protocols() == {}
    ours: set[int] = set()
    found: set[int] = set()
    async with asyncio.timeout(20):
        while not ours & found:  # What else ends on this machine may overrun it once more.
            ours.add(end_a_socket())
            await until(lambda: bool(ears.affected_protocols()))
            found.update(ports(ears))


def test_what_another_process_sends_to_the_groups_is_ignored_and_counted() -> None:
    async def forge() -> tuple[list[int], int, Counter[int], Counter[int]]:
        with (
            _open_destroy_socket() as hearing,
            socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 4) as forger,
        ):
            forger.bind((0, 0))
            ears = DestroyMonitor()
            ears.add(NETNS, hearing)
            for group in GROUPS:
                for forged in (answer("destroyed"), message(b"short"), b"\0"):
                    forger.sendto(forged, (0, 1 << group - 1))
            port, found = end_a_socket(), []
            ignored, malformed = Counter[int](), Counter[int]()
            async with asyncio.timeout(20):
                while port not in found:
                    await until(lambda: bool(ears.affected_protocols()))
                    report = ears.take()
                    found += [
                        int.from_bytes(one.row[4:6], "big") for one in report.notices.get(NETNS, ())
                    ]
                    ignored += report.ignored
                    malformed += report.malformed
            assert ears.take() == NOTHING
            ears.remove([NETNS])
        return found, port, ignored, malformed

    # In a namespace in which nobody else listens.
    found, port, ignored, malformed = in_new_netns(lambda: asyncio.run(forge()))
    assert found == [port]
    assert (ignored, malformed) == ({NETNS: 3 * len(GROUPS)}, {})


@pytest.mark.parametrize("length", [20, 90])
def test_a_datagram_that_is_too_long_is_truncated(
    monkeypatch: pytest.MonkeyPatch, length: int
) -> None:
    monkeypatch.setattr(messages, "_MAX_DATAGRAM_BYTES", length)
    with _open_destroy_socket() as hearing:
        hearing.settimeout(20)
        end_a_socket()
        datagram = messages.receive(hearing)
    assert (len(datagram.data), datagram.truncated, datagram.from_kernel) == (length, True, True)


async def test_truncated_notices_are_counted_and_not_read(
    ears: DestroyMonitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def truncate(hearing: socket.socket) -> messages.Datagram:
        return messages.receive(hearing)._replace(truncated=True)  # Behind a whole message.

    monkeypatch.setattr(ears_module, "receive", truncate)
    end_a_socket()
    await until(lambda: bool(ears._malformed))
    report = ears.take()
    assert not report.ignored
    assert report.malformed[NETNS] >= 1
    assert report.notices.get(NETNS, []) == []


async def test_malformed_notices_of_the_kernel_are_counted(
    ears: DestroyMonitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = messages.Datagram(message(b"short"), from_kernel=True, truncated=False)

    def receive(hearing: socket.socket) -> messages.Datagram:
        messages.receive(hearing)
        return short

    monkeypatch.setattr(ears_module, "receive", receive)
    end_a_socket()
    await until(lambda: bool(ears._malformed))
    assert ears.take().malformed[NETNS] >= 1
    assert list(ears.namespaces) == [NETNS]
