"""Trace events, from the kernel to the stream: connections that no poll sees.

The polls are a minute apart, so that only events can show what happens between them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.kernel.trace import instance

from .anyone import Anyone
from .helpers import Follow, Holder, Record, by_key, must_have, need_root, run, snapshot

MINUTE = 60.0
CONNECT = """
import os, socket, sys
with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as one:
    one.sendall(b"x" * 1000)
    one.recv(10)
    print(one.getsockname()[1])
"""
SERVE = """
import threading
listener = socket.create_server(("127.0.0.1", 0))
def serve():
    while True:
        accepted = listener.accept()[0]
        while len(accepted.recv(1000, socket.MSG_WAITALL)) < 1000:
            pass
        accepted.sendall(b"answer")
        accepted.close()
threading.Thread(target=serve, daemon=True).start()
"""
SOURCES = pytest.mark.parametrize("source", ["netlink", "procfs"])


@pytest.fixture(autouse=True)
def tracefs() -> str:
    need_root()
    root = instance.find_tracefs()
    if root is None:
        run("tracefs", "/sys/kernel/tracing", command=("mount", "-t", "tracefs"))
        root = instance.find_tracefs()
    must_have(root, "tracefs cannot be mounted here")
    return str(root)


@pytest.fixture
def server() -> Iterator[tuple[Holder, int]]:
    with Holder() as holder:
        holder.do(SERVE + "\nport = listener.getsockname()[1]")
        yield holder, holder.do("port")


def connect(port: int) -> tuple[int, int]:
    """Connect in a process that exits at once; return its pid and its port."""
    reading, writing = os.pipe()
    pid = os.posix_spawn(
        sys.executable, [sys.executable, "-S", "-E", "-c", CONNECT, str(port)], os.environ,
        file_actions=[(os.POSIX_SPAWN_DUP2, writing, 1), (os.POSIX_SPAWN_CLOSE, reading)],
    )  # fmt: skip
    os.close(writing)
    with open(reading) as output:
        local_port = int(output.read())
    assert os.waitpid(pid, 0)[1] == 0
    return pid, local_port


def instances(root: str, pid: int) -> list[Path]:
    return list(Path(root, "instances").glob(f"sockagent-{pid}"))


@SOURCES
def test_a_connection_of_a_short_lived_process_is_reported_with_it(
    server: tuple[Holder, int], source: str
) -> None:
    holder, port = server
    with Follow("--source", source, "--proto", "tcp", interval=MINUTE) as follow:
        follow.started()
        pid, local_port = connect(port)
        close = follow.wait(event="close", local_port=local_port, remote_port=port)
        accepted = follow.wait(event="close", local_port=port, remote_port=local_port)
        opens = [one for one in follow.records if one["event"] == "open"]
    (client,) = (one for one in opens if one["local_port"] == local_port)
    assert client["comm"] == os.path.basename(os.path.realpath(sys.executable))[:15] or (
        client["comm"] == os.path.basename(sys.executable)
    )
    assert client["direction"] == "outbound"
    assert client["pid"] == close["pid"] == pid
    assert client["ppid"] == os.getpid()
    # Of a process that is gone before it is read, the name that was executed is known.
    assert client["exe"] in (sys.executable, os.path.realpath(sys.executable))
    assert (client["attribution"], client["time_source"]) == ("connect", "event")
    assert (close["inode"], close["reason"], close["time_source"]) == (None, "closed", "event")
    assert close["duration_ms"] is not None
    assert client["time"] <= close["time"]
    assert (accepted["pid"], accepted["direction"]) == (holder.pid, "inbound")
    figures = (close["bytes_sent"], close["bytes_received"])  # The end counts as a byte.
    assert figures == ((1000, 7) if source == "netlink" else (None, None))


def test_a_connection_that_goes_on_is_reported_between_two_polls() -> None:
    with Holder() as holder, Follow("--source", "netlink", interval=MINUTE) as follow:
        follow.started()
        holder.do('listener = socket.create_server(("127.0.0.1", 0))')
        port = holder.do("listener.getsockname()[1]")
        listening = follow.wait(event="open", pid=holder.pid, local_port=port, state="LISTEN")
        holder.do(f'client = socket.create_connection(("127.0.0.1", {port}))')
        holder.do("accepted = listener.accept()[0]")
        for name, remote in (("client", port), ("accepted", None)):
            inode, fd = holder.do(f"os.fstat({name}.fileno()).st_ino, {name}.fileno()")
            opened = follow.wait(event="open", pid=holder.pid, inode=inode)
            assert (opened["state"], opened["fds"]) == ("ESTABLISHED", [fd])
            assert opened["time_source"] == "event"
            assert remote in (None, opened["remote_port"])
        inode = holder.do("os.fstat(accepted.fileno()).st_ino")
        holder.do("client.shutdown(socket.SHUT_WR)")
        update = follow.wait(event="update", pid=holder.pid, inode=inode)
        assert (update["state"], update["previous"]) == ("CLOSE_WAIT", {"state": "ESTABLISHED"})
        holder.do("accepted.close()")
        close = follow.wait(event="close", pid=holder.pid, inode=inode)
        assert (close["reason"], close["time_source"]) == ("closed", "event")
        assert close["bytes_sent"] == 0
        holder.do("listener.close()")
        follow.wait(event="close", pid=holder.pid, inode=listening["inode"])


@SOURCES
def test_the_fold_is_that_of_a_fresh_snapshot_after_churn(
    server: tuple[Holder, int], source: str
) -> None:
    holder, port = server
    with Follow("--source", source, "--proto", "tcp", interval=0.5) as follow:
        follow.started()
        ports = {connect(port)[1] for _ in range(20)}
        holder.do(f'kept = [socket.create_connection(("127.0.0.1", {port})) for _ in range(20)]')
        holder.do("del kept[::2]")
        inodes = set(holder.do("[os.fstat(one.fileno()).st_ino for one in kept]"))
        follow.until(lambda: inodes <= follow.of(holder.pid).keys())
        fresh = by_key(snapshot("--source", source, "--proto", "tcp", "--pid", str(holder.pid)))

        def is_equal() -> bool:
            return {key for key in follow.fold if key[0] == holder.pid} == fresh.keys()

        follow.until(is_equal)
        follow.until(lambda: closed_ports(follow.records) >= ports)
    opened = [one["local_port"] for one in follow.records if one["event"] == "open"]
    assert all(opened.count(one) == 1 for one in ports)


def closed_ports(records: list[Record]) -> set[int]:
    return {one["local_port"] for one in records if one["event"] == "close"}


def test_the_instance_is_removed_at_the_end(tracefs: str) -> None:
    with Follow("--events", "on") as follow:
        follow.started()
        pid = follow.process.pid
        assert follow.records[0]["events"] is True
        assert instances(tracefs, pid)
    assert not instances(tracefs, pid)


def test_the_instance_of_a_killed_agent_is_removed_by_the_next_one(tracefs: str) -> None:
    with pytest.raises(AssertionError, match="the stream ended"), Follow() as follow:
        follow.started()
        pid = follow.process.pid
        follow.process.kill()
        follow.process.wait()
        follow.until(lambda: False)
    assert instances(tracefs, pid)
    with Follow() as following:
        following.started()
        assert not instances(tracefs, pid)


def test_an_instance_that_is_switched_off_is_set_up_again(
    tracefs: str, server: tuple[Holder, int]
) -> None:
    with Follow("--proto", "tcp", interval=0.5) as follow:
        follow.started()
        (path,) = instances(tracefs, follow.process.pid)
        (path / "tracing_on").write_text("0")
        follow.until(lambda: instance.is_intact(str(path)))
        follow.wait(event="coverage")
        pid, local_port = connect(server[1])
        record = follow.wait(event="close", local_port=local_port, remote_port=server[1])
        assert record["pid"] == pid


def test_without_events_hello_says_why() -> None:
    with Follow("--events", "off") as follow:
        hello = follow.started().records[0]
    assert hello["events"] is False
    assert "--events off" in hello["events_off"]


def test_without_permission_the_agent_follows_without_events(anyone: Anyone) -> None:
    with Follow("--events", "auto", command=anyone.sockagent) as follow:
        hello = follow.started().records[0]
    assert hello["events"] is False
    assert "no permission" in hello["events_off"]


def test_required_events_without_permission_end_the_agent(anyone: Anyone) -> None:
    done = run("--follow", "--events", "on", command=anyone.sockagent)
    assert done.returncode == 1
    assert "sockagent events enable" in done.stderr


def test_the_instance_is_removed_if_the_agent_cannot_start(tracefs: str) -> None:
    before = set(Path(tracefs, "instances").iterdir())
    done = run("--follow", "--listen", "192.0.2.1:1", "--insecure")
    assert done.returncode != 0
    left = set(Path(tracefs, "instances").iterdir()) - before
    # Agents of other tests, which run, have instances with their pids.
    assert not [one for one in left if not Path("/proc", one.name.rpartition("-")[2]).exists()]
