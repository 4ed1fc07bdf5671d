"""The process of a UDP socket that no poll saw, from who sent from its port."""

from __future__ import annotations

from collections.abc import Collection
from socket import AF_INET, AF_INET6, inet_pton

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.kernel.trace.routes import ProcessId, Sender
from agent.kernel.trace.tasks import Task
from agent.model import Socket
from agent.snapshot.reading import EndedSocket
from agent.snapshot.senders import WAIT_SECONDS, NoticedEnd, SenderFinder, Surroundings

NETNS, OTHER = 5, 6
PORT = 4000
LATER = WAIT_SECONDS + 0.001


class Source:
    """What was sent, by port."""

    def __init__(self) -> None:
        self.has_senders = True
        self.senders: dict[int, list[Sender]] = {}

    def senders_of(self, port: int) -> list[Sender]:
        return list(self.senders.get(port, ()))

    def forget_senders(self, port: int, processes: Collection[ProcessId]) -> None:
        left = [one for one in self.senders_of(port) if one.process not in processes]
        self.senders[port] = left


class Finder:
    """A finder; process 600 and above is in the namespace OTHER, 500 and above in NETNS, the
    namespace of others is not known. ``ports`` are those of the table."""

    def __init__(self) -> None:
        self.source = Source()
        self.ports: set[int] = set()
        self.finder = SenderFinder(self.source)
        self.known = Surroundings(
            lambda task: OTHER if task.pid >= 600 else NETNS if task.pid >= 500 else None,
            lambda _netns: frozenset(self.ports),
        )

    def send(self, *senders: Sender, port: int = PORT) -> None:
        self.source.senders.setdefault(port, []).extend(senders)

    def end(
        self,
        *sockets: Socket,
        now: float = 0.0,
        netns: int | None = NETNS,
        late: bool = False,
        received: int = 10,
    ) -> list[int | None]:
        """Return the processes of the sockets that are reported."""
        ends = [NoticedEnd(EndedSocket(one), netns, received) for one in sockets]
        found = self.finder.find(ends, self.known, now, are_late=late)
        return [None if one.sender is None else one.sender.task.pid for one in found]


@pytest.fixture
def finder() -> Finder:
    return Finder()


def raw(address: str) -> bytes:
    return inet_pton(AF_INET6, address if ":" in address else f"::ffff:{address}")


def sender(
    pid: int = 100, to: tuple[str, int] = ("127.0.0.1", 53), source: str = "0.0.0.0", time: int = 1
) -> Sender:
    family = AF_INET6 if ":" in to[0] else AF_INET
    return Sender(Task(pid), time, family, raw(source), raw(to[0]), to[1])


def udp(
    peer: tuple[str, int] | None = None, local: str = "0.0.0.0", family: str = "inet"
) -> Socket:
    remote, remote_port = peer or (None, None)
    return Socket(0, "udp", family, None, None, local, PORT, remote, remote_port)


def test_the_only_process_that_sent_from_the_port_is_that_of_the_socket(finder: Finder) -> None:
    finder.send(sender(time=1), sender(to=("127.0.0.1", 54), time=2))
    assert finder.end(udp()) == [100]


def test_of_two_processes_none_is_taken(finder: Finder) -> None:
    finder.send(sender(100), sender(101))
    assert finder.end(udp(), udp(), now=0.0) == [None]
    assert finder.end(now=LATER) == [None]


def test_of_two_sockets_that_had_the_port_it_is_not_known_which_one_sent(finder: Finder) -> None:
    finder.send(sender())
    assert finder.end(udp(), udp()) == [None]
    assert finder.end(now=LATER) == [None]
    finder.send(sender())
    assert finder.end(udp(), udp(("127.0.0.1", 53))) == [None]
    finder.send(sender(to=("127.0.0.1", 54)))
    assert finder.end(udp(("127.0.0.1", 54)), udp(("127.0.0.1", 53)), now=LATER) == [None, 100]


def test_what_is_sent_after_the_end_is_of_a_later_socket(finder: Finder) -> None:
    finder.send(sender(time=11))
    assert finder.end(udp(), received=10) == []
    assert finder.end(now=LATER) == [None]
    assert finder.end(udp(), received=11) == [100]


def test_a_process_whose_pid_is_used_again_is_another_one(finder: Finder) -> None:
    finder.send(sender(), sender()._replace(task=Task(100, 5)))
    assert finder.end(udp()) == [None]


def test_a_process_in_another_namespace_did_not_send_from_the_socket(finder: Finder) -> None:
    finder.send(sender(600), sender(500))
    assert finder.end(udp()) == [500]
    assert finder.end(udp(), netns=OTHER) == [600]


def test_the_look_ups_of_a_socket_are_used_once(finder: Finder) -> None:
    finder.send(sender())
    assert finder.end(udp()) == [100]
    assert finder.end(udp()) == []
    assert finder.end(now=LATER) == [None]


