"""Every filter of the command line, with real sockets."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.stream.filters import FILTERS

from .helpers import (
    Follow,
    Holder,
    Record,
    by_inode,
    run,
    snapshot,
)


@pytest.fixture(scope="module")
def mixed() -> Iterator[Holder]:
    """A process that holds sockets of many kinds."""
    with Holder() as holder:
        holder.do("l = tcp_listener(); c, a = tcp_pair(l); l6 = tcp_listener('::1')")
        holder.do("u = socket.socket(type=socket.SOCK_DGRAM); u.bind(('127.9.9.9', 0))")
        holder.do("x, y = socket.socketpair()")
        holder.do("m = socket.create_server(('::', 0), family=10, dualstack_ipv6=True)")
        holder.do("mc = socket.create_connection(('127.8.8.8', m.getsockname()[1]))")
        holder.do("ma = m.accept()[0]")
        holder.do("port = l.getsockname()[1]; far = c.getsockname()[1]")
        yield holder


@pytest.fixture(scope="module")
def everything(mixed: Holder) -> dict[int, Record]:
    return by_inode(snapshot("--pid", str(mixed.pid)))


# Options, and the names of the holder's sockets that they select.
CHOICES = [
    ("--proto tcp", "l c a l6 m mc ma"),
    ("--proto u*", "u x y"),
    ("--family inet6", "l6 m ma"),
    ("--family inet6,unix", "l6 m ma x y"),
    ("--family inet6 --family unix", "l6 m ma x y"),
    ("--state LISTEN", "l l6 m"),
    ("--state listen,CONNECTED", "l l6 m x y"),
    ("--port {port}", "l c a"),
    ("--port {port}-{port}", "l c a"),
    ("--port {far}", "c a"),
    ("--addr 127.9.9.9", "u"),
    ("--addr 127.9.0.0/16", "u"),
    ("--addr 127.8.8.8", "mc ma"),
    ("--addr ::1", "l6"),
    ("--direction listen", "l l6 m"),
    ("--direction inbound", "a ma"),
    ("--direction outbound", "c mc"),
    ("--proto tcp --family inet --direction listen", "l"),
    ("--user {uid}", "l c a l6 u x y m mc ma"),
    ("--user {user}", "l c a l6 u x y m mc ma"),
    ("--user nosuchuser", ""),
    ("--netns {netns}", "l c a l6 u x y m mc ma"),
    ("--netns 1", ""),
    ("--comm {comm}", "l c a l6 u x y m mc ma"),
    ("--comm p*[a-z0-9.]", "l c a l6 u x y m mc ma"),
    ("--comm nosuchcomm*", ""),
    ("--unit nosuch.service", ""),
    ("--container 0123456789ab", ""),
    ("--event snapshot --proto udp", "u"),
]


@pytest.mark.parametrize(("options", "names"), CHOICES)
def test_a_filter_selects_the_named_sockets(options: str, names: str, mixed: Holder) -> None:
    options = options.format(
        port=mixed.do("port"),
        far=mixed.do("far"),
        uid=os.geteuid(),
        user=pwd.getpwuid(os.geteuid()).pw_name,
        netns=Path("/proc/self/ns/net").stat().st_ino,
        comm=Path(f"/proc/{mixed.pid}/comm").read_text().strip(),
    )
    found = by_inode(snapshot("--pid", str(mixed.pid), *options.split()))
    assert set(found) == {mixed.do(f"inode({name})") for name in names.split()}


@pytest.mark.parametrize("name", ["unit", "container"])
def test_a_filter_by_unit_or_namespace_agrees_with_the_records(
    name: str, everything: dict[int, Record], mixed: Holder
) -> None:
    for value in {record[name] for record in everything.values()} - {None}:
        found = by_inode(snapshot("--pid", str(mixed.pid), f"--{name}", value))
        assert set(found) == {n for n, record in everything.items() if record[name] == value}


def test_a_filter_by_pid_takes_several(mixed: Holder, holder: Holder) -> None:
    holder.do("s = tcp_listener()")
    found = snapshot("--pid", f"{mixed.pid},{holder.pid}")
    assert {record["pid"] for record in found} == {mixed.pid, holder.pid}


def test_a_socket_closes_as_it_leaves_the_filter_and_opens_as_it_enters(holder: Holder) -> None:
    holder.do("l = tcp_listener(); c, a = tcp_pair(l)")
    client, accepted = holder.do("inode(c)"), holder.do("inode(a)")
    states = "--state=ESTABLISHED,FIN_WAIT2"
    with Follow("--pid", str(holder.pid), states) as follow:
        follow.started()
        assert set(follow.of(holder.pid)) == {client, accepted}
        holder.do("c.shutdown(socket.SHUT_WR)")
        assert follow.wait(event="close", inode=accepted)["reason"] == "filtered"
        follow.until(lambda: follow.fold[holder.pid, client]["state"] == "FIN_WAIT2")
        inode = holder.open("u = socket.socket(type=socket.SOCK_DGRAM)")
        holder.do("u.bind(('127.0.0.1', 0))")
        snapshot("--pid", str(holder.pid))
        holder.do("u.connect(u.getsockname())")
        assert follow.wait(event="open", inode=inode)["state"] == "ESTABLISHED"


def test_events_that_are_not_selected_are_not_reported(holder: Holder) -> None:
    before = holder.open("s = tcp_listener()")
    with Follow("--pid", str(holder.pid), "--event", "open,close") as follow:
        follow.until(lambda: follow.records)
        opened = holder.open("t = tcp_listener()")
        follow.wait(event="open", inode=opened)
        holder.do("t.close()")
        follow.wait(event="close", inode=opened)
        events = {record["event"] for record in follow.records}
        assert events <= {"hello", "open", "close", "coverage"}
        assert before not in {record.get("inode") for record in follow.records}


def test_help_names_every_filter() -> None:
    help_text = run("--help", "all").stdout
    assert [name for name in FILTERS if f"--{name} " not in help_text] == []
