from __future__ import annotations

from typing import Any

import pytest

from agent.model import Holding, HostHolding, Owner, Process, Socket
from agent.publish.terminal.peers import Holder
from agent.publish.terminal.rows import Row, group, make_rows

from ...make import process, tcp

ONE, TWO, THREE = (process(pid, start_ticks=1000 - pid, comm=f"p{pid}") for pid in (1, 2, 3))


def held(socket: Socket, by: Process | None = ONE, host: str = "h", **more: Any) -> HostHolding:
    return HostHolding(host, Holding(socket, by, (3,), Owner(0, "root"), **more), None)


def end(inode: int, local: tuple[str, int], remote: tuple[str, int], **more: Any) -> Socket:
    return tcp(
        inode, "ESTABLISHED", local_addr=local[0], local_port=local[1], remote_addr=remote[0],
        remote_port=remote[1], **more,
    )  # fmt: skip


A, B = ("127.0.0.1", 50_000), ("127.0.0.1", 80)


def peers_of(*holdings: HostHolding) -> list[Holder | None]:
    return [row.peer for row in make_rows(holdings)]


def test_holders_of_one_socket_are_one_row_with_the_oldest_one() -> None:
    shared, own = tcp(11), tcp(12)
    found = make_rows([held(shared, ONE), held(own, TWO), held(shared, THREE), held(shared, TWO)])
    assert [(row.holding.process, row.others) for row in found] == [(THREE, 2), (TWO, 0)]


def test_the_lower_pid_is_older_if_both_started_in_one_tick() -> None:
    first, second = ONE._replace(start_ticks=5), TWO._replace(start_ticks=5)
    (row,) = make_rows([held(tcp(), second), held(tcp(), first)])
    assert row.holding.process == first


def test_every_holder_has_a_row_if_asked_for() -> None:
    found = make_rows([held(tcp(), ONE), held(tcp(), TWO)], every_holder=True)
    assert [(row.holding.process, row.others) for row in found] == [(TWO, 0), (ONE, 0)]


def test_sockets_without_an_inode_are_apart() -> None:
    sockets, several = group([held(tcp(0), None), held(tcp(0), None)])
    assert len(sockets) == 2
    assert not several


def test_hosts_are_apart() -> None:
    found = make_rows([held(tcp(), ONE, "a"), held(tcp(), ONE, "b")])
    assert [(row.host, row.others) for row in found] == [("a", 0), ("b", 0)]


def test_a_tcp_peer_has_the_swapped_addresses_and_ports() -> None:
    assert peers_of(held(end(1, A, B), ONE), held(end(2, B, A), TWO)) == [
        Holder("p2", 2, 0),
        Holder("p1", 1, 0),
    ]


def test_a_peer_may_be_the_same_process() -> None:
    assert peers_of(held(end(1, A, B)), held(end(2, B, A))) == [Holder("p1", 1, 0)] * 2


@pytest.mark.parametrize(
    "other",
    [
        held(end(2, B, A, netns=2), TWO),
        held(end(2, B, A), TWO, "other"),
        held(end(2, B, ("127.0.0.2", A[1])), TWO),
        held(end(2, ("127.0.0.2", B[1]), A), TWO),
        held(end(2, B, A)._replace(proto="udp"), TWO),
        held(end(2, B, A), None),
        held(tcp(2, local_port=80), TWO),
    ],
)
def test_other_sockets_are_no_peers(other: HostHolding) -> None:
    assert peers_of(held(end(1, A, B)), other)[0] is None


def test_unknown_namespaces_have_no_peers() -> None:
    assert peers_of(held(end(1, A, B, netns=None)), held(end(2, B, A, netns=None))) == [None, None]


def test_connections_between_the_same_ports_are_told_apart() -> None:
    addresses = [f"127.0.0.{number}" for number in range(1, 5)]
    holdings = []
    for number, address in enumerate(addresses):
        server, client = process(100 + number), process(200 + number)
        holdings += [
            held(end(2 * number + 1, (address, 80), (address, 50_000)), server),
            held(end(2 * number + 2, (address, 50_000), (address, 80)), client),
        ]
    pids = [peer and peer.pid for peer in peers_of(*holdings)]
    assert pids == [200, 100, 201, 101, 202, 102, 203, 103]


def test_one_end_may_have_mapped_addresses() -> None:
    mapped = end(2, (f"::ffff:{B[0]}", B[1]), (f"::ffff:{A[0]}", A[1]))._replace(family="inet6")
    assert [peer and peer.pid for peer in peers_of(held(end(1, A, B)), held(mapped, TWO))] == [2, 1]


def test_both_ends_may_have_mapped_addresses() -> None:
    a, b = (f"::ffff:{A[0]}", A[1]), (f"::ffff:{B[0]}", B[1])
    ends = [end(1, a, b)._replace(family="inet6"), end(2, b, a)._replace(family="inet6")]
    assert [peer and peer.pid for peer in peers_of(held(ends[0]), held(ends[1], TWO))] == [2, 1]


def test_a_peer_that_several_hold_is_the_oldest_one() -> None:
    found = peers_of(held(end(1, A, B), ONE), held(end(2, B, A), TWO), held(end(2, B, A), THREE))
    assert found == [Holder("p3", 3, 1), Holder("p1", 1, 0)]
    assert found[0] is not None
    assert found[0].label == "p3[3] +1"


def test_a_process_that_holds_a_shared_and_an_own_socket() -> None:
    found = peers_of(
        held(end(1, A, B), ONE),
        held(end(2, B, A), TWO),
        held(end(3, ("127.0.0.1", 50_001), B), ONE),
        held(end(4, B, ("127.0.0.1", 50_001)), TWO),
        held(end(4, B, ("127.0.0.1", 50_001)), ONE),
    )
    assert found == [
        Holder("p2", 2, 0), Holder("p1", 1, 0), Holder("p2", 2, 1), Holder("p1", 1, 0)
    ]  # fmt: skip


def unix(inode: int, peer: int | None, path: str | None = None) -> Socket:
    return Socket(inode, "unix", "unix", "stream", "CONNECTED", path=path, peer_inode=peer)


def test_a_unix_peer_is_the_socket_with_its_inode() -> None:
    found = peers_of(held(unix(1, 2), ONE), held(unix(2, 1, "/run/x"), TWO))
    assert found == [Holder("p2", 2, 0, "/run/x"), Holder("p1", 1, 0)]


def test_a_unix_peer_that_is_not_listed_is_named_by_its_pid() -> None:
    only = held(unix(1, 99), ONE, peer_pid=2)
    assert peers_of(only) == [Holder("?", 2, 0)]
    assert peers_of(only, held(unix(5, None), TWO)) == [Holder("p2", 2, 0), None]


def test_peers_are_looked_for_among_all_holdings() -> None:
    shown, hidden = held(end(1, A, B), ONE), held(end(2, B, A), TWO)
    assert make_rows([shown], [hidden, shown]) == [
        Row("h", shown.holding, None, 0, Holder("p2", 2, 0), shown.holding.socket, ONE)
    ]


def test_a_host_that_is_not_among_all_holdings_has_its_own_peers() -> None:
    shown = [held(end(1, A, B), ONE), held(end(2, B, A), TWO)]
    found = make_rows(shown, [held(tcp(), ONE, "other")])
    assert [row.peer and row.peer.pid for row in found] == [2, 1]
