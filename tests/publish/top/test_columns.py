"""The columns that a width has room for."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.publish.top.columns import MARGIN, Column, Layout, lay_out, waited
from agent.publish.top.group_columns import group_columns
from agent.publish.top.model import Grouping
from agent.publish.top.socket_columns import socket_columns

PROCESSES = "PROCESS PID USER LISTEN IN OUT OPEN/s CLOSE/s SHORT CW CW AGE QUEUE UNIT"


def titles(width: int, grouping: Grouping = Grouping.PROCESS, *, hosts: bool = False) -> str:
    layout = lay_out(group_columns(grouping, hosts=hosts), width)
    return " ".join(placed.column.title for placed in layout.columns)


@pytest.mark.parametrize(
    ("width", "shown"),
    [
        (40, "PROCESS IN OUT OPEN/s CW"),
        (60, "PROCESS PID IN OUT OPEN/s CW QUEUE"),
        (80, "PROCESS PID LISTEN IN OUT OPEN/s CLOSE/s SHORT CW QUEUE"),
        (120, PROCESSES),
        (
            200,
            f"{PROCESSES} SENT RECEIVED RETR RTT",
        ),
    ],
)
def test_columns_of_processes_by_width(width: int, shown: str) -> None:
    assert titles(width) == shown


def test_columns_of_other_groups() -> None:
    assert titles(200, Grouping.REMOTE).startswith("REMOTE LISTEN IN OUT OPEN/s")
    assert titles(200, hosts=True).startswith("PROCESS HOST PID")
    assert titles(200, Grouping.HOST, hosts=True).startswith("HOST LISTEN")


@pytest.mark.parametrize(
    ("width", "shown"),
    [
        (40, "STATE REMOTE"),
        (60, "STATE LOCAL REMOTE"),
        (80, "PROCESS DIR STATE LOCAL REMOTE AGE"),
        (120, "PROCESS PID PROTO DIR STATE LOCAL REMOTE PEER AGE"),
        (200, "PROCESS PID USER PROTO DIR STATE LOCAL REMOTE PEER RECVQ SENDQ AGE UNIT"),
    ],
)
def test_columns_of_sockets_by_width(width: int, shown: str) -> None:
    layout = lay_out(socket_columns(), width)
    assert " ".join(placed.column.title for placed in layout.columns) == shown


def names(layout: Layout) -> set[str]:
    return {placed.name for placed in layout.columns}


@given(st.sampled_from(Grouping), st.booleans(), st.integers(40, 250), st.booleans())
def test_columns_fit_and_more_room_shows_more(
    grouping: Grouping, hosts: bool, width: int, is_socket: bool
) -> None:
    columns: dict[str, Column[Any]] = dict(
        socket_columns() if is_socket else group_columns(grouping, hosts=hosts)
    )
    layout = lay_out(columns, width)
    total = sum(placed.width for placed in layout.columns)
    assert MARGIN + total + layout.gap * (len(layout.columns) - 1) <= width
    # More room never hides a column, but where the gaps become wider.
    wider = lay_out(columns, width + 1)
    assert layout.gap < wider.gap or names(layout) <= names(wider)


def test_how_long_a_socket_waited() -> None:
    assert [waited(None, before=False), waited(59, before=False), waited(250, before=True)] == [
        "-",
        "59s",
        "≥4m",
    ]
