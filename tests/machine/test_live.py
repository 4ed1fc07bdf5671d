"""The live feed of a real agent, read by foreign clients."""

from __future__ import annotations

import http.server
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import pytest
from websockets.sync.client import connect, unix_connect

from .helpers import (
    COMMAND,
    DEADLINE,
    Follow,
    Holder,
    must_have,
    need_root,
    need_tool,
    run,
)
from .live import Agent

ROOT = Path(__file__).parents[2]
FEED = (ROOT / "docs" / "feed.md").read_text(encoding="utf-8")
CLIENTS = dict(
    re.findall(r"^<!-- client: (\w+) -->\n```\w+\n(.*?)^```$", FEED, re.MULTILINE | re.DOTALL)
)
TOKEN = "0123456789abcdef"
PAGE_SECONDS = 60.0  # Browsers start slowly.


@pytest.fixture
def token_file(tmp_path: Path) -> str:
    path = tmp_path / "tokens"
    path.write_text(f"{TOKEN}\n")
    path.chmod(0o600)
    return str(path)


def client(name: str, agent: Agent) -> str:
    """Return a client of docs/feed.md that connects to this agent."""
    return str(CLIENTS[name]).replace("127.0.0.1:8765", agent.address)


def reads_an_open(command: list[str] | str, holder: Holder, **options: object) -> None:
    """Run a client until it prints a socket that is opened meanwhile."""
    scripts = sysconfig.get_path("scripts")
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}"},
        shell=isinstance(command, str),
        start_new_session=True,
        **options,  # type: ignore[call-overload]
    ) as process:
        try:
            lines: list[str] = []
            threading.Thread(target=lambda: lines.extend(process.stdout), daemon=True).start()
            end = time.monotonic() + DEADLINE
            while not any("open" in line for line in lines):
                assert process.poll() is None, lines
                assert time.monotonic() < end, lines
                holder.do("late = socket.create_server(('127.0.0.1', 0))")
                time.sleep(0.2)
        finally:
            os.killpg(process.pid, 9)


def test_the_documented_clients_are_these() -> None:
    assert CLIENTS.keys() == {"python", "browser", "websocat", "connect"}


def test_the_documented_client_in_python(holder: Holder) -> None:
    with Agent() as agent:
        reads_an_open([sys.executable, "-u", "-c", client("python", agent)], holder)


def test_the_documented_websocat_command(holder: Holder) -> None:
    must_have(
        (Path(sysconfig.get_path("scripts")) / "websocat").exists() or shutil.which("websocat"),
        "websocat is not installed",
    )
    with Agent() as agent:
        reads_an_open(client("websocat", agent), holder)


def test_the_documented_connect_command(holder: Holder) -> None:
    with Agent() as agent:
        reads_an_open(client("connect", agent), holder)


def test_a_client_in_node(holder: Holder) -> None:
    node = need_tool("node")
    has = "process.exit(typeof WebSocket === 'undefined' ? 1 : 0)"
    flags = next(
        (
            flags
            for flags in ([], ["--experimental-websocket"])
            if subprocess.run(
                [node, *flags, "-e", has], capture_output=True, check=False
            ).returncode
            == 0
        ),
        None,
    )
    must_have(flags is not None, "this node has no WebSocket")
    script = """
        const feed = new WebSocket(process.argv[1]);
        feed.onmessage = (message) => {
            for (const line of message.data.trimEnd().split("\\n")) {
                const record = JSON.parse(line);
                console.log(record.event, record.seq);
            }
        };
    """
    with Agent() as agent:
        url = f"{agent.url}?event=open"
        reads_an_open([node, *(flags or []), "-e", script, url], holder)


# Chromium.


class Site:
    """A site with one page, which posts its log back."""

    def __init__(self, page: str) -> None:
        self.logs: list[str] = []
        site = self
        sent = f"""{page}
            <script>
              setInterval(() => fetch("/log", {{method: "POST",
                body: document.getElementById("log").textContent}}), 100);
            </script>"""

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "text/html; charset=utf-8")
                self.end_headers()
                self.wfile.write(sent.encode())

            def do_POST(self) -> None:
                size = int(self.headers["Content-Length"])
                site.logs.append(self.rfile.read(size).decode())
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_arguments: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]

    def __enter__(self) -> Self:
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_raised: object) -> None:
        self.server.shutdown()
        self.server.server_close()


