"""Rows and values to lines: they fit, are safe, and shorten no address."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.model import Closed, Coverage, Holding, Opened, Updated
from agent.publish.terminal.eventlog import Dropped
from agent.publish.terminal.options import Options
from agent.publish.terminal.peers import Holder
from agent.publish.top import lines
from agent.publish.top.columns import lay_out
from agent.publish.top.group_columns import group_columns
from agent.publish.top.model import (
    Alarm,
    AlarmKind,
    Event,
    Grouping,
    GroupKey,
    GroupRow,
    Header,
    Line,
    PeerRow,
    Queue,
    Severity,
    SocketKey,
    SocketRow,
    Style,
    Traffic,
)
from agent.publish.top.socket_columns import socket_columns
from agent.publish.top.watch import Watch
from agent.stream.decoder import Decoded

from ... import strategies
from ..terminal.test_no_control import UNSAFE, hostile_address, hostile_process, texts
from .hosts import GUNICORN, T, connection, listener

ROW = GroupRow(
    GroupKey(Grouping.PROCESS, "web1", None, 1201, 1201), "gunicorn", 1201, "shop", 1, 60, 12, 73,
    14.0, 1.0, 0.0, 13, 250.0, True, Queue(129, 128, "127.0.0.1:8080"), "shop.service",
    Traffic(1204, 48_211_003, 2, 12.5), None,
)  # fmt: skip
HEADER = Header(
    "web1", T, 142.0, 139.0, tuple(range(60)), (0,) * 60, 3639, 1540, 412, 31, "live"
)  # fmt: skip
ALARMS = [
    Alarm(AlarmKind.CLOSE_WAIT, "13 CLOSE_WAIT in gunicorn[1201], oldest ≥ 4m", Severity.ALARM),
    Alarm(AlarmKind.QUEUE, "accept queue full: 127.0.0.1:8080 (129/128)", Severity.ALARM),
    Alarm(AlarmKind.COVERAGE, "1 process not read", Severity.NOTE),
]
KEYS = [("⏎", "sockets"), ("/", "filter"), ("g", "group"), ("?", "help"), ("q", "quit")]


def text(line: Line) -> str:
    return "".join(segment.text for segment in line)


def options(width: int, *, ascii: bool = False) -> Options:
    return Options(width=width, ascii=ascii, utc=True)


def socket_row(holding: Holding, **more: object) -> SocketRow:
    row = SocketRow(
        SocketKey("web1", 1, holding.socket.inode),
        holding,
        0,
        5.0,
        None,
        3,
        2,
        None,
        False,
        None,
        "",
    )
    return row._replace(**more)  # type: ignore[arg-type]


def group_lines(row: GroupRow, width: int, *, marked: bool = False) -> list[str]:
    layout = lay_out(group_columns(row.key.grouping, hosts=False), width)
    titles = lines.titles_line(layout, "opens", options(width), descending=True)
    return [text(titles), text(lines.row_line(layout, row, options(width), marked=marked))]


def test_a_row_at_80_and_40_columns() -> None:
    assert group_lines(ROW, 80, marked=True) == [
        "  PROCESS           PID LISTEN     IN    OUT OPEN/s▼ CLOSE/s SHORT  CW     QUEUE",
        "› gunicorn         1201      1     60     12   14.0     1.0    0%   13  129/128!",  # noqa: RUF001
    ]
    assert group_lines(ROW, 39) == [  # And the scroll bar.
        "  PROCESS         IN    OUT OPEN/s▼  CW",
        "  gunicorn        60     12   14.0   13",
    ]


def test_a_row_at_200_columns() -> None:
    (_, line) = group_lines(ROW, 200)
    assert line.split() == [
        "gunicorn", "1201", "shop", "1", "60", "12", "14.0", "1.0", "0%", "13", "≥4m", "129/128!",
        "shop.service", "1.2", "kB", "48.2", "MB", "2", "12.5", "ms",
    ]  # fmt: skip


def test_a_row_that_ended() -> None:
    layout = lay_out(group_columns(Grouping.PROCESS, hosts=False), 80)
    ended = ROW._replace(ended_ago=2.0, has_exited=True)
    line = lines.row_line(layout, ended, options(100))
    assert text(line).startswith("✗ gunicorn")
    assert text(line).endswith("  ended, 2s ago")
    assert {segment.style for segment in line if segment.text.strip()[:1].isdigit()} == {
        Style.ENDED
    }
    assert not text(lines.row_line(layout, ended, options(80))).endswith("ago")
    marked = lines.row_line(layout, ended, options(80), marked=True)
    assert text(marked).startswith("›✗gunicorn")  # noqa: RUF001 (a mark)
    layout = lay_out(socket_columns(), 80)
    gone = socket_row(connection(1), ended_ago=2.0, ending="closed after 1.0 s")
    line = lines.row_line(layout, gone, options(120))
    assert text(line).split()[3] == "closed"
    assert text(line).endswith("closed after 1.0 s, 2s ago")


def test_a_row_without_sockets_has_not_ended() -> None:
    layout = lay_out(group_columns(Grouping.PROCESS, hosts=False), 80)
    line = lines.row_line(layout, ROW._replace(ended_ago=2.0), options(101))
    assert text(line).startswith("  gunicorn")
    assert text(line).endswith("  no sockets for 2s")
    assert Style.ENDED not in {segment.style for segment in line}


def test_a_row_of_unknown_things() -> None:
    row = ROW._replace(
        title=None, pid=None, user=None, listen=0, short_share=None, close_wait=0, unit=None,
        close_wait_age=None, queue=None, traffic=None,
    )  # fmt: skip
    (_, line) = group_lines(row, 200)
    assert line.split() == ["?", *"---", "60", "12", "14.0", "1.0", *"---------"]


def test_alarming_cells_have_a_style() -> None:
    layout = lay_out(group_columns(Grouping.PROCESS, hosts=False), 80)
    line = lines.row_line(layout, ROW, options(80))
    assert [one.text.strip() for one in line if one.style is Style.ALARM] == ["13", "129/128!"]
    layout = lay_out(socket_columns(), 200)
    full = socket_row(listener(1, GUNICORN, 129, 128), recv_q=129, backlog=128)
    line = lines.row_line(layout, full, options(200))
    assert [one.text.strip() for one in line if one.style is Style.ALARM] == ["129/128!"]
    waiting = socket_row(connection(1, state="CLOSE_WAIT"), close_wait_age=5.0)
    line = lines.row_line(layout, waiting, options(200))
    assert [one.text.strip() for one in line if one.style is Style.ALARM] == ["CLOSE_WAIT 5s"]


def test_a_wide_cell_takes_the_spaces_after_it() -> None:
    layout = lay_out(socket_columns(), 80)
    six = connection(1, local_addr="2001:db8::1")
    wide = six._replace(
        socket=six.socket._replace(family="inet6", remote_addr="2001:db8:85a3:8d3:1319:8a2e:1:2")
    )
    found = text(lines.row_line(layout, socket_row(wide), options(80)))
    assert "[2001:db8::1]:443" in found
    assert "[2001:db8:85a3:8d3:1319:8a2e:1:2]:1025" in found
    # Also those between columns, but for one.
    assert "  OPEN/s▼ CLOSE/s  SHORT  " in group_lines(ROW, 120)[0]


def test_the_header_by_width() -> None:
    found = {
        width: text(lines.header_line(HEADER, width, options(width))) for width in (40, 80, 130)
    }
    assert found == {
        40: "web1 22:13:20Z  ▂▄▅▇█ 142 open/s  ● live",
        80: "sockagent top  web1 22:13:20Z  142 open/s  139 close/s  3,639 sockets  ● live",
        130: "sockagent top  web1 22:13:20Z  ▂▃▃▄▅▆▆▇██ 142 open/s  ▁▁▁▁▁▁▁▁▁▁ 139 close/s  "
        "3,639 sockets: 1,540 in 412 out 31 listen  ● live",
    }
    styles = [one.style for one in lines.header_line(HEADER, 80, options(80))]
    assert styles[-1] is Style.GOOD
    silent = HEADER._replace(state="silent for 40 s", time=None)
    assert lines.header_line(silent, 80, options(80))[-1].style is Style.WARNING


def test_the_alarm_line_by_width() -> None:
    assert text(lines.alarm_line(ALARMS, 200, options(200))) == (
        "! 13 CLOSE_WAIT in gunicorn[1201], oldest ≥ 4m   "
        "! accept queue full: 127.0.0.1:8080 (129/128)   ? 1 process not read"
    )
    assert text(lines.alarm_line(ALARMS, 80, options(80, ascii=True))) == (
        "! 13 CLOSE_WAIT in gunicorn[1201], oldest > 4m   +2 more"
    )
    assert text(lines.alarm_line(ALARMS, 40, options(40))) == (
        "! 13 CLOSE_WAIT in gunicorn[120… +2 more"
    )
    assert text(lines.alarm_line([], 40, options(40))) == "no alarms"


def test_the_footer_keeps_the_last_key() -> None:
    assert text(lines.footer_line(KEYS, 60, options(60))) == (
        "⏎ sockets  / filter  g group  ? help  q quit"
    )
    assert text(lines.footer_line(KEYS, 30, options(30))) == "⏎ sockets  / filter  q quit"


def test_two_sides() -> None:
    assert text(lines.two_sides("filter: x", "by unit", 20, options(20))) == "filter: x    by unit"
    assert text(lines.two_sides("filter: x", "by unit", 16, options(16))) == "filter: x"
    assert text(lines.two_sides("filter: x", "by unit", 6, options(6))) == "filte…"


def test_sparks() -> None:
    assert lines.spark([0, 1, 4, 8], 4, options(80)) == "▁▂▅█"
    assert lines.spark([0, 0, 4, 4], 2, options(80, ascii=True)) == "_#"
    assert lines.spark([0] * 4, 4, options(80)) == "▁▁▁▁"


def test_fields_events_and_peers() -> None:
    row = socket_row(connection(7), peer=Holder("gunicorn", 1201, 3), recv_q=9)
    found = {
        line[0].text.strip(): line[1].text for line in lines.socket_lines(row, options(80))
    }  # fmt: skip
    assert found["local"] == "10.0.0.4:443"
    assert found["peer"] == "gunicorn[1201] +3"
    assert found["recv_q"] == "9"
    assert found["unit"] == "web.service"
    assert "path" not in found
    event = Event("web1", T, Opened(connection(7)))
    (segment,) = lines.event_line(event, options(80))
    assert segment.style is Style.GOOD
    assert "22:13:20Z  open" in segment.text
    peer = PeerRow("out", "tcp:5432", None, "10.0.9.20", 12)
    assert text(lines.peer_line(peer, options(80))).split() == [
        "12",
        "out",
        "tcp:5432",
        "-",
        "10.0.9.20",
    ]


@pytest.mark.parametrize("width", range(40, 251, 30))
def test_frame_lines_fit(width: int) -> None:
    one = options(width)
    for line in (
        lines.header_line(HEADER, width, one),
        lines.alarm_line(ALARMS, width, one),
        lines.footer_line(KEYS, width, one),
        lines.two_sides("filter: " + "x" * 60, "by process", width, one),
    ):
        assert lines.line_width(line) <= width


@settings(max_examples=50)
@given(
    texts, texts, texts, st.integers(40, 250), st.booleans(), st.sampled_from(Grouping),
    st.lists(strategies.holdings, max_size=3),
)  # fmt: skip
def test_no_line_has_a_control_character_and_all_fit(
    one: str,
    other: str,
    host: str,
    width: int,
    ascii: bool,
    grouping: Grouping,
    more: list[Holding],
) -> None:
    watch = Watch(one_clock=True)
    hostile = [hostile_process(one, other), hostile_address(other, one), *more]
    for number, holding in enumerate(hostile):
        watch.apply(Decoded(host, number, T, Opened(holding)))
    watch.apply(Decoded(host, 9, T, Closed(hostile[0], other, 1.0)))
    watch.apply(Decoded(host, 9, T, Updated(hostile[1], hostile[0])))
    watch.apply(Decoded(host, 9, T, Coverage(1, 0, 1, (one, other))))
    shown = Options(width=width, color=True, ascii=ascii, hosts=True, names={one: other})
    found = [
        lines.header_line(watch.header(T + 1), width, shown),
        lines.alarm_line(watch.alarms(T + 1), width, shown),
        lines.two_sides(one, other, width, shown),
        lines.footer_line([(one, other)], width, shown),
    ]
    for line in found:
        assert lines.line_width(line) <= width
    groups = lay_out(group_columns(grouping, hosts=True), width)
    sockets = lay_out(socket_columns(), width)
    found.append(lines.titles_line(groups, "in", shown, descending=False))
    for row in watch.groups(grouping, T + 1):
        found.append(lines.row_line(groups, row, shown))
        for socket in watch.sockets(row.key, T + 1):
            found.append(lines.row_line(sockets, socket, shown, marked=True))
            found += lines.socket_lines(socket, shown)
        found += [lines.peer_line(peer, shown) for peer in watch.peers(row.key, T + 1)]
    found += [lines.event_line(event, shown) for event in watch.events(None)]
    found.append(lines.event_line(Event(host, T, Dropped(1, 2)), shown))
    for line in found:
        assert not UNSAFE.search(text(line)), line
        assert not ascii or text(line).isascii(), line


@given(strategies.inet_sockets(), st.integers(40, 250))
def test_no_address_is_shortened(socket: object, width: int) -> None:
    holding = Holding(socket, None, (), None)  # type: ignore[arg-type]
    layout = lay_out(socket_columns(), width)
    names = [placed.name for placed in layout.columns]
    found = text(lines.row_line(layout, socket_row(holding), options(width)))
    for name, address in (
        ("local", holding.socket.local_addr), ("remote", holding.socket.remote_addr),
    ):  # fmt: skip
        if name in names and address is not None and address not in ("0.0.0.0", "::"):
            assert address in found
    watch = Watch()
    watch.apply(Decoded("web1", 1, T, Opened(holding)))
    for row in watch.groups(Grouping.REMOTE, T):
        (_, line) = group_lines(row, width)
        assert row.title is None or row.title in line
