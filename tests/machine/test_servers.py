"""What nginx, Redis and PostgreSQL hold, compared with ss, lsof and fuser."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from .helpers import DEADLINE, need_root, need_tool, run, snapshot
from .test_targets import free_port
from .tools import output

NGINX = """
daemon off; pid {directory}/pid; error_log {directory}/error; worker_processes 2;
events {{}}
http {{ access_log off; server {{ listen 127.0.0.1:{port}; return 200 "ok"; }} }}
"""
# Connections of each server that a test opens.
CLIENTS = 3
NOBODY = 65_534


def program(name: str) -> str:
    """Return the path of a server, which need not be in PATH."""
    places = [*map(str, Path("/usr/lib/postgresql").glob("*/bin")), "/usr/sbin", os.environ["PATH"]]
    found = shutil.which(name, path=os.pathsep.join(places))
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def nginx(directory: Path, port: int) -> list[str]:
    (directory / "conf").write_text(NGINX.format(directory=directory, port=port))
    return [program("nginx"), "-e", "stderr", "-c", str(directory / "conf")]


def redis(directory: Path, port: int) -> list[str]:
    return [
        program("redis-server"), "--port", str(port), "--bind", "127.0.0.1", "--save", "",
        "--dir", str(directory),
    ]  # fmt: skip


def postgres(directory: Path, port: int) -> list[str]:
    need_root()
    command, data = program("postgres"), directory / "data"
    directory.chmod(0o777)
    for parent in directory.parents[:2]:
        parent.chmod(0o755)
    subprocess.run(
        [program("initdb"), "-D", data, "-A", "trust", "-U", "test", "--no-sync"],
        check=True, stdout=subprocess.DEVNULL, user=NOBODY, group=NOBODY, cwd="/",
    )  # fmt: skip
    return [command, "-D", str(data), "-p", str(port), "-h", "127.0.0.1", "-k", str(directory)]


@contextmanager
def running(command: list[str], port: int) -> Iterator[list[socket.socket]]:
    """Run a server; yield connections to it, which it has accepted."""
    user = NOBODY if command[0].endswith("/postgres") else None
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, user=user, group=user,
        cwd="/",
    ) as server:  # fmt: skip
        clients: list[socket.socket] = []
        try:
            end = time.monotonic() + DEADLINE
            while len(clients) < CLIENTS and time.monotonic() < end:
                with suppress(OSError):
                    clients.append(socket.create_connection(("127.0.0.1", port), 5))
                time.sleep(0.05)
            yield clients
        finally:
            for client in clients:
                client.close()
            server.terminate()
            server.wait(DEADLINE)


def holders_by_ss(port: int) -> set[tuple[int, int]]:
    """Return (pid, inode) of each holder of a socket with this port."""
    lines = output(["ss", "-Htanpe", f"sport = {port} or dport = {port}"])
    return {
        (int(pid), int(inode[1]))
        for line in lines
        if (inode := re.search(r"ino:(\d+)", line))
        for pid in re.findall(r"pid=(\d+)", line)
        if int(inode[1])
    }


def holders_by_sockagent(target: str) -> set[tuple[int, int]]:
    return {(one["pid"], one["inode"]) for one in snapshot(target, "-t") if one["pid"] is not None}


def until_equal(one: Callable[[], object], other: Callable[[], object]) -> object:
    """Return what both give as soon as it is the same: a server may be accepting."""
    end = time.monotonic() + DEADLINE
    while (found := one()) != (expected := other()) and time.monotonic() < end:
        time.sleep(0.2)
    assert found == expected
    return found


@pytest.mark.parametrize("server", [nginx, redis, postgres])
def test_the_holders_of_a_port_are_those_of_ss_lsof_and_fuser(
    server: Callable[[Path, int], list[str]], tmp_path: Path
) -> None:
    for tool in ("ss", "lsof"):
        need_tool(tool)
    port = free_port()
    with running(server(tmp_path, port), port) as clients:
        assert len(clients) == CLIENTS
        target = f":{port}"
        found = until_equal(lambda: holders_by_sockagent(target), lambda: holders_by_ss(port))
        assert isinstance(found, set)
        assert {inode for _pid, inode in found} >= {
            os.fstat(one.fileno()).st_ino for one in clients
        }
        listeners = [int(pid) for pid in run("-o", "pid", target).stdout.split()]
        by_lsof = output(["lsof", "-nP", "-t", f"-iTCP:{port}", "-sTCP:LISTEN"])
        assert listeners == sorted(map(int, by_lsof))
        if shutil.which("fuser"):
            done = subprocess.run(
                ["fuser", f"{port}/tcp"], check=False, capture_output=True, text=True
            )
            assert set(listeners) <= set(map(int, done.stdout.split()))


def test_the_name_of_a_server_selects_its_processes(tmp_path: Path) -> None:
    port = free_port()
    with running(nginx(tmp_path, port), port):
        comms = {one["comm"] for one in snapshot("nginx", f":{port}")}
        assert comms == {"nginx"}
        lines = run("-o", "summary", "nginx", f":{port}").stdout.splitlines()
        assert any(line.startswith("listen") and f":{port}" in line for line in lines)