@contextmanager
def chromium(directory: Path, url: str) -> Iterator[None]:
    """Run a browser on a page; evil.example resolves to this machine."""
    browser = next((found for name in ("chromium", "chromium-browser", "google-chrome")
                    if (found := shutil.which(name))), None)  # fmt: skip
    must_have(browser, "chromium is not installed")
    assert browser
    with subprocess.Popen(
        [browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
         "--no-first-run", "--disable-background-networking", "--disable-component-update",
         "--disable-sync", "--disable-dev-shm-usage", f"--user-data-dir={directory}",
         "--host-resolver-rules=MAP evil.example 127.0.0.1",
         "--disable-features=LocalNetworkAccessChecks,HttpsUpgrades",
         "--remote-debugging-port=0", url],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:  # fmt: skip
        try:
            yield
        finally:
            os.killpg(process.pid, 9)


def wait_for(holds: Callable[[], object], seconds: float, why: Callable[[], object]) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, why()
        time.sleep(0.05)


def allowing(site: Site, token_file: str) -> tuple[str, ...]:
    return ("--token-file", token_file, "--allow-origin", f"http://localhost:{site.port}")


def test_an_allowed_page_reads_the_feed(tmp_path: Path, token_file: str, holder: Holder) -> None:
    port = free_port()
    page = CLIENTS["browser"].replace("127.0.0.1:8765", f"127.0.0.1:{port}")
    with (
        Site(page) as site,
        Agent(*allowing(site, token_file), listen=f"127.0.0.1:{port}") as agent,
        chromium(tmp_path / "profile", f"http://localhost:{site.port}/"),
    ):
        wait_for(
            lambda: any("snapshot_end" in log for log in site.logs), PAGE_SECONDS, agent.stderr
        )
        holder.do("here = socket.create_server(('127.0.0.1', 0))")
        wait_for(lambda: "open " in site.logs[-1], PAGE_SECONDS, agent.stderr)


@pytest.mark.parametrize(
    ("page_host", "feed_host", "message"),
    [
        ("localhost", "127.0.0.1", "origin not allowed"),
        ("evil.example", "evil.example", "unknown host name in the Host header"),
    ],
)
def test_a_foreign_page_and_a_rebound_name_are_rejected(
    page_host: str, feed_host: str, message: str, tmp_path: Path, token_file: str
) -> None:
    port = free_port()
    page = CLIENTS["browser"].replace("127.0.0.1:8765", f"{feed_host}:{port}")
    with Site(page) as site:
        # The origin of the rebound page is allowed, even so.
        allowed = "https://dash.example" if page_host == "localhost" else (
            f"http://evil.example:{site.port}"
        )  # fmt: skip
        arguments = ("--token-file", token_file, "--allow-origin", allowed)
        with (
            Agent(*arguments, listen=f"127.0.0.1:{port}") as agent,
            chromium(tmp_path / "profile", f"http://{page_host}:{site.port}/"),
        ):
            wait_for(lambda: message in agent.stderr(), PAGE_SECONDS, agent.stderr)
            wait_for(lambda: len(site.logs) > 5, PAGE_SECONDS, agent.stderr)
            assert set(site.logs) == {""}
            assert TOKEN not in agent.stderr()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def test_invalid_settings_are_reported_before_the_start(tmp_path: Path) -> None:
    for arguments, status, message in (
        (("--listen", "0.0.0.0:1"), 2, "argument --listen: 0.0.0.0:1: listening on"),
        (("--listen", "nonsense"), 2, "argument --listen: invalid address 'nonsense'; "),
        (("--listen", "127.0.0.1:1", "--all"), 2, "argument --all: "),
        (("--listen", "127.0.0.1:1", "--token-file", "/nowhere"), 78, "token file /nowhere: "),
        (("--connect", "http://x"), 2, "argument --connect: invalid URL 'http://x'; "),
        (("--connect", "ws://x", "--interval", "2"), 2, "argument --interval: "),
    ):
        done = run(*arguments)
        assert done.returncode == status, done.stderr
        assert message in done.stderr
        assert done.stdout == ""


def test_an_address_in_use_is_reported_on_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = "{}:{}".format(*server.getsockname())
        done = run("--listen", address)
        assert (done.returncode, done.stderr) == (
            1, f"sockagent: cannot listen on {address}: Address already in use\n"
        )  # fmt: skip
        assert run("--follow", "--listen", address).returncode == 1


def test_one_agent_prints_and_serves(holder: Holder) -> None:
    port = free_port()
    with Follow("--listen", f"127.0.0.1:{port}", "--pid", str(holder.pid)) as follow:
        follow.started()
        with connect(f"ws://127.0.0.1:{port}/events") as feed:
            holder.do("here = socket.create_server(('127.0.0.1', 0))")
            follow.wait(event="open", pid=holder.pid)
            received = ""
            while '"open"' not in received:
                received += str(feed.recv(DEADLINE))
            # The filter of the command line limits all subscribers.
            records = [json.loads(line) for line in received.splitlines()]
            assert {record.get("pid") for record in records} <= {holder.pid, None}


def test_it_stops_in_time_while_clients_stall(holder: Holder) -> None:
    holder.do("many = [socket.socket() for _ in range(3000)]")
    with Agent() as agent:
        host, port = agent.address.rsplit(":", 1)
        stalled = []
        for _ in range(20):
            one = socket.create_connection((host, int(port)))
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            one.sendall(
                b"GET /events HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
                b"Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                b"Sec-WebSocket-Version: 13\r\n\r\n"
            )
            stalled.append(one)
        with connect(agent.url) as feed:
            feed.recv(DEADLINE)
            assert agent.stop() < 3.0  # Three seconds are documented; it takes one.
        for one in stalled:
            one.close()


def test_another_user_of_a_unix_socket_needs_a_token(tmp_path: Path, token_file: str) -> None:
    need_root()
    path = f"{tmp_path}/feed.sock"
    arguments = ("--token-file", token_file, "--socket-mode", "666")
    with Agent(*arguments, listen=f"unix:{path}"):
        with unix_connect(path, "ws://localhost/events") as feed:
            assert json.loads(str(feed.recv(DEADLINE)).splitlines()[0])["event"] == "hello"
        for directory in (tmp_path, *tmp_path.parents):
            if directory.stat().st_uid == os.geteuid() and directory != Path("/"):
                directory.chmod(directory.stat().st_mode | 0o011)
        script = (
            "import os, sys; from websockets.sync.client import unix_connect;"
            "from websockets.exceptions import InvalidStatus; os.setuid(65534)\n"
            "for headers in ({}, {'Authorization': 'Bearer ' + sys.argv[2]}):\n"
            "    try:\n"
            "        feed = unix_connect(sys.argv[1], 'ws://localhost/events',"
            " additional_headers=headers)\n"
            "        print('hello' in feed.recv())\n"
            "    except InvalidStatus as error:\n"
            "        print(error.response.status_code)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", script, path, TOKEN], capture_output=True, text=True,
            timeout=DEADLINE, check=False,
        )  # fmt: skip
        assert done.stdout.split() == ["401", "True"], done.stderr
    assert not Path(path).exists()


