"""Changes of real sockets, as records of the stream."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

from websockets.sync.client import connect

from .helpers import (
    COMMAND,
    DEADLINE,
    Follow,
    Holder,
    by_key,
    need_root,
    snapshot,
)
from .live import Agent


def test_a_close_has_the_time_that_the_socket_was_open(holder: Holder) -> None:
    before = holder.open("a = tcp_listener()")
    with Follow("--pid", str(holder.pid)) as follow:
        follow.started()
        inode = holder.open("b = tcp_listener()")
        opened = follow.wait(event="open", inode=inode)
        holder.do("a.close(), b.close()")
        closed = follow.wait(event="close", inode=inode)
        assert closed["reason"] == "closed"
        assert closed["duration_ms"] >= 0
        assert closed["fds"] == opened["fds"]
        assert follow.wait(event="close", inode=before)["duration_ms"] is None


def test_a_killed_process_closes_its_sockets_as_exited(holder: Holder) -> None:
    inode = holder.open("s = tcp_listener()")
    with Follow("--pid", str(holder.pid)) as follow:
        follow.started()
        holder.end()
        assert follow.wait(event="close", inode=inode)["reason"] == "exited"


def test_sockets_of_a_zombie_are_reported_as_exited(holder: Holder) -> None:
    inode = holder.open("s = tcp_listener()")
    with Follow("--pid", str(holder.pid)) as follow:
        follow.started()
        holder.signal(signal.SIGKILL)
        closed = follow.wait(event="close", inode=inode)
        assert holder.process.returncode is None
        assert closed["reason"] == "exited"


LEADERLESS = """
import ctypes, os, socket, sys, threading
first = socket.create_server(("127.0.0.1", 0))
def work():
    sys.stdin.readline()
    second = socket.create_server(("127.0.0.1", 0))
    print(os.fstat(second.fileno()).st_ino, flush=True)
    sys.stdin.readline()
    first.close()
    sys.stdin.readline()
