"""What answers are made of, and the dumps of the inet families."""

import errno
import os
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.kernel.netlink import inet_diag as diag
from agent.kernel.netlink import messages
from agent.kernel.netlink.client import _Link, _open_dump_socket
from agent.kernel.netlink.messages import MALFORMED, DumpError
from agent.kernel.rows import EMPTY, Scope, Table
from agent.model import Opened, Socket
from agent.stream.encoder import AgentInfo, Encoder

from ...make import holding
from ...strategies import mutated
from .captured import (
    DUMPS,
    NETNS,
    SCOPE,
    answer,
    message,
    read,
    rows,
    sockets,
)

NAMES = list(DUMPS)
SO_COOKIE = 57  # asm-generic/socket.h


def endpoints(socket: Socket) -> tuple[object, ...]:
    return socket[5:9]


# Answers.


@pytest.mark.parametrize("name", NAMES)
def test_a_real_answer_is_whole_and_without_malformed_rows(name: str) -> None:
    table = read(name)
    assert table.rows.keys() == set(rows(name))  # Which repeats some of netlink's.
    assert not table.malformed
    assert table.sockets()
    assert {row.netns for row in table.rows.values()} == {NETNS}
    assert {row.source for row in table.rows.values()} == {"netlink"}
    assert {row.proto for row in table.rows.values()} == {name}


def test_done_with_an_errno_is_not_none() -> None:
    with pytest.raises(DumpError) as raised:
        messages.split_rows([answer("unsupported_raw")])
    assert raised.value.errno == errno.ENOENT


@pytest.mark.parametrize(
    ("name", "code"), [("unsupported_family", errno.ENOENT), ("error", errno.EINVAL)]
)
def test_an_error_is_an_error(name: str, code: int) -> None:
    with pytest.raises(DumpError) as raised:
        messages.split_rows([answer(name)])
    assert raised.value.errno == code


def test_a_failure_after_some_rows_is_no_answer() -> None:
    done = answer("unsupported_raw")
    with pytest.raises(DumpError):
        messages.split_rows([answer("udp")[:-20] + done])


def test_done_without_rows_is_none() -> None:
    nothing = answer("udp")[-20:]
    assert messages.split_rows([nothing]) == []


def test_an_answer_in_several_buffers_is_one() -> None:
    parts = [message(row) for row in rows("tcp")]
    done = answer("tcp")[len(b"".join(parts)) :]
    assert messages.split_rows([*parts, done]) == rows("tcp")


@pytest.mark.parametrize("name", NAMES)
def test_an_answer_that_is_not_whole_is_an_error(name: str) -> None:
    data = answer(name)
    assert [messages.is_last(data), messages.is_last(data[:-20])] == [True, False]
    for cut in (data[:-20], data[:-1], data[:-21], data[:100], data[:10]):
        with pytest.raises(DumpError):
            messages.split_rows([cut])


def test_bytes_behind_the_last_message_are_an_error() -> None:
    with pytest.raises(DumpError):
        messages.split_rows([answer("udp") + b"\0"])


def test_done_without_an_errno_is_an_error() -> None:
    with pytest.raises(DumpError):
        messages.split_rows([message(b"", kind=3)])


def test_a_numbered_request_is_answered_under_its_number() -> None:
    (asked,) = diag.inet_dump("tcp").requests
    assert messages.read_sequence(messages.number_request(asked, 0x01020304)) == 0x01020304
    assert len(messages.number_request(asked, 1)) == len(asked)


@pytest.mark.parametrize("name", ["unsupported_raw", "unsupported_family", "error"])
def test_nothing_follows_an_error(name: str) -> None:
    assert messages.is_last(answer(name))


def test_a_message_shorter_than_its_header_does_not_stop_the_clock() -> None:
    with pytest.raises(DumpError):
        messages.split_rows([bytes(64)])


# Rows.


def test_a_listener() -> None:
    assert sockets("tcp")[4341070] == Socket(
        inode=4341070,
        proto="tcp",
        family="inet",
        type=None,
        state="LISTEN",
        local_addr="0.0.0.0",
        local_port=8001,
        direction="listen",
        recv_q=0,
        send_q=0,
        uid=0,
        netns=NETNS,
        source="netlink",
        backlog=7,
        cgroup_id=1,
        cookie=232032,
    )


@pytest.mark.parametrize(
    ("inode", "state", "direction", "local", "remote"),
    [
        (4341073, "ESTABLISHED", "outbound", 40000, 8000),
        (4341074, "ESTABLISHED", "inbound", 8000, 40000),
        (4341075, "FIN_WAIT1", "outbound", 40001, 8001),
        (4341076, "CLOSE_WAIT", "inbound", 8001, 40001),
        # Its listener is an IPv6 one.
        (4341082, "ESTABLISHED", "outbound", 40011, 8002),
    ],
)
def test_tcp_connections(inode: int, state: str, direction: str, local: int, remote: int) -> None:
    row = sockets("tcp")[inode]
    assert (row.state, row.direction, row.family) == (state, direction, "inet")
    assert endpoints(row) == ("127.0.0.1", local, "127.0.0.1", remote)


