from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from agent.model import (
    CgroupInfo,
    Closed,
    Coverage,
    Holding,
    Opened,
    Socket,
    TcpFigures,
    Updated,
)
from agent.publish.terminal.eventlog import (
    Dropped,
    LogValue,
    Started,
    bytes_text,
    clock_text,
    log_line,
    seconds_text,
)
from agent.publish.terminal.options import Options

from ...make import holding, process, tcp, without_holder

AT = 1_700_000_000.0  # 22:13:20 UTC
UTC = Options(utc=True)


def connected(direction: str | None = "inbound", **more: Any) -> Holding:
    fields = {"state": "ESTABLISHED", "remote_addr": "10.0.0.9", "remote_port": 51_515, **more}
    return holding(
        tcp(direction=direction, **fields), process(812, comm="nginx", unit="web.service")
    )


def line(value: LogValue, options: Options = UTC, host: str = "web1") -> str:
    return log_line(host, AT, value, options)


def test_an_inbound_connection_points_from_the_remote_end_to_the_local_one() -> None:
    assert line(Opened(connected())) == (
        "22:13:20Z  open      nginx[812]        in   10.0.0.9:51515 → 127.0.0.1:8080"
        "                                  web.service"
    )


def test_an_outbound_connection_points_from_the_local_end_to_the_remote_one() -> None:
    assert "out  127.0.0.1:8080 → 10.0.0.9:51515" in line(Opened(connected("outbound")))


def test_an_unknown_direction_has_no_arrow() -> None:
    assert "-    127.0.0.1:8080 - 10.0.0.9:51515" in line(Opened(connected(None)))


def test_a_listener_has_one_end() -> None:
    found = line(Opened(holding(tcp(local_addr="0.0.0.0", direction="listen"))))
    assert found.split() == ["22:13:20Z", "open", "app[7]", "-", "*:8080", "LISTEN"]


def test_unix_sockets_show_the_process_at_the_other_end() -> None:
    socket = Socket(1, "unix", "unix", "stream", "CONNECTED", direction="outbound")
    client = holding(socket)._replace(peer_pid=9)
    assert "out  unnamed → pid 9" in line(Opened(client))
    server = holding(socket._replace(direction="inbound", path="/run/x"))._replace(peer_pid=8)
    assert "in   pid 8 → /run/x" in line(Opened(server))
    assert line(Opened(holding(socket))).endswith("unnamed")


def detail(value: Updated | Closed | Opened, options: Options = UTC) -> str:
    """Return what a line says behind the ends, without the unit."""
    return line(value, options).partition("8080   ")[2].strip().removesuffix("web.service").strip()


def changed(**fields: Any) -> Updated:
    now = connected()
    return Updated(now._replace(**fields), now)


def test_updates() -> None:
    now = connected()
    waiting = now._replace(socket=now.socket._replace(state="CLOSE_WAIT"))
    assert detail(Updated(waiting, now)) == "ESTABLISHED → CLOSE_WAIT"
    assert (
        detail(Updated(waiting, now), Options(utc=True, ascii=True)) == "ESTABLISHED -> CLOSE_WAIT"
    )
    assert detail(changed(fds=(3, 4))) == "fds 3 → 3 4"
    assert now.process is not None
    assert detail(changed(process=now.process._replace(comm="sh"))) == "comm nginx → sh"
    moved = now._replace(socket=now.socket._replace(local_addr="10.0.0.1"))
    assert line(Updated(moved, now)).count("was 10.0.0.9:51515 → 127.0.0.1:8080") == 1


@pytest.mark.parametrize(
    ("closed", "text"),
    [
        (Closed(connected(), "closed", 1.04), "closed after 1.0 s"),
        (Closed(connected(), "exited", 65.0), "exited after 1 m 5 s"),
        (Closed(connected(), "exited", None), "exited"),
        (Closed(connected(), "attributed", 1.0), "holder found"),
        (Closed(connected(), "filtered", 1.0), "no longer matches"),
        (Closed(connected(inode=0), "closed", None), "over before a poll"),
        (Closed(connected(inode=0), "closed", -0.1), "closed after 0.0 s"),
        (
            Closed(without_holder(connected(inode=0).socket), "closed", None),
            "over before a poll: holder not seen",
        ),
        (
            Closed(connected(), "closed", 2.0, figures=TcpFigures(1500, 12, 3, 3, 0, None)),
            "closed after 2.0 s; 1.5 kB sent, 12 B received",
        ),
        (
            Closed(connected(), "closed", 2.0, figures=TcpFigures(0, 0, 3, 3, 1, None)),
            "closed after 2.0 s; 0 B sent, 0 B received, 1 retransmit",
        ),
        # The end of the stream counts as a byte.
        (
            Closed(connected(), "closed", 2.0, figures=TcpFigures(5, 1, 3, 3, 0, 0.1)),
            "closed after 2.0 s; 5 B sent, at most 1 B received",
        ),
        (
            Closed(
                connected(state="CLOSE_WAIT"), "closed", 2.0, figures=TcpFigures(5, 1, 3, 3, 0, 0.1)
            ),
            "closed after 2.0 s; 5 B sent, nothing received",
        ),
    ],
)
def test_closes(closed: Closed, text: str) -> None:
    assert detail(closed) == text


def outbound_detail(closed: Closed) -> str:
    """Return what a line says behind the ends of an outbound connection, without the unit."""
    return line(closed).partition("51515")[2].removesuffix("web.service").strip()


