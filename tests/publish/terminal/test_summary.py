from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from agent.model import Coverage, Holding, HostHolding, Process, Socket
from agent.publish.terminal.aggregate import (
    IN,
    LISTEN,
    OTHER,
    OUT,
    End,
    HostSummary,
    Summarizer,
    summarize,
)
from agent.publish.terminal.options import Options
from agent.publish.terminal.peers import Holder
from agent.publish.terminal.safe import width
from agent.publish.terminal.summary import summary

from ... import strategies
from ...make import process, tcp
from .machine import COVERAGE, HOST, web_server

EMPTY = HostSummary("h", 0, 0, [], {})
SERVER, CLIENT = process(7, comm="server"), process(8, comm="client")


def held(socket: Socket, by: Process | None = SERVER, host: str = "h") -> HostHolding:
    return HostHolding(host, Holding(socket, by, (3,), None), None)


def connection(
    inode: int, direction: str | None, local: tuple[str, int], remote: tuple[str, int], **more: Any
) -> Socket:
    fields = {"state": "ESTABLISHED", **more}
    return tcp(
        inode, direction=direction, local_addr=local[0], local_port=local[1],
        remote_addr=remote[0], remote_port=remote[1], **fields,
    )  # fmt: skip


def listener(inode: int = 1, at: tuple[str, int] = ("0.0.0.0", 80), **more: Any) -> Socket:
    return tcp(inode, direction="listen", local_addr=at[0], local_port=at[1], **more)


def ends(*holdings: HostHolding, **more: Any) -> Sequence[End]:
    (one,) = summarize(holdings, **more)
    return one.ends


def notes(*holdings: HostHolding, **options: Any) -> list[str]:
    """Return the notes of each row."""
    _title, header, *rows, _last = summary(holdings, {}, Options(**options))
    at = header.index("NOTES")
    return [row[at:] for row in rows]


def calls(count: int, port: int = 80) -> list[HostHolding]:
    """Return a listener and so many connections to it from one other process, both ends."""
    found = [held(listener(at=("127.0.0.1", port)))]
    for number in range(count):
        at, to = ("127.0.0.1", 50_000 + number), ("127.0.0.1", port)
        found += [
            held(connection(100 + number, "inbound", to, at)),
            held(connection(500 + number, "outbound", at, to), CLIENT),
        ]
    return found


def test_one_row_for_each_process_and_service_end() -> None:
    found = [(end.role, end.address, end.port, end.connections) for end in ends(*calls(5))]
    assert found == [
        (LISTEN, "127.0.0.1", 80, 1), (IN, "127.0.0.1", 80, 5), (OUT, "127.0.0.1", 80, 5)
    ]  # fmt: skip


def test_both_ends_are_named() -> None:
    assert notes(*calls(3)) == ["", "all from client[8]", "all to server[7]"]
    assert notes(*calls(1)) == ["", "1 from client[8]", "1 to server[7]"]


def test_a_caller_on_this_machine_that_is_gone_adds_no_note() -> None:
    gone = connection(9, "inbound", ("127.0.0.1", 80), ("127.0.0.1", 1), state="CLOSE_WAIT")
    assert notes(*calls(1), held(gone))[1] == "1 CLOSE_WAIT; 1 from client[8]"
    assert notes(held(gone)) == ["1 CLOSE_WAIT; from 127.0.0.1"]


def test_several_peers_are_counted_apart() -> None:
    found = calls(6)
    for number in range(6):
        row = found[2 + 2 * number]
        by = process(20 + (number > 2) + (number > 4), comm="c")
        found[2 + 2 * number] = held(row.holding.socket, by)
    assert notes(*found)[1] == "3 from c[20]; 2 from c[21]; 1 from 1 other processes"


def test_connections_to_a_wildcard_are_one_row() -> None:
    found = ends(
        held(listener()),
        held(connection(2, "inbound", ("10.0.0.1", 80), ("10.0.0.9", 5000))),
        held(connection(3, "inbound", ("10.0.0.2", 80), ("10.0.0.8", 5000))),
        held(connection(4, "inbound", ("10.0.0.2", 81), ("10.0.0.8", 5000))),
        held(connection(5, "inbound", ("10.0.0.2", 80), ("10.0.0.8", 5000), netns=2)),
    )
    assert [(end.address, end.port, end.connections) for end in found[1:]] == [
        (None, 80, 2), ("10.0.0.2", 80, 1), ("10.0.0.2", 81, 1)
    ]  # fmt: skip


def test_addresses_of_callers_are_counted() -> None:
    def callers(*addresses: str) -> str:
        return notes(
            *(
                held(connection(2 + number, "inbound", ("10.0.0.1", 80), (address, number + 1)))
                for number, address in enumerate(addresses)
            )
        )[0]

    assert callers("10.0.0.9") == "from 10.0.0.9"
    assert callers("10.0.0.9", "10.0.0.9") == "from 10.0.0.9"
    assert callers("10.0.0.9", "10.0.0.8", "::ffff:10.0.0.8") == "from 2 addresses"


