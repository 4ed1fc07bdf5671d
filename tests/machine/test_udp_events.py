"""UDP sockets that no poll sees, with the processes that trace events show."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from agent.kernel.trace import instance
from agent.kernel.trace.events import UDP_EVENTS
from agent.kernel.trace.udp_events import has_udp
from agent.snapshot.udp_switch import FLOODED

from .helpers import Follow, Holder, must_have, need_root, run

PROCESSES = 200
# Processes that each send a datagram from a socket of their own, every other one after connecting
# it, and exit. Prints the pids of each port as JSON.
SEND = """
import json, os, socket, sys
receiver = socket.socket(type=socket.SOCK_DGRAM)
receiver.bind(("127.0.0.1", 0))
pids = {}
for number in range(int(sys.argv[1])):
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        one = socket.socket(type=socket.SOCK_DGRAM)
        if number % 2:
            one.connect(receiver.getsockname())
            one.send(b"x")
        else:
            one.sendto(b"x", receiver.getsockname())
        os.write(writing, str(one.getsockname()[1]).encode())
        os._exit(0)
    os.close(writing)
    pids.setdefault(int(os.read(reading, 10)), []).append(pid)
    os.close(reading)
    os.waitpid(pid, 0)
print(json.dumps({"receiver": receiver.getsockname()[1], "ports": pids}))
"""
FLOOD = """
import time
sender, receiver = (socket.socket(type=socket.SOCK_DGRAM) for _ in range(2))
receiver.bind(("127.0.0.1", 0))
def flood(seconds):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        sender.sendto(b"x", receiver.getsockname())
"""


@pytest.fixture(autouse=True)
def tracefs() -> str:
    need_root()
    root = instance.find_tracefs()
    if root is None:
        run("tracefs", "/sys/kernel/tracing", command=("mount", "-t", "tracefs"))
        root = instance.find_tracefs()
    must_have(root, "tracefs cannot be mounted here")
    for event in UDP_EVENTS:
        must_have(Path(str(root), "events", event).exists(), f"this kernel has no {event}")
    return str(root)


def send(count: int) -> tuple[int, dict[int, list[int]]]:
    """Return the pid of the processes' parent, and the processes of each port."""
    command = (sys.executable, "-S", "-E", "-c", SEND, str(count))
    with subprocess.Popen(command, stdout=subprocess.PIPE) as parent:
        output, _ = parent.communicate()
    assert parent.returncode == 0
    ports = json.loads(output)["ports"]
    return parent.pid, {int(port): pids for port, pids in ports.items()}


def test_processes_that_send_one_datagram_are_reported() -> None:
    with Follow("--events-udp", "--source", "netlink", "--proto", "udp", interval=1.0) as follow:
        follow.started()
        parent, ports = send(PROCESSES)
        count = sum(map(len, ports.values()))
        assert count == PROCESSES
        of_ports = ports.keys()

        def closes() -> list[dict[str, object]]:
            return [
                one
                for one in follow.records
                if one["event"] == "close" and one["local_port"] in of_ports
            ]

        follow.until(lambda: len(closes()) >= count)
    found = [one for one in closes() if one["pid"] is not None]
    assert len(found) >= PROCESSES / 2
    for one in found:
        assert one["pid"] in ports[int(str(one["local_port"]))]
    guessed = [one for one in found if one["inode"] is None]
    assert len(guessed) >= PROCESSES / 2
    for one in guessed:
        assert (one["attribution"], one["ppid"], one["time_source"]) == ("route", parent, "poll")
        assert one["comm"]
        assert one["exe"]
        assert one["start_time"]


def test_without_the_option_no_process_is_guessed() -> None:
    with Follow("--source", "netlink", "--proto", "udp", interval=0.5) as follow:
        follow.started()
        _parent, ports = send(5)
        found = [follow.wait(event="close", local_port=port) for port in ports]
    for one in found:
        assert one["inode"] is not None or (one["pid"] is None and "attribution" not in one)


def test_a_flood_of_datagrams_switches_the_events_off(tracefs: str) -> None:
    with Holder() as holder, Follow("--events-udp", "--proto", "udp", interval=0.5) as follow:
        follow.started()
        path = instance.path_of(tracefs, f"{instance.SERVICE_INSTANCE}-{follow.process.pid}")
        assert has_udp(path)
        holder.do(FLOOD)
        holder.do("flood(1.0)")
        follow.until(lambda: not has_udp(path))
        follow.until(lambda: FLOODED in missing(follow))
        assert instance.is_intact(path)


def missing(follow: Follow) -> list[str]:
    """Return what is missing by the newest record of the coverage."""
    coverage = [one for one in follow.records if one["event"] in ("hello", "coverage")]
    return list(coverage[-1]["missing"])
