"""No control character and no character that reorders text reaches the terminal, in any view."""

from __future__ import annotations

import re
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from agent.model import (
    CgroupInfo,
    Closed,
    Coverage,
    Holding,
    HostHolding,
    Opened,
    Owner,
    Socket,
    Updated,
)
from agent.publish.terminal.columns import COLUMNS
from agent.publish.terminal.delimited import delimited
from agent.publish.terminal.eventlog import LogValue, Started, log_line
from agent.publish.terminal.options import Options
from agent.publish.terminal.pids import pids
from agent.publish.terminal.rows import make_rows
from agent.publish.terminal.summary import summary
from agent.publish.terminal.table import table

from ... import strategies
from ...make import process

COLOR = re.compile(r"\x1b\[\d+m")
UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
# Texts of a hostile process, and of a hostile agent that is followed.
texts = st.text(
    st.sampled_from("a=,\"/'\x00\x1b[m\n\r\t\x07\x7f\x80\x9b\u202e\u2066\u200b\u2028\ud800é日"),
    min_size=1,
    max_size=8,
)


def hostile_process(text: str, other: str) -> Holding:
    by = process(
        comm=text, exe=other, cgroup=text, unit=other, container=text, cmdline=(text, other)
    )
    socket = Socket(
        3,
        other,
        "unix",
        text,
        text,
        text,
        1,
        other,
        2,
        path=text,
        direction="listen",
        interface=text,
    )
    return Holding(socket, by, (3,), Owner(1, text), peer_pid=4)


def hostile_address(text: str, other: str) -> Holding:
    socket = Socket(
        4,
        "tcp",
        "inet6",
        None,
        other,
        text,
        1,
        other,
        2,
        direction="inbound",
        interface=text,
        netns=1,
    )
    place = CgroupInfo(text, other, text)
    return Holding(socket, None, (), Owner(1, other), cgroup=place)


options = st.builds(
    Options,
    width=st.none() | st.integers(1, 200),
    color=st.booleans(),
    ascii=st.booleans(),
    columns=st.sampled_from([(), tuple(COLUMNS)]),
    wide=st.booleans(),
    hosts=st.booleans(),
    names=st.dictionaries(texts, texts, max_size=2),
    services=st.dictionaries(st.tuples(st.just("tcp"), st.integers(1, 2)), texts, max_size=2),
)


@given(texts, texts, texts, options, st.lists(strategies.holdings, max_size=3))
def test_no_view_has_one(
    text: str, other: str, host: str, options: Options, more: list[Holding]
) -> None:
    hostile = [hostile_process(text, other), hostile_address(text, other), *more]
    holdings = [HostHolding(host, one, None) for one in hostile]
    rows = make_rows(holdings)
    coverage = {other: Coverage(1, 0, 1, (text,))}
    lines = [*table(rows, options), *pids(holdings)]
    lines += summary(holdings, coverage, replace(options, columns=()), all_families=True)
    lines += [*delimited(holdings), *(line.replace("\t", "") for line in delimited(holdings, "\t"))]
    values: list[LogValue] = [Opened(one) for one in hostile]
    values += [Closed(one, text, 1.0) for one in hostile]
    values += [Updated(hostile[0], hostile[1]), Updated(hostile[1], hostile[0])]
    values += [coverage[other], Started(1, 1, text)]
    lines += [log_line(host, 0.0, value, options) for value in values]
    for line in lines:
        plain = COLOR.sub("", line) if options.color else line
        assert not UNSAFE.search(plain), line
        assert options.color or "\x1b" not in line