def test_ipv6_addresses_are_canonical() -> None:
    found = {inode: row for inode, row in sockets("tcp").items() if row.family == "inet6"}
    assert {inode: (*endpoints(row), row.direction) for inode, row in found.items()} == {
        4341071: ("::", 8002, None, None, "listen"),
        4341080: ("::1", 40010, "::1", 8002, "outbound"),
        4341081: ("::1", 8002, "::1", 40010, "inbound"),
        4341083: ("::ffff:127.0.0.1", 8002, "::ffff:127.0.0.1", 40011, "inbound"),
    }


def test_queues_are_bytes_and_of_a_listener_connections() -> None:
    found = sockets("tcp")
    assert (found[4341074].recv_q, found[4341074].send_q) == (100, 0)
    # One waits to be accepted, of five.
    assert (found[4341069].recv_q, found[4341069].send_q, found[4341069].backlog) == (1, 0, 5)


def test_rows_with_inode_0_are_nobodys() -> None:
    unowned = read("tcp").unowned()
    assert sorted(str(row.state) for row in unowned) == ["ESTABLISHED", "FIN_WAIT1", "TIME_WAIT"]
    assert {row.uid for row in unowned} == {None}


def test_the_interface_that_a_socket_is_bound_to_is_named() -> None:
    assert {row.interface for row in sockets("tcp").values()} == {None, "if1"}
    assert sockets("tcp")[4341072].interface == "if1"


def test_cgroups_are_read_only_if_asked_for() -> None:
    without = diag.inet_dump("tcp").read(rows("tcp"), SCOPE, EMPTY).sockets()
    assert {row.cgroup_id for row in without.values()} == {None}
    assert {row.cgroup_id for row in sockets("tcp").values()} == {1}


@pytest.mark.parametrize(
    ("name", "inode", "state", "ends"),
    [
        ("udp", 4341089, "UNCONNECTED", ("127.0.0.1", 5353, None, None)),
        ("udp", 4341090, "ESTABLISHED", ("127.0.0.1", 5354, "127.0.0.1", 5353)),
        ("udp", 4341091, "UNCONNECTED", ("::", 5355, None, None)),
        ("udp", 4341092, "ESTABLISHED", ("::1", 5356, "::1", 5355)),
        ("udplite", 4341093, "UNCONNECTED", ("127.0.0.1", 5360, None, None)),
        ("udplite", 4341094, "UNCONNECTED", ("::1", 5361, None, None)),
    ],
)
def test_datagram_sockets(name: str, inode: int, state: str, ends: tuple[object, ...]) -> None:
    row = sockets(name)[inode]
    assert (row.proto, row.state, row.direction, row.uid) == (name, state, None, 0)
    assert row.family == ("inet6" if ":" in str(ends[0]) else "inet")
    assert endpoints(row) == ends


# Read again, only what is new is read.


@pytest.mark.parametrize("name", NAMES)
def test_an_unchanged_answer_is_the_same_table(name: str) -> None:
    before = read(name)
    assert DUMPS[name].read(rows(name)[::-1], SCOPE, before) is before


@pytest.mark.parametrize("name", NAMES)
def test_only_new_rows_are_decoded(name: str) -> None:
    old, new = rows(name)[:-1], rows(name)
    before = DUMPS[name].read(old, SCOPE, EMPTY)
    table = DUMPS[name].read(new, SCOPE, before)
    assert all(table.rows[row] is before.rows[row] for row in old)
    assert table.rows == read(name).rows


# Whatever comes.


runs_of_rows = st.lists(
    st.tuples(st.sampled_from([0, 56, 68, 72, 74]), st.sampled_from([20, 21]), st.integers(1, 40)),
    max_size=12,
)


@given(runs_of_rows)
def test_rows_alike_are_cut_like_others(runs: list[tuple[int, int, int]]) -> None:
    made = [
        (bytes([number]) * length, kind) for length, kind, count in runs for number in range(count)
    ]
    buffer = b"".join(message(row, kind) for row, kind in made) + message(bytes(4), kind=3)
    assert messages.split_rows([buffer]) == [row for row, _kind in made]


def answers() -> st.SearchStrategy[tuple[str, bytes]]:
    return st.sampled_from(NAMES).flatmap(
        lambda name: st.tuples(st.just(name), mutated(answer(name)))
    )


@given(st.lists(st.binary(max_size=300), max_size=3))
def test_no_bytes_raise_but_as_a_dump_error(buffers: list[bytes]) -> None:
    with suppress(DumpError):
        messages.split_rows(buffers)
    for buffer in buffers:
        messages.is_last(buffer)
        messages.read_sequence(buffer)
        with suppress(*MALFORMED):
            messages.parse_attributes(buffer, 0)


@given(answers())
def test_what_is_read_of_a_mutated_answer_can_be_told(broken: tuple[str, bytes]) -> None:
    name, data = broken
    with suppress(DumpError):
        table = DUMPS[name].read(messages.split_rows([data]), SCOPE, EMPTY)
        encoded(table)


