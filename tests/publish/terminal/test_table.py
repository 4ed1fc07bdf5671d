from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import UsageError
from agent.model import Holding, HostHolding, Owner, Socket
from agent.publish.terminal.cells import age_text
from agent.publish.terminal.columns import COLUMNS, check_columns, check_sort
from agent.publish.terminal.endpoints import local_end, remote_end
from agent.publish.terminal.options import Options
from agent.publish.terminal.rows import Row, make_rows
from agent.publish.terminal.safe import width
from agent.publish.terminal.table import table
from agent.stream.encoder import record_fields

from ... import strategies
from ...make import holding, process, tcp
from .machine import HOST, NOW, on, web_server

WEB = web_server()


def lines(holdings: Sequence[HostHolding] = WEB, **options: Any) -> list[str]:
    return list(table(make_rows(holdings), Options(**options)))


def one(socket: Socket, host: str = HOST, **fields: Any) -> HostHolding:
    return HostHolding(host, Holding(socket, process(**fields), (3,), None), None)


def column(name: str, **options: Any) -> list[str]:
    return lines(columns=(name,), header=False, **options)


def test_columns_are_hidden_in_their_order() -> None:
    hidden = []
    for limit in range(250, 30, -1):
        last = lines(on(8080, WEB), width=limit)[-1]
        if last.startswith("hidden: ") and last not in hidden:
            hidden.append(last)
    order = ("UNIT", "SENDQ", "RECVQ", "USER", "PEER", "DIR")
    assert hidden == [
        f"hidden: {', '.join(order[:count])}; -o wide" for count in range(1, len(order) + 1)
    ]


def test_a_line_fits_if_the_columns_that_remain_do() -> None:
    for limit in range(76, 250):
        assert max(map(width, lines(on(8080, WEB), width=limit))) <= limit


def test_texts_are_shortened_before_a_column_is_hidden() -> None:
    name = "a-service-with-a-very-long-name.service"
    shown = lines([one(tcp(), unit=name)], width=110)
    assert "…" in shown[1]
    assert "a-servic…service" in shown[1] or shown[1].endswith("e.service")
    assert "hidden" not in shown[-1]
    assert name in lines([one(tcp(), unit=name)], width=200)[1]


def test_one_long_name_does_not_shorten_the_others() -> None:
    long = f"docker-{'f' * 64}.scope"
    found = lines(
        [
            HostHolding(
                HOST, Holding(tcp(), process(unit=long), (3,), Owner(101, "systemd-resolve")), None
            )
        ],
        width=140,
    )
    assert "  systemd-resolve  " in found[1]
    assert found[1].endswith("f.scope")
    assert long not in found[1]
    assert width(found[1]) == 140


def test_in_a_pipe_nothing_is_hidden_or_shortened() -> None:
    name = "x" * 300
    assert lines([one(tcp(), unit=name)])[1].endswith(f"  {name}")
    assert lines([one(tcp(), unit=name)], wide=True, width=80)[1].count(name) == 1


def test_chosen_columns_are_not_hidden() -> None:
    assert lines(columns=("unit", "PID"), width=10)[0].split() == ["UNIT", "PID"]


def test_several_hosts_have_a_column() -> None:
    both = [one(tcp(), "b"), one(tcp(), "a")]
    assert [line.split()[0] for line in lines(both)] == ["HOST", "a", "b"]
    assert lines(both, columns=("pid",))[0] == "PID"


def test_the_header_can_be_left_out() -> None:
    assert lines(columns=("state",), header=False) == lines(columns=("state",))[1:]


def test_no_rows() -> None:
    assert lines([]) == [
        "PROCESS  PID  USER  PROTO  DIR  STATE  LOCAL  REMOTE  PEER  RECVQ  SENDQ  UNIT"
    ]
    assert lines([], header=False) == []


def test_a_listener_shows_its_accept_queue() -> None:
    assert column("recvq").count("129/128") == 1
    assert column("recvq").count("  0/511") == 3