def test_a_process_that_calls_one_port_at_many_addresses_has_one_row() -> None:
    def called(count: int) -> Sequence[End]:
        return ends(
            *(
                held(
                    connection(1 + number, "outbound", ("10.0.0.1", 5000), (f"10.1.0.{number}", 80))
                )
                for number in range(count)
            )
        )

    assert [(end.address, end.connections) for end in called(3)] == [
        ("10.1.0.0", 1), ("10.1.0.1", 1), ("10.1.0.2", 1)
    ]  # fmt: skip
    (end,) = called(200)
    assert (end.address, end.connections, len(end.sources)) == (None, 200, 200)
    assert end.states == {"ESTABLISHED": 200}


def test_a_socket_that_several_hold_counts_once() -> None:
    socket = connection(2, "inbound", ("10.0.0.1", 80), ("10.0.0.9", 5000))
    found = ends(held(socket), held(socket, CLIENT))
    assert [(end.connections, end.others) for end in found] == [(1, 1)]


def test_the_socket_with_most_holders_counts_them() -> None:
    sockets = [
        connection(2 + number, "inbound", ("10.0.0.1", 80), ("10.0.0.9", number))
        for number in range(3)
    ]
    third = process(9, comm="third")
    found = ends(
        *(held(socket) for socket in sockets),
        *(held(sockets[1], by) for by in (CLIENT, third)),
        held(sockets[2], CLIENT),
    )
    assert [(end.connections, end.others) for end in found] == [(3, 2)]


def test_queues_of_listeners() -> None:
    assert notes(held(listener(recv_q=0, backlog=511))) == ["all addresses; queue 0/511"]
    assert notes(held(listener(recv_q=512, backlog=511))) == ["queue 512/511: FULL; all addresses"]
    assert notes(held(listener(recv_q=511, backlog=511))) == ["all addresses; queue 511/511"]
    assert notes(held(listener(at=("127.0.0.1", 80), recv_q=0))) == [""]


def test_the_fullest_of_several_listeners_is_shown() -> None:
    queues = [
        held(listener(1 + number, recv_q=queue, backlog=9))
        for number, queue in enumerate((1, 5, 2))
    ]
    assert notes(*queues) == ["all addresses; queue 5/9"]


def test_states_that_are_not_as_usual_are_counted() -> None:
    found = [
        held(connection(2 + number, "inbound", ("10.0.0.1", 80), ("10.0.0.9", number), state=state))
        for number, state in enumerate(["CLOSE_WAIT", "ESTABLISHED", "CLOSE_WAIT"])
    ]
    assert notes(*found) == ["2 CLOSE_WAIT; from 10.0.0.9"]


def udp(inode: int, port: int, remote: tuple[str, int] | None) -> Socket:
    socket = tcp(inode, "UNCONNECTED" if remote is None else "ESTABLISHED", local_port=port)
    if remote is not None:
        socket = socket._replace(remote_addr=remote[0], remote_port=remote[1])
    return socket._replace(proto="udp", local_addr="0.0.0.0")


def test_udp_without_a_peer_listens() -> None:
    found = ends(
        held(udp(1, 53, None)),
        held(udp(2, 53, ("10.0.0.9", 4000))),
        held(udp(3, 4000, ("9.9.9.9", 53))),
    )
    assert [(end.role, end.address, end.port) for end in found] == [
        (LISTEN, None, 53), (IN, None, 53), (OUT, "9.9.9.9", 53)
    ]  # fmt: skip


def test_a_connection_of_unknown_direction_is_shown() -> None:
    (end,) = ends(held(connection(1, None, ("10.0.0.1", 5000), ("10.0.0.2", 6000))))
    assert (end.role, end.address, end.port) == (OTHER, "10.0.0.2", 6000)


def test_holders_that_are_not_known_have_a_row() -> None:
    title, _header, row, _last = summary([held(listener(), None)], {}, Options())
    assert title == "h: 0 processes, 1 socket"
    assert row.split()[:6] == ["listen", "tcp", "*:80", "-", "?", "-"]


def test_other_families_are_counted_or_shown() -> None:
    short = list(summary(web_server(), {HOST: COVERAGE}, Options(root_can=True)))
    assert short[0] == "web1: 14 processes, 48 sockets"
    assert short[-1] == (
        "Not shown: 4 unix, 1 netlink, 1 packet, 1 raw (-a). "
        "1 process could not be read (root can). One port: sockagent :22"
    )
    every = list(summary(web_server(), {HOST: COVERAGE}, Options(root_can=True), all_families=True))
    assert every[-1] == "1 process could not be read (root can). One port: sockagent :22"
    assert len(every) == len(short) + 7


def last_line(unreadable: int, *missing: str) -> str:
    return list(summary([], {"h": Coverage(3, unreadable, 1, missing)}, Options()))[-1]