def test_the_look_ups_of_a_socket_that_a_poll_saw_are_used_up(finder: Finder) -> None:
    finder.send(sender(), sender(600))
    finder.finder.forget(NoticedEnd(EndedSocket(udp()), NETNS, 10), finder.known)
    assert finder.source.senders_of(PORT) == [sender(600)]
    other = EndedSocket(udp()._replace(proto="tcp"))
    finder.finder.forget(NoticedEnd(other, OTHER, 10), finder.known)
    assert finder.source.senders_of(PORT) == [sender(600)]


def test_a_look_up_that_is_read_after_the_notice_counts(finder: Finder) -> None:
    assert finder.end(udp()) == []
    assert finder.finder.is_waiting
    finder.send(sender())
    assert finder.end(now=0.001) == [100]
    assert not finder.finder.is_waiting


def test_a_socket_does_not_wait_long_unless_events_are_late(finder: Finder) -> None:
    assert finder.end(udp(), late=True) == []
    assert finder.end(now=LATER, late=True) == []
    assert finder.end(now=LATER) == [None]
    assert not finder.finder.is_waiting


def test_a_socket_that_shares_its_port_with_an_open_one_has_no_process(finder: Finder) -> None:
    finder.ports.add(PORT)
    finder.send(sender())
    assert finder.end(udp()) == [None]
    finder.send(sender())
    assert finder.end(udp(("127.0.0.1", 53))) == [100]  # The destination is its own.


@pytest.mark.parametrize(
    ("sent", "row", "fits"),
    [
        (sender(), udp(("127.0.0.1", 53)), True),
        (sender(), udp(("127.0.0.1", 54)), False),
        (sender(), udp(("127.0.0.2", 53)), False),
        (sender(source="127.0.0.1"), udp(local="127.0.0.1"), True),
        (sender(source="127.0.0.1"), udp(local="127.0.0.2"), False),
        (sender(source="127.0.0.1"), udp(), True),
        (sender(), udp(local="127.0.0.1"), True),
        (sender(to=("::1", 53), source="::"), udp(("::1", 53), "::1", "inet6"), True),
        (sender(to=("::1", 53), source="::"), udp(), False),
        (sender(), udp(("::ffff:127.0.0.1", 53), "::ffff:127.0.0.1", "inet6"), True),
        (sender(), udp(None, "::", "inet6"), True),
    ],
)
def test_ports_and_addresses_must_agree(
    finder: Finder, sent: Sender, row: Socket, fits: bool
) -> None:
    finder.send(sent)
    finder.end(row)
    assert finder.end(now=LATER) == ([] if fits else [None])
    assert bool(finder.source.senders_of(PORT)) is not fits


def test_what_a_process_sent_before_it_connected_is_used_up_with_the_connection(
    finder: Finder,
) -> None:
    finder.send(sender(to=("127.0.0.9", 9)), sender())
    assert finder.end(udp(("127.0.0.1", 53))) == [100]
    assert finder.source.senders_of(PORT) == []


def test_other_sockets_are_passed_on(finder: Finder) -> None:
    finder.send(sender())
    others = [udp()._replace(proto="tcp"), udp()._replace(proto="udplite")]
    assert finder.end(*others) == [None, None]
    assert finder.end(udp(), netns=None) == [None]


def test_without_events_no_socket_waits(finder: Finder) -> None:
    finder.end(udp())
    finder.source.has_senders = False
    assert finder.end(udp()) == [None, None]
    assert SenderFinder(None).find(
        [NoticedEnd(EndedSocket(udp()), NETNS, 10)], finder.known, 0.0, are_late=False
    ) == [EndedSocket(udp())]


# Of each socket: its process, and whether it sends. They follow each other at one port.
@given(st.lists(st.tuples(st.integers(500, 504), st.booleans()), max_size=20))
def test_sockets_that_follow_each_other_have_their_own_process(
    lives: list[tuple[int, bool]],
) -> None:
    finder = Finder()
    for number, (pid, sends) in enumerate(lives):
        if sends:
            finder.send(sender(pid))
        at = number * 1.0
        found = [*finder.end(udp(), now=at), *finder.end(now=at + LATER)]
        assert found == [pid if sends else None]


@given(st.lists(st.lists(st.tuples(st.integers(500, 503), st.booleans()), max_size=5), max_size=6))
def test_sockets_whose_ends_are_read_together_have_no_process_of_another(
    batches: list[list[tuple[int, bool]]],
) -> None:
    finder = Finder()
    for number, lives in enumerate(batches):
        finder.send(*(sender(pid) for pid, sends in lives if sends))
        sockets = [udp() for _ in lives]
        found = [*finder.end(*sockets, now=float(number)), *finder.end(now=number + LATER)]
        assert len(found) == len(lives)
        assert {pid for pid in found if pid} <= {pid for pid, sends in lives if sends}
        if len(lives) > 1:
            assert set(found) == {None}
