"""Memory is bounded, whatever comes."""

from __future__ import annotations

import pytest

from agent.model import Closed, Opened
from agent.publish.top import recent, table
from agent.publish.top.model import Grouping, GroupKey
from agent.publish.top.rates import Clocks
from agent.publish.top.recent import Recent
from agent.publish.top.table import Table
from agent.publish.top.watch import Watch
from agent.stream.filters import Filter

from .hosts import NGINX, Host, T, connection


def test_the_log_is_bounded_in_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recent, "MAX_CHANGES", 100)
    log = Recent()
    for number in range(1000):
        log.append("web1", float(number), Opened(connection(number)))
    assert len(list(log)) == 100
    assert log.since == 899.0


def test_the_log_is_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recent, "MAX_BYTES", 1_000_000)
    log = Recent()
    for number in range(100):
        by = NGINX._replace(pid=number, cmdline=("x" * 100_000,))
        log.append("web1", float(number), Opened(connection(number, by)))
    assert 5 <= len(list(log)) < 10


def test_rates_are_those_of_the_time_that_the_log_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recent, "MAX_CHANGES", 20)
    host = Host(Watch(one_clock=True))
    for inode in range(1, 101):
        host.open(connection(inode))
        if not inode % 4:
            host.poll()
    (row,) = host.watch.groups(Grouping.UNIT, host.now)
    assert row.opens_per_s == 4.0


def test_groups_without_a_socket_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "MAX_IDLE", 50)
    host = Host(Watch(one_clock=True))
    host.watch.groups(Grouping.REMOTE, host.now)
    for number in range(1000):
        unseen = connection(0, remote_addr=f"10.0.{number // 250}.{number % 250}")
        host.open(unseen)
        host.close(unseen, seconds=None)
    assert len(host.watch.groups(Grouping.REMOTE, host.now)) == 50
    assert len(host.watch._chosen._groups) == 50  # type: ignore[union-attr]
    host.poll(5)
    assert not host.watch.groups(Grouping.REMOTE, host.now)
    host.poll(60)
    host.watch.groups(Grouping.REMOTE, host.now)
    assert not host.watch._chosen._groups  # type: ignore[union-attr]


def test_what_is_over_leaves_nothing_behind() -> None:
    host = Host(Watch(one_clock=True))
    for inode in range(1, 200):
        host.open(connection(inode, NGINX._replace(pid=inode), "CLOSE_WAIT"))
        host.watch.alarms(host.now)
        host.close(connection(inode, NGINX._replace(pid=inode), "CLOSE_WAIT"))
        host.poll()
    host.poll(70)
    watch = host.watch
    watch.alarms(host.now)
    for one in (watch._hosts, watch._processes):
        for left in (one._groups, one._rows, one._idle, one._stale, one._active, one._waiting):
            assert not left
    assert not watch._close_wait
    assert not watch._moved


def test_a_group_that_was_forgotten_may_come_again() -> None:
    one = Table(Grouping.PROCESS, Filter())
    clocks = Clocks(one_clock=True)
    log = Recent()
    for time in (T, T + 1000):
        one.count(log.append("web1", time, Opened(connection(0)), counts=True))
        one.count(log.append("web1", time, Closed(connection(0), "closed", None), counts=True))
        clocks.advance(time)
        assert len(one.rows(time, clocks, {"web1": T}, {})) == 1
        clocks.advance(time + 100)
        assert not one.rows(time + 100, clocks, {"web1": T}, {})
        assert one.rates(GroupKey(Grouping.PROCESS, "web1", None, 812, 812)) is None
