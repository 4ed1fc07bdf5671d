from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.model import Holding, HostHolding
from agent.publish.terminal.cells import flat
from agent.publish.terminal.delimited import FIELDS, delimited
from agent.publish.terminal.safe import safe
from agent.stream.encoder import record_fields

from ... import strategies
from ...make import holding, process, tcp
from .machine import web_server


def read(lines: list[str], separator: str) -> list[dict[str, str]]:
    text = "".join(f"{line}\r\n" for line in lines)
    return list(csv.DictReader(io.StringIO(text, newline=""), delimiter=separator, strict=True))


@pytest.mark.parametrize("separator", [",", "\t"])
@given(st.lists(strategies.holdings, max_size=4), st.text(max_size=5))
def test_every_field_of_the_records_is_read_back(
    separator: str, held: list[Holding], host: str
) -> None:
    rows = read(
        list(delimited([HostHolding(host, one, None) for one in held], separator)), separator
    )
    assert len(rows) == len(held)
    for row, one in zip(rows, held, strict=True):
        fields = record_fields(one) | {"host": host}
        assert fields.keys() <= set(FIELDS)
        for name in FIELDS:
            value = fields.get(name)
            text = flat(value) if isinstance(value, tuple) else "" if value is None else str(value)
            assert row[name] == safe(text)


def test_one_row_for_each_holding() -> None:
    assert len(list(delimited(web_server()))) == 1 + len(web_server())


def test_lists_are_texts() -> None:
    by = process(cmdline=("app", "--name", "a b"))
    (row,) = read(list(delimited([HostHolding("h", holding(tcp(), by, (3, 4)), None)])), ",")
    assert (row["fds"], row["cmdline"]) == ("3 4", "app --name 'a b'")


@pytest.mark.parametrize(
    ("comm", "field"),
    [
        ("=1+1", '"=1+1"'), ("+a", '"+a"'), ("-a", '"-a"'), ("@a", '"@a"'), ("a=", "a="),
        ('a"b', '"a""b"'), ("a,b", '"a,b"'), ("a\nb", r"a\x0ab"), ("a;b", "a;b"),
    ],
)  # fmt: skip
def test_quotes(comm: str, field: str) -> None:
    lines = delimited([HostHolding("h", holding(tcp(), process(comm=comm)), None)], fields=["comm"])
    assert list(lines) == ["comm", field]


def test_chosen_fields_without_a_header() -> None:
    only = [HostHolding("h", holding(), None)]
    assert list(delimited(only, fields=("pid", "state"), header=False)) == ["7,LISTEN"]