@given(
    st.sampled_from(NAMES).flatmap(
        lambda name: st.tuples(
            st.just(name), st.lists(st.sampled_from(rows(name)).flatmap(mutated), max_size=4)
        )
    )
)
def test_what_is_read_of_mutated_rows_can_be_told(broken: tuple[str, list[bytes]]) -> None:
    name, changed = broken
    table = DUMPS[name].read(changed, SCOPE, EMPTY)
    assert len(table.rows) + len(table.malformed) == len(set(changed))
    encoded(table)


def encoded(table: Table) -> None:
    encoder = Encoder(AgentInfo("host", None, "epoch", 1.0))
    for row in table.rows.values():
        encoder.delta(Opened(holding(row)), 1, 0.0)


# The attributes that are read of each kind of row, with the length of their values, behind the
# fixed fields of the row.
ATTRIBUTES = {
    "tcp": (72, {21: 8}),
    "unix": (16, {2: 4, 4: 8, 7: 4}),
    "netlink": (28, {0: 12}),
    "packet": (16, {0: 4, 5: 4, 6: 4}),
}


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_an_attribute_shorter_than_its_type_makes_a_row_malformed(name: str) -> None:
    fixed, lengths = ATTRIBUTES[name]
    start = rows(name)[0][:fixed]
    for kind, length in lengths.items():
        for size in range(length + 1):
            row = start + struct.pack("=HH", 4 + size, kind) + bytes(size)
            table = DUMPS[name].read([row], SCOPE, EMPTY)
            assert table.malformed == (frozenset() if size == length else {row})


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_an_attribute_that_does_not_fit_makes_a_row_malformed(name: str) -> None:
    start = rows(name)[0][: ATTRIBUTES[name][0]]
    for broken in (b"\0", bytes(3), bytes(4), struct.pack("=HH", 3, 99), struct.pack("=HH", 5, 99)):
        table = DUMPS[name].read([start + broken], SCOPE, EMPTY)
        assert not table.rows
        assert table.malformed == {start + broken}


@pytest.mark.parametrize("name", NAMES)
def test_a_row_cut_off_is_malformed_or_tells_less(name: str) -> None:
    for row in rows(name):
        whole = DUMPS[name].read([row], SCOPE, EMPTY).rows[row]
        for size in range(len(row)):
            table = DUMPS[name].read([row[:size]], SCOPE, EMPTY)
            assert all(one.inode == whole.inode for one in table.rows.values())


# The kernel's own answers.


@pytest.fixture
def ask() -> Any:
    link = _Link(_open_dump_socket(), None)
    yield lambda name, **more: messages.split_rows(link.request(diag.inet_dump(name, **more)))
    link.close()


Ask = Callable[..., list[bytes]]


def row_of(found: list[bytes], opened: socket.socket, scope: Scope = SCOPE) -> tuple[bytes, Socket]:
    proto = "tcp" if opened.type == socket.SOCK_STREAM else "udp"
    table = diag.inet_dump(proto).read(found, scope, EMPTY)
    inode = os.fstat(opened.fileno()).st_ino
    return next((row, one) for row, one in table.rows.items() if one.inode == inode)


def test_one_request_lists_ipv4_and_ipv6(ask: Ask) -> None:
    assert len(diag.inet_dump("tcp").requests) == 1
    with (
        socket.create_server(("127.0.0.1", 0)) as four,
        socket.create_server(("::1", 0), family=socket.AF_INET6) as six,
    ):
        found = ask("tcp")
        families = [row_of(found, opened)[1].family for opened in (four, six)]
    assert families == ["inet", "inet6"]


def test_a_row_has_the_sockets_cookie(ask: Ask) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        row, _socket = row_of(ask("tcp"), server)
        assert row[44:52] == server.getsockopt(socket.SOL_SOCKET, SO_COOKIE, 8)


def test_rows_that_nobody_holds_come_only_if_asked_for(ask: Ask) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        one = socket.create_connection(server.getsockname())
        port = one.getsockname()[1]
        with server.accept()[0] as other:
            one.close()  # Whoever begins to close waits at the end.
            other.recv(1)
        states = []
        for unowned in (False, True):
            table = diag.inet_dump("tcp").read(ask("tcp", include_unowned=unowned), SCOPE, EMPTY)
            ends = (port, server.getsockname()[1])
            states.append(
                {row.state for row in table.rows.values() if endpoints(row)[1::2] == ends}
            )
    assert states == [set(), {"TIME_WAIT"}]


def test_the_cgroup_of_a_socket(ask: Ask) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        row, _socket = row_of(ask("tcp"), server)
        (one,) = diag.inet_dump("tcp", include_cgroups=True).read([row], SCOPE, EMPTY).rows.values()
    if one.cgroup_id is None:
        pytest.skip("before Linux 5.9 or without cgroups a socket tells no cgroup")
    assert one.cgroup_id > 0
