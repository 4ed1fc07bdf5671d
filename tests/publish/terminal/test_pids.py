from __future__ import annotations

from agent.model import Holding, HostHolding, Socket
from agent.publish.terminal.pids import pids

from ...make import process, tcp, without_holder
from .machine import on, web_server


def held(pid: int, socket: Socket) -> HostHolding:
    return HostHolding("h", Holding(socket, process(pid), (3,), None), None)


def test_each_pid_once_and_ascending() -> None:
    found = [held(10, tcp(1)), held(9, tcp(1)), held(10, tcp(2))]
    found.append(HostHolding("h", without_holder(), None))
    assert list(pids(found)) == ["9", "10"]


def test_only_those_that_listen() -> None:
    assert list(pids(on(8080, web_server()))) == ["814", "1201", "1204"]
    assert list(pids(on(8080, web_server()), listening_only=True)) == ["1201", "1204"]


def test_udp_listens_without_a_peer() -> None:
    bound = tcp(state="UNCONNECTED")._replace(proto="udp")
    called = bound._replace(state="ESTABLISHED", remote_addr="10.0.0.9", remote_port=53)
    unbound = bound._replace(local_port=0)
    found = [held(1, bound), held(2, called), held(3, unbound)]
    assert list(pids(found, listening_only=True)) == ["1"]