def test_sorted_by_a_number_a_text_and_an_address() -> None:
    assert column("pid", sort="pid") == sorted(column("pid", sort="pid"), key=pid_order)
    assert column("pid", sort="-pid")[:2] == ["3100", "3100"]
    assert column("pid", sort="-pid")[-1] == "   -"
    assert column("comm", sort="comm")[0] == "gunicorn"
    found = [text.strip() for text in column("remote", sort="remote")]
    assert found[:3] == ["10.0.9.20:5432", "10.0.9.20:5432", "127.0.0.1:22"]
    assert found.index("198.51.100.1:51510") < found.index(
        "[2001:db8:ffff:ffff:ffff:ffff:ffff:1]:60001"
    )
    assert found[-1] in ("*", "-")
    local = column("local_addr", sort="local_addr")
    assert local.index("10.0.0.4") < local.index("127.0.0.1") < local.index("::")


def pid_order(text: str) -> tuple[bool, int]:
    return (text.strip() == "-", int(text) if text.strip() != "-" else 0)


@pytest.mark.parametrize("name", COLUMNS)
@pytest.mark.parametrize("descending", ["", "-"])
def test_every_column_can_be_shown_and_sorted_by(name: str, descending: str) -> None:
    check_columns([name, name.upper()])
    check_sort(descending + name)
    assert len(column(name, sort=descending + name)) == len(make_rows(WEB))


@given(st.lists(strategies.holdings, max_size=8), st.sampled_from(sorted(COLUMNS)))
def test_any_holdings_can_be_sorted(held: list[Holding], name: str) -> None:
    rows = make_rows([HostHolding("h", each, None) for each in held])
    found = list(table(rows, Options(sort=name, columns=("inode",), header=False)))
    assert sorted(text.strip() for text in found) == sorted(
        str(row.holding.socket.inode) for row in rows
    )


@given(strategies.holdings)
def test_every_field_of_the_records_is_a_column(held: Holding) -> None:
    assert record_fields(held).keys() <= COLUMNS.keys()


def test_an_unknown_column_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="no column 'lokal'; did you mean local") as raised:
        check_columns(["pid", "lokal"])
    assert raised.value.argument == "columns"
    with pytest.raises(UsageError, match="did you mean state") as raised:
        check_sort("-stat")
    assert raised.value.argument == "sort"
    with pytest.raises(UsageError, match="expected one of age, backlog, cgroup"):
        check_columns(["qqqqqq"])


@pytest.mark.parametrize(
    ("fields", "local"),
    [
        ({"local_addr": "0.0.0.0", "local_port": 80}, "*:80"),
        ({"local_addr": "::", "local_port": 80}, "[*]:80"),
        ({"local_addr": "::1", "local_port": 80}, "[::1]:80"),
        ({"local_addr": "10.0.0.1", "local_port": 0}, "10.0.0.1:*"),
        ({"local_addr": "10.0.0.1", "interface": "eth0"}, "10.0.0.1%eth0:8080"),
        ({"local_addr": "fe80::1", "interface": "eth0"}, "[fe80::1%eth0]:8080"),
        ({"local_addr": None, "local_port": None}, "-"),
    ],
)
def test_addresses(fields: dict[str, Any], local: str) -> None:
    assert local_end(tcp(**fields), Options()) == local


def test_names_of_addresses_and_services_replace_numbers() -> None:
    options = Options(names={"10.0.0.1": "db.example"}, services={("tcp", 5432): "postgresql"})
    socket = tcp(remote_addr="10.0.0.1", remote_port=5432)
    assert remote_end(socket, options) == "db.example:postgresql"
    assert local_end(socket, options) == "127.0.0.1:8080"


def test_without_a_peer_the_remote_end_is_a_star() -> None:
    assert remote_end(tcp(), Options()) == "*"


def test_ages() -> None:
    found = [age_text(seconds) for seconds in (-1, 0, 59.9, 60, 3600, 90_000, 172_800)]
    assert found == ["0s", "0s", "59s", "1m", "1h", "25h", "2d"]


