"""One moment in each format."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import services, show
from agent.config import Config, View
from agent.model import Coverage, Holding, HostHolding
from agent.publish.terminal import names
from agent.publish.terminal.columns import COLUMNS, sort_rows
from agent.publish.terminal.delimited import FIELDS
from agent.publish.terminal.names import Resolver
from agent.publish.terminal.options import Options
from agent.publish.terminal.rows import make_rows
from agent.publish.terminal.safe import safe
from agent.publish.terminal.summary import summary
from agent.publish.terminal.table import table
from agent.show import Moment, render, shown
from agent.stream.filters import Filter

from . import strategies
from .feeding import ONE, THREE, TWO
from .make import FULL_COVERAGE, holding, process, records, tcp
from .publish.terminal.machine import COVERAGE, HOST, NOW, web_server

UTC = Options(utc=True)


def of_host(*holdings: Holding, host: str = "host") -> list[HostHolding]:
    return [HostHolding(host, one, None) for one in holdings]


def moment(
    holdings: Sequence[HostHolding], coverage: Mapping[str, Coverage] | None = None
) -> Moment:
    return Moment(holdings, coverage or {}, NOW)


def rendered(
    output: str,
    holdings: Sequence[HostHolding],
    config: Config | None = None,
    coverage: Mapping[str, Coverage] | None = None,
    options: Options = UTC,
) -> bytes:
    found = moment(holdings, coverage)
    return b"".join(render(output, found, holdings, config or Config(), options))


def text(lines: list[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


# What is shown.


def test_a_filter_hides_holdings() -> None:
    found = moment(of_host(ONE, TWO, THREE))
    assert shown(found, Filter({"port": ["1,3"]})) == of_host(ONE, THREE)
    assert shown(found, Filter()) == found.holdings


# Records.


def test_the_records_are_those_of_a_snapshot() -> None:
    found = records(rendered("ndjson", of_host(ONE, TWO)))
    assert [(one["event"], one["host"], one["inode"]) for one in found] == [
        ("snapshot", "host", 1),
        ("snapshot", "host", 2),
    ]


def test_the_records_name_the_host_of_each_socket() -> None:
    found = records(rendered("ndjson", of_host(ONE, TWO, host="a") + of_host(ONE, host="b")))
    assert [(one["host"], one["inode"]) for one in found] == [("a", 1), ("a", 2), ("b", 1)]


@given(st.lists(strategies.holdings, max_size=4), st.lists(strategies.holdings, max_size=4))
def test_the_array_has_the_same_records(first: list[Holding], second: list[Holding]) -> None:
    holdings = of_host(*first, host="a") + of_host(*second, host="b")
    lines = rendered("ndjson", holdings).splitlines()
    assert len(lines) == len(holdings)
    assert json.loads(rendered("json", holdings)) == [json.loads(line) for line in lines]


def test_the_array_of_nothing_is_empty() -> None:
    assert rendered("json", []) == b"[]\n"
    assert rendered("ndjson", []) == b""


def test_an_array_of_several_chunks() -> None:
    many = of_host(*(holding(tcp(inode)) for inode in range(1, 3_000)))
    chunks = list(render("json", moment(many), many, Config(), UTC))
    assert len(chunks) > 2
    assert [one["inode"] for one in json.loads(b"".join(chunks))] == list(range(1, 3_000))


# Fields with separators.


@pytest.mark.parametrize(
    ("output", "separator", "end"), [("csv", ",", b"\r\n"), ("tsv", "\t", b"\n")]
)
def test_fields_are_read_back(output: str, separator: str, end: bytes) -> None:
    by = process(comm='say "hi", you', cmdline=("a,b", "tab\there"))
    data = rendered(output, of_host(holding(by=by), ONE))
    assert data.count(end) == 3
    assert data.endswith(end)
    reader = csv.DictReader(
        io.StringIO(data.decode(), newline=""), delimiter=separator, strict=True
    )
    first, second = reader
    assert tuple(reader.fieldnames or ()) == FIELDS
    assert (first["host"], first["comm"]) == ("host", 'say "hi", you')
    assert first["cmdline"] == safe("a,b 'tab\there'")
    assert (second["local_port"], second["pid"], second["remote_port"]) == ("1", "7", "")


def test_chosen_columns_without_a_header() -> None:
    config = Config(view=View(output="csv", columns=("pid", "local_port"), header=False))
    assert rendered("csv", of_host(ONE, TWO), config) == b"7,1\r\n7,2\r\n"


@pytest.mark.parametrize(("sort", "ports"), [("inode", "1 2 3"), ("-inode", "3 2 1")])
def test_sorted_fields(sort: str, ports: str) -> None:
    config = Config(view=View(output="tsv", columns=("local_port",), sort=sort, header=False))
    assert rendered("tsv", of_host(TWO, THREE, ONE), config).split() == ports.encode().split()


def test_sorted_fields_have_a_row_for_each_holder() -> None:
    other = holding(ONE.socket, process(8))
    config = Config(view=View(output="csv", columns=("pid",), sort="-pid", header=False))
    assert rendered("csv", of_host(ONE, other), config) == b"8\r\n7\r\n"


# Numbers of processes.


def test_processes_of_a_port_are_those_that_listen() -> None:
    client = holding(tcp(5, "ESTABLISHED", remote_addr="127.0.0.1", remote_port=1), process(9))
    held = of_host(client, ONE)
    assert rendered("pid", held) == b"7\n9\n"
    assert rendered("pid", held, Config(filter=Filter({"comm": ["app"]}))) == b"7\n9\n"
    assert rendered("pid", held, Config(filter=Filter({"port": ["1"]}))) == b"7\n"
    assert rendered("pid", held, Config(filter=Filter({"endpoint": ["127.0.0.1:1"]}))) == b"7\n"


# Views for people.


def test_the_table() -> None:
    held = web_server()
    assert rendered("table", held) == text(list(table(make_rows(held), UTC)))


@pytest.mark.parametrize(("read", "now"), [("file", NOW), (None, None)])
def test_only_a_recording_may_show_ages(read: str | None, now: float | None) -> None:
    held = web_server()
    wide = Options(utc=True, now=now, wide=True)
    expected = text(list(table(make_rows(held, every_holder=True), wide)))
    config = Config(view=View(read=read))
    found = rendered("wide", held, config, options=Options(utc=True, wide=True))
    assert found == expected
    assert (b"  AGE" in found) == (now is not None)


def test_a_table_of_some_sockets_knows_the_others() -> None:
    """The table names the process at the other end, which the filter hides."""
    all_of_them = web_server()
    found = moment(all_of_them)
    some = shown(found, Filter({"pid": ["1204"]}))
    lines = list(table(make_rows(some, all_of_them), Options(utc=True, now=NOW)))
    assert b"".join(render("table", found, some, Config(), UTC)) == text(lines)


def test_on_a_terminal_a_table_says_what_could_not_be_read() -> None:
    held = of_host(ONE)
    partial = Coverage(3, 1, 1, ("one is unreadable", "x is not read"))
    terminal = Options(width=200, root_can=True)
    found = rendered("table", held, coverage={HOST: partial}, options=terminal).decode()
    assert found.splitlines()[2:] == ["1 process could not be read (root can). x is not read."]
    both = {"b": partial, "a": partial, "c": FULL_COVERAGE}
    found = rendered("wide", held, coverage=both, options=Options(width=200)).decode()
    assert found.splitlines()[2:] == [
        "a: 1 process could not be read. x is not read.",
        "b: 1 process could not be read. x is not read.",
    ]
    assert b"could not" not in rendered("table", held, coverage={HOST: partial})
    assert b"read" not in rendered("table", held, coverage={HOST: FULL_COVERAGE}, options=terminal)


@pytest.mark.parametrize("all_families", [False, True])
def test_the_summary(all_families: bool) -> None:
    held, coverage = web_server(), {HOST: COVERAGE}
    expected = summary(held, coverage, Options(utc=True, now=NOW), all_families=all_families)
    found = rendered("summary", held, Config(all=all_families), coverage)
    assert found == text(list(expected))


def test_the_summary_of_a_host_without_sockets() -> None:
    assert b"empty" in rendered("summary", [], coverage={"empty": FULL_COVERAGE})


def test_names_of_services(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "read_services", lambda: {("tcp", 1): "tcpmux"})
    config = Config(view=View(services=True))
    assert b"127.0.0.1:tcpmux" in rendered("table", of_host(ONE), config)
    assert b"tcpmux" not in rendered("table", of_host(ONE))


def test_names_of_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    resolver = Resolver(lambda _address: "db.example")
    monkeypatch.setattr(names, "Resolver", lambda: resolver)
    monkeypatch.setattr(show, "RESOLVE_SECONDS", 10.0)
    config = Config(view=View(resolve=True))
    held = of_host(holding(tcp(1, local_addr="10.0.0.7")))
    assert b"db.example:8080" in rendered("table", held, config)
    assert b"10.0.0.7:8080" in rendered("table", held)


# Parts.


def test_many_lines_come_in_parts() -> None:
    many = of_host(*(holding(tcp(inode)) for inode in range(1, 1_500)))
    parts = list(render("csv", moment(many), many, Config(), UTC))
    assert [part.count(b"\r\n") for part in parts] == [512, 512, 476]


def test_what_is_no_text_is_escaped() -> None:
    held = of_host(holding(by=process(comm="\udce9")))
    assert rb"\x{dce9}" in rendered("table", held)


def test_columns_of_the_table_with_separators() -> None:
    columns = ("PID", "process", "local", "remote", "dir", "age", "recvq", "local_port")
    client = holding(
        tcp(5, "ESTABLISHED", remote_addr="10.0.0.9", remote_port=9, direction="outbound"),
        process(9),
    )
    held = [HostHolding("host", client, NOW - 60), *of_host(ONE)]
    config = Config(view=View(output="csv", columns=columns, read="file"))
    assert rendered("csv", held, config).decode().split("\r\n") == [
        "pid,process,local,remote,dir,age,recvq,local_port",
        "9,app,127.0.0.1:8080,10.0.0.9:9,out,1m,0,8080",
        "7,app,127.0.0.1:1,,,,0,1",
        "",
    ]


@pytest.mark.parametrize("name", sorted(COLUMNS.keys() - set(FIELDS)))
def test_columns_of_the_table_are_empty_only_where_nothing_is_known(name: str) -> None:
    held = [one._replace(since=NOW - 1) for one in web_server()]
    config = Config(
        view=View(output="tsv", columns=(name,), sort="inode", header=False, read="file")
    )
    rows = sort_rows(make_rows(held, every_holder=True), "inode")
    known = [COLUMNS[name].value(row) is not None for row in rows]
    assert any(known)
    assert [text != "" for text in rendered("tsv", held, config).decode().split("\n")[:-1]] == known