def test_the_unix_socket_of_a_killed_agent_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "feed.sock"
    with Agent(listen=f"unix:{path}") as agent:
        agent.process.kill()
        agent.process.wait()
    assert path.exists()
    with Agent(listen=f"unix:{path}"), unix_connect(str(path), "ws://localhost/events") as feed:
        assert "hello" in str(feed.recv(DEADLINE))


def test_connect_resumes_after_a_restart(holder: Holder) -> None:
    with Agent() as agent:
        command = (*COMMAND, "--connect", agent.url, "--pid", str(holder.pid))
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as following:
            assert following.stdout
            assert following.stderr
            records: list[dict[str, object]] = []
            threading.Thread(
                target=lambda: records.extend(map(json.loads, following.stdout or ())), daemon=True
            ).start()

            def count(event: str) -> int:
                return [record["event"] for record in records].count(event)

            wait_for(lambda: count("snapshot_end") == 1, DEADLINE, agent.stderr)
            agent.restart()
            wait_for(lambda: count("snapshot_end") == 2, DEADLINE, agent.stderr)
            assert count("lost") == 1
            holder.do("here = socket.create_server(('127.0.0.1', 0))")
            wait_for(lambda: count("open") >= 1, DEADLINE, agent.stderr)
            following.terminate()
            assert following.wait(DEADLINE) == 0
            assert "Traceback" not in following.stderr.read()


def test_a_rejected_connect_ends_with_the_reason(token_file: str) -> None:
    with Agent("--token-file", token_file) as agent:
        done = run("--connect", agent.url)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == f"sockagent: {agent.url}: 401 token required\n"
