"""The page through a port that ssh forwards, as docs/page.md shows, with the real programs."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ..broker import free_port
from ..browser import Tab
from .helpers import DEADLINE, Holder, must_have, need_root
from .live import Agent
from .pages import Connected, Page, wait_until_equal

SERVER = "/usr/sbin/sshd"
OPTIONS = ("-F", "none", "-o", "BatchMode=yes", "-o", "ExitOnForwardFailure=yes")


def make_key(path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)


class Tunnels:
    """A server of ssh at a port of loopback; ``directory`` has its keys and that of a user."""

    def __init__(self, directory: Path, port: int) -> None:
        self._directory = directory
        self._port = port

    @contextmanager
    def to(self, address: str) -> Iterator[str]:
        """Forward a port of localhost to an address; yield HOST:PORT of it."""
        port = free_port()
        argv = (
            "ssh", *OPTIONS, "-N", "-p", str(self._port), "-i", self._directory / "user",
            "-o", f"UserKnownHostsFile={self._directory}/known",
            "-L", f"{port}:{address}", f"{getpass.getuser()}@127.0.0.1",
        )  # fmt: skip
        client = subprocess.Popen(argv, stdin=subprocess.DEVNULL)
        try:
            wait_for_port(port, client)
            yield f"localhost:{port}"
        finally:
            client.terminate()
            client.wait(DEADLINE)


def wait_for_port(port: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until connections to a port of loopback are accepted."""
    end = time.monotonic() + DEADLINE
    while True:
        assert process.poll() is None
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            assert time.monotonic() < end
            time.sleep(0.05)
        else:
            return


@pytest.fixture
def tunnels(tmp_path: Path) -> Iterator[Tunnels]:
    """A running server of ssh, with keys of its own."""
    need_root()  # Only root may start sessions of users.
    must_have(os.path.exists(SERVER), "openssh-server is not installed")
    must_have(shutil.which("ssh"), "openssh-client is not installed")
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    port = free_port()
    make_key(tmp_path / "host")
    make_key(tmp_path / "user")
    known = (tmp_path / "host.pub").read_text().split()[:2]
    (tmp_path / "known").write_text(f"[127.0.0.1]:{port} {' '.join(known)}\n")
    (tmp_path / "config").write_text(
        f"ListenAddress 127.0.0.1:{port}\nHostKey {tmp_path}/host\nPidFile none\nUsePAM no\n"
        f"AuthorizedKeysFile {tmp_path}/user.pub\nStrictModes no\n"
        "PasswordAuthentication no\nPermitRootLogin prohibit-password\n"
    )
    server = subprocess.Popen((SERVER, "-D", "-e", "-f", tmp_path / "config"))
    try:
        wait_for_port(port, server)
        yield Tunnels(tmp_path, port)
    finally:
        server.terminate()
        server.wait(DEADLINE)


def test_the_page_works_through_a_forwarded_port(
    tab: Tab, holder: Holder, tunnels: Tunnels
) -> None:
    with Agent() as agent, tunnels.to(agent.address) as near:
        page = Page(tab, near).live(f"?pid={holder.pid}")
        with Connected(agent.address, "--pid", str(holder.pid)) as connected:
            holder.do("many = [tcp_listener(OWN) for _ in range(20)]")
            wait_until_equal(page, connected, 20)
            holder.do("while len(many) > 10: many.pop().close()")
            wait_until_equal(page, connected, 10)
            page.wait_for_state(lambda state: len(state["rows"]) == 10)
        page.check()