def test_the_age_is_shown_where_both_times_are_known() -> None:
    socket = HostHolding(HOST, holding(), 100.0)
    assert lines([socket], columns=("age",), header=False, now=160.0) == ["1m"]
    assert lines([socket], columns=("age",), header=False) == ["-"]


def test_a_wide_table_has_no_ages_where_they_cannot_be_known() -> None:
    (with_age, *_), (without, *_) = lines(WEB, wide=True, now=NOW), lines(WEB, wide=True)
    assert [name for name in with_age.split() if name not in without.split()] == ["AGE"]


def test_colours() -> None:
    def painted(socket: Socket, name: str) -> list[str]:
        text = lines([one(socket)], columns=(name,), header=False, color=True)[0]
        return re.findall(r"\x1b\[(\d+)m", text)

    assert painted(tcp(local_addr="0.0.0.0"), "local") == ["33", "0"]
    assert painted(tcp(local_addr="10.0.0.1"), "local") == []
    assert painted(tcp(), "local") == ["2", "0"]
    assert painted(tcp(state="CLOSE_WAIT"), "state") == ["31", "0"]
    assert painted(tcp(state="ESTABLISHED"), "state") == []
    assert painted(tcp(recv_q=6, backlog=5), "recvq") == ["31", "0"]
    assert painted(tcp(recv_q=5, backlog=5), "recvq") == []


ADDRESSES = [
    (local_end(each.holding.socket, Options()), remote_end(each.holding.socket, Options()))
    for each in WEB
    if each.holding.socket.family in ("inet", "inet6")
]


@given(st.integers(40, 250), st.booleans(), st.booleans())
def test_no_address_is_ever_shortened(limit: int, color: bool, ascii: bool) -> None:
    words = {
        word
        for line in lines(width=limit, color=color, ascii=ascii)
        for word in re.sub(r"\x1b\[\d+m", "", line).split()
    }
    for local, remote in ADDRESSES:
        assert {local, remote} <= words


def is_plain(row: Row) -> bool:
    return row.holding.socket.family != "unix"


@given(st.lists(strategies.holdings, max_size=5), st.integers(40, 250))
def test_no_address_of_any_socket_is_shortened(held: list[Holding], limit: int) -> None:
    rows = make_rows([HostHolding("h", each, None) for each in held])
    text = "\n".join(table(rows, Options(width=limit)))
    for row in filter(is_plain, rows):
        assert local_end(row.holding.socket, Options()) in text
        assert remote_end(row.holding.socket, Options()) in text


def test_wide_characters_keep_the_columns_aligned() -> None:
    names = ["nginx", "日本語", "e\u0301a", "\u202ex"]
    found = lines([one(tcp(number), pid=number, comm=name) for number, name in enumerate(names, 1)])
    starts = {width(line[: line.index("127.0.0.1")]) for line in found[1:]}
    assert len(starts) == 1
    assert any("\\x{202e}x" in line for line in found)


def test_rows_are_by_process_and_of_each_those_that_listen_first() -> None:
    shown = [
        one(tcp(1, "ESTABLISHED", direction="outbound"), comm="b"),
        one(tcp(4), comm="c", pid=9),
    ]
    shown += [one(tcp(2, direction="inbound"), comm="b"), one(tcp(3, direction="listen"), comm="b")]
    shown += [HostHolding(HOST, Holding(tcp(5), None, (), None), None)]
    found = lines(shown, columns=("comm", "inode"), header=False)
    assert [line.split() for line in found] == [
        ["b", "3"], ["b", "2"], ["b", "1"], ["c", "4"], ["-", "5"]
    ]  # fmt: skip


def test_a_row_for_each_holder_in_a_wide_table() -> None:
    rows = make_rows(on(8080, WEB), WEB, every_holder=True)
    found = list(table(rows, Options(wide=True, now=NOW)))
    assert found[0].split()[-6:] == ["AGE", "CONTAINER", "INODE", "NETNS", "EXE", "CGROUP"]
    assert [line.split()[1] for line in found[1:3]] == ["1201", "1204"]
    assert "+" not in "".join(found)