def test_gaps_are_named() -> None:
    end = "One port: sockagent :8080"
    assert last_line(0) == end
    assert last_line(0, "tcp was not read") == f"tcp was not read. {end}"
    assert last_line(2, "the descriptors of 2 processes may not be read", "tcp was not read") == (
        f"2 processes could not be read. tcp was not read. {end}"
    )
    assert last_line(0, *"abcd") == f"a. b. c. 1 more gap. {end}"
    assert last_line(0, *"abcde") == f"a. b. c. 2 more gaps. {end}"


def test_each_host_has_a_section() -> None:
    holdings = [held(listener(), host="b"), held(listener(), host="a")]
    found = list(summary(holdings, {"c": Coverage(1, 0, 1)}, Options()))
    blank = [number for number, line in enumerate(found) if not line]
    assert [found[number] for number in (0, *(number + 1 for number in blank))] == [
        "a: 1 process, 1 socket", "b: 1 process, 1 socket", "c: 0 processes, 0 sockets"
    ]  # fmt: skip


def test_notes_are_left_out_whole() -> None:
    found = calls(2)
    for number, row in enumerate(found[1::2]):
        socket = row.holding.socket._replace(state="CLOSE_WAIT" if number else "ESTABLISHED")
        found[1 + 2 * number] = held(socket)
    assert notes(*found)[1] == "1 CLOSE_WAIT; all from client[8]"
    assert notes(*found, width=80)[1] == "1 CLOSE_WAIT …"
    assert notes(*found, width=80, ascii=True)[1] == "1 CLOSE_WAIT ..."


def test_the_columns_that_are_hidden_are_named() -> None:
    found = []
    for limit in range(200, 40, -1):
        *_, before, _last = summary(web_server(), {}, Options(width=limit))
        if before.startswith("hidden: ") and before not in found:
            found.append(before)
    assert found == [
        "hidden: UNIT; -o summary | less -S",
        "hidden: UNIT, USER; -o summary | less -S",
    ]
    assert not any("hidden" in line for line in summary(web_server(), {}, Options()))


def test_a_line_fits_where_columns_can_go() -> None:
    for limit in range(102, 200):
        rows = list(summary(web_server(), {}, Options(width=limit)))[1:-1]
        assert max(map(width, rows)) <= limit


@given(st.lists(strategies.held, max_size=12))
def test_every_socket_is_counted_once(held: list[Holding]) -> None:
    unique = {one.socket.inode: one for one in held}
    holdings = [HostHolding("h", one, None) for one in unique.values()]
    for every in (False, True):
        for one in summarize(holdings, all_families=every):
            total = sum(end.connections for end in one.ends) + sum(one.omitted.values())
            assert total == one.sockets == len(unique)
            assert not (every and one.omitted)


@given(st.lists(strategies.held, max_size=12), st.lists(st.integers(0, 12)), st.booleans())
def test_parts_make_the_summary_of_the_whole(
    held: list[Holding], cuts: list[int], every: bool
) -> None:
    # Two processes hold each second socket.
    others = [one._replace(process=SERVER) for one in held[::2]]
    holdings = [HostHolding("h", one, None) for one in (*held, *others)]
    summarizer = Summarizer("h", all_families=every)
    for start, end in pairwise((0, *sorted(cuts), len(holdings))):
        summarizer.add(holdings[start:end])
    assert [summarizer.summary()] == (summarize(holdings, all_families=every) or [EMPTY])
    assert summarizer.summary() == summarizer.summary()


def test_a_row_is_of_the_oldest_holder_whichever_comes_last() -> None:
    """A child that inherited both ends came before its parent."""
    parent, child = process(9, start_ticks=1), process(5, start_ticks=7)
    call = connection(2, "outbound", ("127.0.0.1", 5000), ("127.0.0.1", 80))
    answer = connection(3, "inbound", ("127.0.0.1", 80), ("127.0.0.1", 5000))
    for order in ((child, parent), (parent, child)):
        summarizer = Summarizer("h")
        for each in order:
            summarizer.add([held(call, each), held(answer, each)])
        for end in summarizer.summary().ends:
            assert (end.holding.process, end.others) == (parent, 1)
            assert list(end.peers) == [Holder(parent.comm, parent.pid, 1)]


@given(st.lists(strategies.held, max_size=12))
def test_peers_are_at_most_the_connections(held: list[Holding]) -> None:
    for one in summarize([HostHolding("h", each, None) for each in held], all_families=True):
        for end in one.ends:
            assert sum(end.peers.values()) <= end.connections
            assert end.role == LISTEN or Counter(end.states).total() == end.connections


@given(st.integers(40, 250), st.booleans())
def test_no_address_is_ever_shortened(limit: int, every: bool) -> None:
    text = "\n".join(summary(web_server(), {}, Options(width=limit), all_families=every))
    for address in (
        "*:443", "127.0.0.53:53", "127.0.0.1:8080", "[fe80::5054:ff:fe12:3456]:546",
        "10.0.9.20:5432", "from 127.0.0.1",
    ):  # fmt: skip
        assert f" {address}" in text
