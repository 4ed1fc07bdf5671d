"""Names of addresses, which are never waited for."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from agent.model import Holding, Socket
from agent.publish.terminal import names
from agent.publish.terminal.names import MAX_THREADS, Resolver, host_name

from ...make import holding, tcp

TIMEOUT = 10.0  # Seconds.


class Lookup:
    """Counts what it is asked. It waits while ``blocked``."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.blocked: set[str] = set()
        self.release = threading.Event()
        self.begun = threading.Semaphore(0)

    def __call__(self, address: str) -> str | None:
        self.asked.append(address)
        self.begun.release()
        if address in self.blocked:
            self.release.wait(TIMEOUT)
        return None if address.endswith(".99") else f"host-{address}"


@pytest.fixture
def lookup() -> Iterator[Lookup]:
    made = Lookup()
    yield made
    made.release.set()


@pytest.fixture
def resolver(lookup: Lookup) -> Iterator[Resolver]:
    made = Resolver(lookup)
    yield made
    made.close()


def at(local: str | None, remote: str | None = None) -> Holding:
    return holding(tcp(local_addr=local, remote_addr=remote))


# The resolver.


def test_both_ends_are_resolved(resolver: Resolver, lookup: Lookup) -> None:
    resolver.request([at("10.0.0.1", "10.0.0.2"), at("10.0.0.3")])
    resolver.wait(TIMEOUT)
    assert sorted(lookup.asked) == ["10.0.0.1", "10.0.0.2", "10.0.0.3"]
    assert resolver.names == {one: f"host-{one}" for one in lookup.asked}


def test_each_address_is_asked_once(resolver: Resolver, lookup: Lookup) -> None:
    resolver.request([at("10.0.0.1", "10.0.0.99")] * 3)
    resolver.wait(TIMEOUT)
    resolver.request([at("10.0.0.99", "10.0.0.1")])
    resolver.wait(TIMEOUT)
    assert sorted(lookup.asked) == ["10.0.0.1", "10.0.0.99"]


def test_an_address_without_a_name_has_none(resolver: Resolver) -> None:
    resolver.request([at("10.0.0.99")])
    resolver.wait(TIMEOUT)
    assert resolver.names == {}


def test_what_is_no_address_of_a_host_is_not_asked(resolver: Resolver, lookup: Lookup) -> None:
    netlink = tcp(local_addr="route")._replace(proto="netlink", family="netlink")
    unix = Socket(1, "unix", "unix", "stream", "LISTEN", path="/run/x")
    resolver.request([at("0.0.0.0"), at("::", None), at(None), holding(netlink), holding(unix)])
    resolver.wait(TIMEOUT)
    assert lookup.asked == []


def test_a_name_server_that_does_not_answer_is_not_waited_for(
    resolver: Resolver, lookup: Lookup
) -> None:
    lookup.blocked = {"10.0.0.1"}
    resolver.request([at("10.0.0.1"), at("10.0.0.2")])
    for _ in range(2):
        assert lookup.begun.acquire(timeout=TIMEOUT)
    resolver.wait(0.01)
    assert "10.0.0.1" not in resolver.names
    lookup.release.set()
    resolver.wait(TIMEOUT)
    assert resolver.names == {"10.0.0.1": "host-10.0.0.1", "10.0.0.2": "host-10.0.0.2"}


def test_closing_drops_what_has_not_begun(resolver: Resolver, lookup: Lookup) -> None:
    addresses = [f"10.0.1.{number}" for number in range(3 * MAX_THREADS)]
    lookup.blocked = set(addresses)
    resolver.request(map(at, addresses))
    for _ in range(MAX_THREADS):
        assert lookup.begun.acquire(timeout=TIMEOUT)
    resolver.close()
    lookup.release.set()
    for thread in threading.enumerate():
        if thread.name.startswith("resolve"):
            thread.join(TIMEOUT)
    assert len(lookup.asked) == MAX_THREADS
    assert resolver.names.keys() == set(lookup.asked)


def test_addresses_are_bounded(
    resolver: Resolver, lookup: Lookup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(names, "MAX_ADDRESSES", 3)
    resolver.request(at(f"10.0.0.{number}") for number in range(5))
    resolver.wait(TIMEOUT)
    assert sorted(lookup.asked) == ["10.0.0.0", "10.0.0.1", "10.0.0.2"]


# Reverse DNS.


def test_the_name_of_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[tuple[str, int], int]] = []

    def getnameinfo(address: tuple[str, int], flags: int) -> tuple[str, str]:
        asked.append((address, flags))
        return "db.example", "0"

    monkeypatch.setattr(socket, "getnameinfo", getnameinfo)
    assert host_name("10.0.0.1") == "db.example"
    assert asked == [(("10.0.0.1", 0), socket.NI_NAMEREQD)]


@pytest.mark.parametrize("error", [socket.gaierror(-2, "no name"), OSError(), UnicodeError()])
def test_an_address_that_cannot_be_resolved(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def getnameinfo(_address: tuple[str, int], _flags: int) -> tuple[str, str]:
        raise error

    monkeypatch.setattr(socket, "getnameinfo", getnameinfo)
    assert host_name("10.0.0.1") is None
