"""Sockets and processes that live for a short time: each is reported once.

They are in network namespaces of their own, where they are the only ones, and each has a port that
no other had.
"""

from __future__ import annotations

import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from .helpers import Follow, Holder, Record

# (protocol, local port, remote port): one end of a connection, or a UDP socket.
End = tuple[str, int, int | None]
FIRST_PORT = 20_000

USE = """
import random, time

def connections(first, count, seconds):
    "Connect from each port in turn, for so many seconds; return the port of the listener."
    with tcp_listener(OWN, 128) as listener:
        for port in range(first, first + count):
            with socket.create_connection(listener.getsockname(), 5, (OWN, port)):
                with listener.accept()[0]:
                    time.sleep(seconds)
        return listener.getsockname()[1]

def churn(first, count):
    "Open a UDP socket, a unix socket and a connection on each port in turn; close at random."
    held = []
    with tcp_listener(OWN, 128) as listener:
        for port in range(first, first + count):
            datagrams = socket.socket(type=socket.SOCK_DGRAM)
            datagrams.bind((OWN, port))
            local = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            local.bind(chr(0) + str(port))
            client = socket.create_connection(listener.getsockname(), 5, (OWN, port))
            held += [[datagrams, local], [client, listener.accept()[0]]]
            while len(held) > 16:
                [one.close() for one in held.pop(random.randrange(len(held)))]
            time.sleep(random.uniform(0, 0.02))
        [one.close() for some in held for one in some]
        return listener.getsockname()[1]
"""


def netns_of(holder: Holder) -> int:
    return os.stat(f"/proc/{holder.pid}/ns/net").st_ino


def during(follow: Follow, holder: Holder, code: str) -> Any:
    """Return what the code evaluates to; the stream is read meanwhile."""
    with ThreadPoolExecutor(1) as thread:
        done = thread.submit(holder.do, code)
        follow.until(done.done)
        return done.result()


def end_of(record: Record) -> End:
    if record["proto"] == "unix":
        return ("unix", int((record["path"] or "@0")[1:]), None)
    return (record["proto"], record["local_port"], record["remote_port"])


def tcp_ends(ports: range, listener: int) -> set[End]:
    """Both ends of the connections from these ports to the listener."""
    return {end for port in ports for end in (("tcp", port, listener), ("tcp", listener, port))}


def reported(follow: Follow, event: str, ends: set[End]) -> list[Record]:
    """The records of this event on any of these ends."""
    return [
        record for record in follow.records if record["event"] == event and end_of(record) in ends
    ]


def wait_for_ends(follow: Follow, holder: Holder, ends: set[End]) -> None:
    """Read until each of these is closed, and for two more polls."""
    follow.until(lambda: {end_of(record) for record in reported(follow, "close", ends)} == ends)
    wait_for_polls(follow, holder)


def wait_for_polls(follow: Follow, holder: Holder) -> None:
    """Read for two more polls: no event tells of a unix socket, so that each open is a poll's."""
    for name in ("a", "b"):
        follow.wait(event="open", inode=holder.open(f"{name} = socket.socket(socket.AF_UNIX)"))


def test_connections_shorter_than_the_interval_are_reported_once_each(alone: Holder) -> None:
    alone.do(USE)
    with Follow("--netns", str(netns_of(alone))) as follow:
        follow.started()
        listener = during(follow, alone, f"connections({FIRST_PORT}, 60, 0.05)")
        ends = tcp_ends(range(FIRST_PORT, FIRST_PORT + 60), listener)
        wait_for_ends(follow, alone, ends)
        for event in ("open", "close"):
            counted = Counter(map(end_of, reported(follow, event, ends)))
            assert counted == Counter(ends)
        named = {record["pid"] for record in reported(follow, "open", ends)} - {None}
        assert named == {alone.pid}


@pytest.mark.parametrize("source", ["netlink", "procfs"])
def test_no_socket_of_a_churn_is_reported_twice(source: str, alone: Holder) -> None:
    alone.do(USE)
    with Follow("--source", source, "--netns", str(netns_of(alone))) as follow:
        follow.started()
        listener = during(follow, alone, f"churn({FIRST_PORT}, 200)")
        ports = range(FIRST_PORT, FIRST_PORT + 200)
        ends = {*tcp_ends(ports, listener), *(("udp", port, None) for port in ports)}
        # No source shows unix sockets that open and close between polls.
        wait_for_ends(follow, alone, ends if source == "netlink" else set())
        ends |= {("unix", port, None) for port in ports}
        opened = Counter(map(end_of, reported(follow, "open", ends)))
        assert {proto for proto, _local, _remote in opened} == {"tcp", "udp", "unix"}
        assert [end for end, count in opened.items() if count > 1] == []
        assert Counter(map(end_of, reported(follow, "close", ends))) == opened


def test_connections_of_a_network_namespace_that_ends_between_polls_are_reported(
    alone: Holder,
) -> None:
    alone.do(USE)
    with Follow("--netns", str(netns_of(alone)), interval=1.0) as follow:
        follow.started()
        first = alone.open("s = tcp_listener(OWN)")
        follow.wait(event="open", inode=first)
        listener = during(follow, alone, f"connections({FIRST_PORT}, 30, 0.001)")
        alone.end()
        ends = tcp_ends(range(FIRST_PORT, FIRST_PORT + 30), listener)
        follow.until(lambda: {end_of(one) for one in reported(follow, "close", ends)} == ends)
        assert Counter(map(end_of, reported(follow, "open", ends))) == Counter(ends)
        assert follow.wait(event="close", inode=first)["reason"] == "exited"


FORK = """
import random, time

def forked(count, sockets, alive):
    "Fork so many processes with listeners; kill them, in the order in which they began."
    pids, living = [], []
    for number in range(count + alive):
        if number < count:
            made = [tcp_listener(OWN) for _ in range(sockets)]
            living.append(fork())
            [one.close() for one in made]
        if number >= alive:
            pid = living.pop(0)
            pids.append(pid)
            time.sleep(random.uniform(0, 0.02))
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    return pids
"""


# The kernel closes what a process had before the process is a zombie: with listeners that takes a
# moment, in which some polls look at the process.
def test_sockets_of_killed_processes_are_reported_as_exited(alone: Holder) -> None:
    alone.do(FORK)
    with Follow("--netns", str(netns_of(alone)), interval=0.05) as follow:
        follow.started()
        pids = set(during(follow, alone, "forked(300, 60, 10)"))
        wait_for_polls(follow, alone)
        of_them = [record for record in follow.records if record.get("pid") in pids]
        assert len({record["pid"] for record in of_them}) > 100
        assert not pids & {pid for pid, _inode in follow.fold}
        reasons = Counter(record["reason"] for record in of_them if record["event"] == "close")
        assert set(reasons) == {"exited"}