print(os.fstat(first.fileno()).st_ino, flush=True)
threading.Thread(target=work).start()
ctypes.CDLL(None).pthread_exit(None)
"""


def test_a_process_whose_main_thread_ended_is_still_followed() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", LEADERLESS], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin
        assert process.stdout
        first = int(process.stdout.readline())
        with Follow("--pid", str(process.pid)) as follow:
            follow.started()
            follow.until(lambda: " Z " in Path(f"/proc/{process.pid}/stat").read_text())
            assert list(follow.of(process.pid)) == [first]
            process.stdin.write(b"\n")
            process.stdin.flush()
            second = int(process.stdout.readline())
            follow.wait(event="open", inode=second)
            process.stdin.write(b"\n")
            process.stdin.flush()
            assert follow.wait(event="close", inode=first)["reason"] == "closed"
            assert list(follow.of(process.pid)) == [second]
            process.kill()
            assert follow.wait(event="close", inode=second)["reason"] == "exited"


def test_a_forked_process_holds_the_socket_too(holder: Holder) -> None:
    inode = holder.open("s = tcp_listener(OWN)")
    with Follow("--addr", holder.address) as follow:
        follow.started()
        child = holder.do("fork()")
        opened = follow.wait(event="open", pid=child, inode=inode)
        assert opened["ppid"] == holder.pid
        assert {key for key in follow.fold if key[1] == inode} == {
            (holder.pid, inode),
            (child, inode),
        }
        holder.do("s.close()")
        assert follow.wait(event="close", pid=holder.pid)["reason"] == "closed"
        assert list(follow.fold) == [(child, inode)]
        holder.do(f"os.kill({child}, 9), os.waitpid({child}, 0)")
        assert follow.wait(event="close", pid=child)["reason"] == "exited"


def test_a_duplicate_is_listed_among_the_descriptors(holder: Holder) -> None:
    inode = holder.open("s = tcp_listener()")
    first = holder.do("s.fileno()")
    with Follow("--pid", str(holder.pid)) as follow:
        follow.started()
        second = holder.do("os.dup(s.fileno())")
        update = follow.wait(event="update", inode=inode)
        assert update["fds"] == sorted([first, second])
        assert update["previous"] == {"fds": [first], "fd_count": 1}
        (record,) = snapshot("--pid", str(holder.pid))
        assert record["fds"] == [first, second]
        holder.do("s.close()")
        follow.until(lambda: follow.of(holder.pid)[inode]["fds"] == [second])


def test_of_many_descriptors_the_lowest_are_listed_and_the_others_counted(holder: Holder) -> None:
    inode = holder.open("s = tcp_listener()")
    holder.do("more = [os.dup(s.fileno()) for _ in range(99)]")
    with Follow("--pid", str(holder.pid)) as follow:
        follow.started()
        (record,) = snapshot("--pid", str(holder.pid))
        for one in (record, follow.of(holder.pid)[inode]):
            assert (len(one["fds"]), one["fd_count"]) == (64, 100)
            assert one["fds"] == [holder.do("s.fileno()"), *holder.do("more")[:63]]
        holder.do("os.dup(s.fileno())")
        update = follow.wait(event="update", inode=inode)
        assert (update["fd_count"], update["previous"]) == (101, {"fd_count": 100})
        holder.do("[os.close(fd) for fd in more], s.close()")
        follow.until(lambda: follow.of(holder.pid)[inode]["fd_count"] == 1)


def test_names_cannot_control_a_terminal(tmp_path: Path) -> None:
    name = "\x7f\x9b31m\x85é"
    program = tmp_path / f"s{name}"
    shutil.copy(shutil.which("sleep") or "", program)
    with (
        socket.socket(socket.AF_UNIX) as listening,
        Agent("--cmdline", "--comm", program.name) as agent,
    ):
        listening.bind(f"\0{tmp_path}{name}")
        listening.listen()
        command = (str(program), "600")
        with subprocess.Popen(command, pass_fds=[listening.fileno()]) as holding:
            done = subprocess.run(
                (*COMMAND, "--cmdline", "--comm", program.name), capture_output=True, check=True
            )
            with connect(agent.url) as feed:
                lines = [done.stdout]
                while b'"path"' not in lines[-1]:
                    lines.append(str(feed.recv(DEADLINE)).encode())
            holding.kill()
    for line in lines:
        text = line.decode().replace("\n", "")
        assert not [char for char in text if char < " " or "\x7f" <= char <= "\x9f"]
    for line in (lines[0], lines[-1]):
        record = json.loads(line.splitlines()[0])
        assert (record["comm"], record["exe"]) == (program.name, str(program))
        assert record["cmdline"] == [str(program), "600"]
        assert record["path"] == f"@{tmp_path}{name}"


def test_another_socket_on_the_same_descriptor_closes_and_opens(holder: Holder) -> None:
    old = holder.open("s = tcp_listener()")
    descriptor = holder.do("s.fileno()")
    with Follow("--pid", str(holder.pid)) as follow:
        follow.started()
        holder.do("s.close()")
        new = holder.open("s = socket.socket(type=socket.SOCK_DGRAM)")
        assert holder.do("s.fileno()") == descriptor
        opened = follow.wait(event="open", inode=new)
        assert opened["fds"] == [descriptor]
        assert opened["proto"] == "udp"
        closed = follow.wait(event="close", inode=old)
        assert closed["proto"] == "tcp"
        assert closed["reason"] == "closed"
        assert closed["seq"] < opened["seq"]


def test_a_passed_descriptor_opens_for_its_receiver(holder: Holder, tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with Holder() as receiver:
        holder.do(f"l = socket.socket(socket.AF_UNIX); l.bind({path!r}); l.listen()")
        receiver.do(f"c = socket.socket(socket.AF_UNIX); c.connect({path!r})")
        holder.do("a, _ = l.accept()")
        inode = holder.open("s = tcp_listener()")
        with Follow("--pid", f"{holder.pid},{receiver.pid}") as follow:
            follow.started()
            holder.do("socket.send_fds(a, [b'.'], [s.fileno()])")
            descriptor = receiver.do("socket.recv_fds(c, 1, 1)[1][0]")
            opened = follow.wait(event="open", pid=receiver.pid, inode=inode)
            assert opened["fds"] == [descriptor]
            assert (holder.pid, inode) in follow.fold


def test_a_socket_in_flight_has_no_holder_until_it_is_received(holder: Holder) -> None:
    inode = holder.open("s = tcp_listener(OWN)")
    with Follow("--addr", holder.address) as follow:
        follow.started()
        holder.do("a, b = socket.socketpair(); socket.send_fds(a, [b'.'], [s.fileno()]); s.close()")
        without_holder = follow.wait(event="open", pid=None, inode=inode)
        assert "comm" not in without_holder
        assert without_holder["state"] == "LISTEN"
        holder.do("received = socket.recv_fds(b, 1, 1)[1]")
        assert follow.wait(event="close", pid=None, inode=inode)["reason"] == "attributed"
        follow.until(lambda: list(follow.fold) == [(holder.pid, inode)])


def test_sockets_of_a_thread_with_its_own_descriptors_are_reported(holder: Holder) -> None:
    with Follow("--pid", str(holder.pid)) as follow:
        follow.started()
        inode = holder.do("thread_with_own_descriptors()")
        assert follow.wait(event="open", inode=inode)["state"] == "LISTEN"
        assert (holder.pid, inode) in by_key(snapshot("--pid", str(holder.pid)))


def test_sockets_in_another_network_namespace_are_reported(holder: Holder) -> None:
    need_root()
    with Follow("--pid", str(holder.pid)) as follow:
        follow.started()
        holder.do("unshare(CLONE_NEWNET)")
        netns = Path(f"/proc/{holder.pid}/ns/net").stat().st_ino
        assert netns != Path("/proc/self/ns/net").stat().st_ino
        inode = holder.open("s = tcp_listener('0.0.0.0')")
        opened = follow.wait(event="open", inode=inode)
        assert (opened["netns"], opened["state"]) == (netns, "LISTEN")
        assert opened["local_port"] == holder.do("s.getsockname()[1]")
        found = snapshot("--netns", str(netns), "--state", "LISTEN")
        assert list(by_key(found)) == [(holder.pid, inode)]


def test_a_process_keeps_its_sockets_over_exec(holder: Holder) -> None:
    inode = holder.open("s = tcp_listener(); s.set_inheritable(True)")
    sleep = str(shutil.which("sleep"))
    comm = Path(f"/proc/{holder.pid}/comm").read_text().strip()
    exe = os.readlink(f"/proc/{holder.pid}/exe")
    with Follow("--pid", str(holder.pid), "--cmdline") as follow:
        follow.started()
        assert holder.process.stdin
        print(
            f"\"os.execv({sleep!r}, [{sleep!r}, '1000'])\"", file=holder.process.stdin, flush=True
        )
        follow.until(lambda: follow.of(holder.pid)[inode]["comm"] == "sleep")
        updates = [record for record in follow.records if record["event"] == "update"]
        assert updates[0]["previous"]["comm"] == comm
        assert updates[0]["previous"]["exe"] == exe
        assert follow.fold[holder.pid, inode]["cmdline"] == [sleep, "1000"]
        assert not [record for record in follow.records if record["event"] == "close"]


def test_an_accepted_connection_is_inbound_and_its_client_outbound(holder: Holder) -> None:
    with Holder() as client, Follow("--pid", f"{holder.pid},{client.pid}") as follow:
        follow.started()
        listener = holder.open("l = tcp_listener()")
        port = holder.do("l.getsockname()[1]")
        assert follow.wait(event="open", inode=listener)["direction"] == "listen"
        out = client.open(f"c = socket.create_connection(('127.0.0.1', {port}))")
        inbound = holder.open("a = l.accept()[0]")
        accepted = follow.wait(event="open", pid=holder.pid, inode=inbound)
        connected = follow.wait(event="open", pid=client.pid, inode=out)
        assert (accepted["direction"], accepted["local_port"]) == ("inbound", port)
        assert (connected["direction"], connected["remote_port"]) == ("outbound", port)
        assert accepted["remote_port"] == connected["local_port"]
        holder.do("l.close()")
        follow.wait(event="close", inode=listener)
        assert follow.fold[holder.pid, inbound]["direction"] == "inbound"


def test_an_unanswered_connection_is_outbound(holder: Holder) -> None:
    port = holder.do("[l := tcp_listener(backlog=0), l.getsockname()[1]][1]")
    holder.do("cs = [socket.socket() for _ in range(4)]; [c.setblocking(False) for c in cs]")
    holder.do("[c.connect_ex(l.getsockname()) for c in cs]")
    with Follow("--pid", str(holder.pid), "--port", str(port)) as follow:
        follow.started()
        directions = {r["direction"] for r in follow.fold.values() if r["state"] == "SYN_SENT"}
        assert directions == {"outbound"}


def test_the_states_of_a_connection_that_ends_are_reported(holder: Holder) -> None:
    holder.do("l = tcp_listener(); c, a = tcp_pair(l)")
    client, accepted = holder.do("inode(c)"), holder.do("inode(a)")
    with Follow("--pid", str(holder.pid)) as follow:
        follow.started()
        holder.do("c.shutdown(socket.SHUT_WR)")
        for inode, state in ((client, "FIN_WAIT2"), (accepted, "CLOSE_WAIT")):
            update = follow.wait(event="update", inode=inode, state=state)
            assert update["previous"] == {"state": "ESTABLISHED"}
        # The kernel keeps TIME_WAIT without a socket: that of the client is unbound now.
        holder.do("a.close()")
        follow.until(lambda: follow.of(holder.pid)[client]["state"] == "CLOSE")
        assert follow.wait(event="close", inode=accepted)["reason"] == "closed"


def test_sockets_that_no_process_holds_are_listed_only_with_all(holder: Holder) -> None:
    holder.do("l = tcp_listener(OWN); c, a = tcp_pair(l); l.close()")
    holder.do("c.close(), a.close()")
    assert snapshot("--addr", holder.address) == []
    (record,) = snapshot("--addr", holder.address, "--all")
    assert record["state"] == "TIME_WAIT"
    assert record["inode"] is None
    assert record["pid"] is None
    assert record["uid"] is None
    assert "comm" not in record