REFUSED = TcpFigures(0, 0, 1, 1, 0, None)


@pytest.mark.parametrize(
    ("figures", "text"),
    [
        (REFUSED, "not established"),
        (TcpFigures(0, 0, 4, 1, 3, None), "not established, 3 retransmits"),
        (TcpFigures(0, 0, 4, 0, 3, None), "not established: no answer, 3 retransmits"),
        # Each of these may have been established.
        (REFUSED._replace(segments_out=2), "0 B sent, 0 B received"),
        (REFUSED._replace(rtt_ms=0.1), "0 B sent, 0 B received"),
        (REFUSED._replace(bytes_sent=7), "7 B sent, 0 B received"),
        (REFUSED._replace(bytes_received=2), "0 B sent, 2 B received"),
        (REFUSED._replace(segments_out=0), "0 B sent, 0 B received"),
        (REFUSED._replace(retransmits=1), "0 B sent, 0 B received, 1 retransmit"),
    ],
)
def test_a_connection_that_was_not_established(figures: TcpFigures, text: str) -> None:
    closed = Closed(connected("outbound", state=None), "closed", 0.1, figures=figures)
    assert outbound_detail(closed) == f"closed after 0.1 s; {text}"
    for direction in ("inbound", None):
        other = closed._replace(holding=connected(direction, state=None))
        assert "not established" not in line(other)


def test_without_figures_the_last_state_is_all_that_is_known() -> None:
    syn_sent = connected("outbound", state="SYN_SENT")
    for reason in ("closed", "exited"):
        assert f"{reason} after 2.0 s; last seen in SYN_SENT" in line(Closed(syn_sent, reason, 2.0))
    for reason in ("attributed", "filtered"):
        assert "SYN_SENT" not in line(Closed(syn_sent, reason, 2.0))
    unknown = connected("outbound", state=None)
    assert outbound_detail(Closed(unknown, "closed", 2.0)) == "closed after 2.0 s"


def test_a_guessed_holder_is_said_to_be_one() -> None:
    guessed = connected()._replace(attribution="listener")
    assert detail(Opened(guessed)) == "holder guessed from the listener"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Coverage(5, 0, 1), "22:13:20Z  coverage  5 processes; everything could be read"),
        (Coverage(5, 2, 1), "22:13:20Z  coverage  5 processes; 2 could not be read"),
        (Coverage(1, 1, 1, ("x is not read",)), "22:13:20Z  coverage  1 process; x is not read"),
        (
            Dropped(1200, 1260, 3641),
            "22:13:20Z  LOST      1200\u20131260: the reader was too slow; 3,641 sockets now",
        ),
        (Dropped(1200, None), "22:13:20Z  LOST      1200 on: the reader was too slow"),
        (Started(3639, 41, "^C ends"), "web1: 3,639 sockets of 41 processes; ^C ends"),
        (Started(1, 1), "web1: 1 socket of 1 process"),
    ],
)
def test_other_lines(value: LogValue, text: str) -> None:
    assert line(value) == text


def test_columns_overflow_rather_than_move() -> None:
    found = line(Opened(connected(remote_addr="2001:db8:85a3:8d3:1319:8a2e:370:7348")))
    assert "in   [2001:db8:85a3:8d3:1319:8a2e:370:7348]:51515 → 127.0.0.1:8080  " in found
    assert found.endswith("  web.service")


def test_the_unit_is_left_out_if_the_line_is_too_long() -> None:
    whole = line(Opened(connected()))
    assert line(Opened(connected()), Options(utc=True, width=len(whole))) == whole
    narrow = line(Opened(connected()), Options(utc=True, width=80))
    assert narrow == whole.removesuffix("web.service").rstrip()


def test_the_unit_of_an_unknown_holder_is_that_of_the_socket() -> None:
    unknown = without_holder(connected().socket)._replace(
        cgroup=CgroupInfo(None, "u.service", None)
    )
    assert line(Opened(unknown)).endswith("u.service")


def test_hosts_have_a_column() -> None:
    found = line(Opened(connected()), Options(utc=True, hosts=True))
    assert found.startswith("22:13:20Z  web1          open      nginx[812]")


def test_colour_repeats_the_word() -> None:
    found = line(Opened(connected()), Options(utc=True, color=True))
    assert found.startswith("22:13:20Z  \x1b[32mopen    \x1b[0m  nginx[812]")
    assert found.count("\x1b") == 2


@pytest.fixture
def new_york(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "EST5EDT")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("new_york")
def test_times_are_local_or_utc() -> None:
    # A day of its own, since texts of times are kept.
    assert clock_text(AT + 86_400.9, utc=False) == "17:13:20"
    assert clock_text(AT + 86_400.9, utc=True) == "22:13:20Z"


def test_durations_and_bytes() -> None:
    seconds = (0, 59.94, 60, 3600 * 3 + 300, 86_400 * 2 + 4 * 3600)
    assert [seconds_text(one) for one in seconds] == [
        "0.0 s", "59.9 s", "1 m 0 s", "3 h 5 m", "2 d 4 h"
    ]  # fmt: skip
    assert [bytes_text(one) for one in (0, 999, 1000, 3_400_000, 10**12)] == [
        "0 B", "999 B", "1.0 kB", "3.4 MB", "1000.0 GB"
    ]  # fmt: skip
