"""``sockagent page``: a browser's requests, the file that leads a browser to it, and its end."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin, Subprotocol

from ..broker import Connection, broker, needs_broker
from .helpers import COMMAND, DEADLINE, Holder, need_root
from .live import Agent

_URL = re.compile(r"http://(127\.0\.0\.1:\d+)/(\S*)#token=(\S+)\n")
ENVIRONMENT = {
    name: value
    for name, value in os.environ.items()
    if name not in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER", "SUDO_USER", "XDG_RUNTIME_DIR")
}


class PageCommand:
    """The running command, what it printed, and the parts of its URL."""

    def __init__(self, *arguments: str, **environment: str) -> None:
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 (closed at exit)
        self.process = subprocess.Popen(
            (*COMMAND, "page", *arguments),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._stderr,
            env={**ENVIRONMENT, **environment},
        )
        end = time.monotonic() + DEADLINE
        while not (found := _URL.search(self.stderr())):
            assert self.process.poll() is None, self.stderr()
            assert time.monotonic() < end, self.stderr()
            time.sleep(0.01)
        self.address, self.query, self.token = found.groups()

    def stderr(self) -> str:
        self._stderr.seek(0)
        return self._stderr.read().decode()

    def get(self, path: str, *, token: bool = False) -> tuple[int, bytes]:
        """Return the status and the body of a response."""
        request = urllib.request.Request(f"http://{self.address}{path}")
        if token:
            request.add_header("Authorization", f"Bearer {self.token}")
        try:
            with urllib.request.urlopen(request, timeout=DEADLINE) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()

    def end(self, number: signal.Signals = signal.SIGINT) -> None:
        """End the command with a signal; check that nothing went wrong."""
        self.process.send_signal(number)
        assert self.process.wait(DEADLINE) == 0, self.stderr()
        assert "Traceback" not in self.stderr()
        assert self.stderr().count(self.token) == 1

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self._stderr.close()


@contextmanager
def page(*arguments: str, **environment: str) -> Iterator[PageCommand]:
    command = PageCommand(*arguments, **environment)
    try:
        yield command
        command.end()
    finally:
        command.close()


def test_the_page_and_its_feed() -> None:
    with page("--interval", "0.1") as running, Holder() as holder:
        assert running.query == ""
        assert running.get("/")[0] == 200
        assert running.get("/events?target=nginx") == (401, b"token required\n")
        assert running.get("/events?target=:x", token=True)[0] == 400
        assert running.get("/events?target=nginx", token=True)[0] == 426
        cmdline = Path(f"/proc/{running.process.pid}/cmdline").read_bytes()
        assert running.token.encode() not in cmdline
        offered = [Subprotocol("sockagent.v1"), Subprotocol(f"sockagent.token.{running.token}")]
        url = f"ws://{running.address}/events?target={holder.pid}&snapshot=0"
        with connect(url, origin=Origin(f"http://{running.address}"), subprotocols=offered) as feed:
            assert json.loads(feed.recv(DEADLINE).splitlines()[0])["event"] == "hello"
            inode = holder.open("one = socket.create_server(('127.0.0.1', 0))")
            record = json.loads(feed.recv(DEADLINE).splitlines()[0])
            assert (record["event"], record["pid"], record["inode"]) == ("open", holder.pid, inode)
        with pytest.raises(InvalidStatus) as refused:
            connect(url, origin=Origin("http://evil.example"), subprotocols=offered)
        assert refused.value.response.status_code == 403


def test_the_page_of_other_agents(tmp_path: Path) -> None:
    need_root()  # For two host names.
    names = ("one", "two")
    tokens = tmp_path / "tokens"
    tokens.write_text(f"{'t' * 32}\n")
    with ExitStack() as stack:
        words = ["--token-file", str(tokens)]
        for name in names:
            command = ("unshare", "--uts", "sh", "-c", f'hostname {name}; exec "$@"', "-", *COMMAND)
            options = ("--token-file", str(tokens))
            agent = stack.enter_context(Agent(*options, command=command))
            words += ("--connect", agent.url.removesuffix("/events"))
        holder = stack.enter_context(Holder())
        running = stack.enter_context(page(*words, str(holder.pid)))
        assert running.get("/")[0] == 200
        assert running.get("/events")[0] == 401
        inode = holder.open("one = socket.create_server(('127.0.0.1', 0))")
        assert holdings(running, len(names)) == {(name, holder.pid, inode) for name in names}
        assert running.get("/healthz")[1] == b"ok\n"


def holdings(running: PageCommand, count: int) -> set[tuple[str, int, int]]:
    """Return so many holdings, by host, pid and inode, that the feed of the page reports."""
    offered = [Subprotocol("sockagent.v1"), Subprotocol(f"sockagent.token.{running.token}")]
    seen: set[tuple[str, int, int]] = set()
    with connect(f"ws://{running.address}/events", subprotocols=offered) as feed:
        while len(seen) < count:
            for record in map(json.loads, feed.recv(DEADLINE).splitlines()):
                if record["event"] in ("open", "snapshot"):
                    seen.add((record["host"], record["pid"], record["inode"]))
    return seen


@needs_broker
def test_the_page_of_a_fleet(tmp_path: Path) -> None:
    credentials = tmp_path / "token"
    credentials.write_text("secret")  # Which this broker does not require.
    with ExitStack() as stack:
        started = stack.enter_context(broker(tmp_path))
        asyncio.run(make_stream(started.url))
        holder = stack.enter_context(Holder())
        words = ("--publish", started.url, "--interval", "0.1", str(holder.pid))
        publisher = subprocess.Popen((*COMMAND, *words), stdout=subprocess.DEVNULL)
        stack.callback(publisher.wait)
        stack.callback(publisher.terminate)
        options = ("--since", "start", "--nats-creds", str(credentials))
        running = stack.enter_context(page("--connect", started.url, *options))
        inode = holder.open("one = socket.create_server(('127.0.0.1', 0))")
        assert holdings(running, 1) == {(os.uname().nodename, holder.pid, inode)}


async def make_stream(url: str) -> None:
    async with Connection(url) as connection:
        await connection.make_stream()


def test_the_browser_is_led_to_the_page_by_a_file(tmp_path: Path) -> None:
    browser, arguments = tmp_path / "browser", tmp_path / "arguments"
    # It has no terminal, and stays when the agent ends.
    browser.write_text(
        f"#!/bin/sh\n(exec 3</dev/tty) 2>{tmp_path}/no-terminal\n"
        f'cp "${{1#file://}}" {tmp_path}/copy\necho "$*" >{arguments}.new\n'
        f"mv {arguments}.new {arguments}\n"
    )
    browser.chmod(0o755)
    runtime = tmp_path / "runtime"
    runtime.mkdir()
    with page(BROWSER=str(browser), XDG_RUNTIME_DIR=str(runtime)) as running:
        end = time.monotonic() + DEADLINE
        while not arguments.exists():
            assert time.monotonic() < end
            time.sleep(0.01)
        (redirect,) = runtime.iterdir()
        assert arguments.read_text() == f"{redirect.as_uri()}\n"
        assert redirect.stat().st_mode & 0o777 == 0o600
        assert f"url=http://{running.address}/#token={running.token}" in redirect.read_text()
        assert (tmp_path / "copy").read_text() == redirect.read_text()
        assert (tmp_path / "no-terminal").read_text()
    assert list(runtime.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("reads", [False, True])
def test_a_signal_ends_it(number: signal.Signals, reads: bool, tmp_path: Path) -> None:
    (tmp_path / "recording").touch()
    arguments = ("--read", str(tmp_path / "recording")) if reads else ()
    command = PageCommand(*arguments)
    try:
        command.end(number)
    finally:
        command.close()


def test_a_recording_is_shown(tmp_path: Path) -> None:
    path = tmp_path / "recording.ndjson"
    with path.open("wb") as file:
        subprocess.run(
            (*COMMAND, "--follow", "--timeout", "1"), stdin=subprocess.DEVNULL, stdout=file,
            check=False, timeout=DEADLINE,
        )  # fmt: skip
    assert path.read_bytes().startswith(b'{"event":"hello"')
    with page("--read", str(path)) as running:
        assert running.query == "?recording"
        assert running.get("/?recording")[0] == 200
        assert running.get("/recording")[0] == 401
        assert running.get("/recording", token=True) == (200, path.read_bytes())
        assert running.get("/events", token=True)[0] == 404
