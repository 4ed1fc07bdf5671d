"""Three hosts, each in namespaces of its own, joined by a bridge: web, app and db.

All namespaces end with their first process, and that ends with this one: nothing stays behind.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from .helpers import COMMAND, DEADLINE, need_root, need_tool
from .roles import PORTS

ADDRESSES = {"web": "10.77.0.2", "app": "10.77.0.3", "db": "10.77.0.4"}
NAMES = tuple(ADDRESSES)
CALLER = "10.77.0.1"  # The bridge, where the clients are: there is no agent.
# The port that the clients, the proxy, and the backend call.
CALLED = {"web": PORTS["proxy"], "app": PORTS["backend"], "db": PORTS["database"]}
POSTGRES_USER = "65534"
ROLES = (sys.executable, "-S", str(Path(__file__).with_name("roles.py")))
_NAMESPACES = ("--uts", "--net", "--ipc", "--pid", "--cgroup", "--mount")
# The first process starts the agent again whenever that ends.
_AGENT = """
hostname "$1"; ip link set lo up; echo; read go
while :; do {command} --listen unix:"$2" {options} 2>> "$2.log" || sleep 0.1; done
"""
_NO_AGENT = 'hostname "$1"; ip link set lo up; echo; read go; exec sleep infinity'
OPTIONS = "--interval 0.2"
_NGINX = """
daemon off; user root; worker_processes 2; pid {directory}/nginx.pid; error_log stderr crit;
events {{}}
http {{
  access_log off; keepalive_requests 100000000; keepalive_timeout 3600s;
  client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/fastcgi; uwsgi_temp_path {directory}/uwsgi;
  scgi_temp_path {directory}/scgi;
  upstream app {{
    server {address}:{port}; keepalive 8; keepalive_requests 100000000; keepalive_timeout 3600s;
  }}
  server {{
    listen 80;
    location / {{
      proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection "";
    }}
    location /churn {{ proxy_pass http://{address}:{port}; }}
  }}
}}
"""


class Namespaces:
    """A process in namespaces of its own, and what is run there."""

    def __init__(self, stack: ExitStack, script: str, *arguments: str) -> None:
        self._stack = stack
        self.process = stack.enter_context(subprocess.Popen(
            ("setpriv", "--pdeathsig", "KILL", "unshare", *_NAMESPACES, "--fork", "--kill-child",
             "--mount-proc", "sh", "-c", script, "sh", *arguments),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        ))  # fmt: skip
        stack.callback(self.process.kill)
        assert self.process.stdout
        assert self.process.stdout.readline(), "the namespaces cannot be made"
        (self.pid,) = children(self.process.pid)

    def command(self, *command: str) -> tuple[str, ...]:
        """Return the command that runs another one there."""
        return ("nsenter", "-t", str(self.pid), "-n", "-u", "-i", "-C", "-m", "-p", *command)

    def run(self, command: str) -> None:
        """Run a command, whose words are separated by blanks."""
        subprocess.run(self.command(*command.split()), check=True, timeout=DEADLINE)

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        """Start a command, which ends with the namespaces."""
        process = self._stack.enter_context(
            subprocess.Popen(self.command(*command), stdin=subprocess.DEVNULL)
        )
        self._stack.callback(process.kill)
        return process

    def end(self, process: subprocess.Popen[bytes]) -> None:
        """End what was started there, which is a child of nsenter."""
        end = time.monotonic() + DEADLINE
        while process.poll() is None:  # The child may not be there yet.
            assert time.monotonic() < end
            for pid in children(process.pid):
                os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)

    def go(self) -> None:
        """Let the script go on."""
        assert self.process.stdin
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()


class Host(Namespaces):
    """A host with an agent, which is started again when it is killed. ``options`` are those of the
    agent, None: there is none."""

    def __init__(
        self, stack: ExitStack, name: str, directory: Path, options: str | None = OPTIONS
    ) -> None:
        self.name = name
        self.path = f"{directory}/{name}.sock"
        script = _NO_AGENT
        if options is not None:
            script = _AGENT.format(command=" ".join(COMMAND), options=options)
        super().__init__(stack, script, name, self.path)

    def agent(self) -> int:
        """Return the process of the agent; wait for it."""
        end = time.monotonic() + DEADLINE
        while time.monotonic() < end:
            for pid in children(self.pid):
                with suppress(OSError):
                    if b"--listen" in Path(f"/proc/{pid}/cmdline").read_bytes():
                        return pid
            time.sleep(0.02)
        raise TimeoutError

    def kill_agent(self) -> None:
        """Kill the agent with SIGKILL."""
        os.kill(self.agent(), signal.SIGKILL)

    @contextmanager
    def without_agent(self) -> Iterator[None]:
        """Kill the agent, and start it again in the end."""
        os.kill(self.pid, signal.SIGSTOP)
        try:
            self.kill_agent()
            yield
        finally:
            os.kill(self.pid, signal.SIGCONT)


def children(pid: int) -> list[int]:
    """Return the children of a process."""
    try:
        return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


class Site:
    """The hosts, and clients that call the first of them. ``options``: see ``Host``."""

    def __init__(self, stack: ExitStack, directory: Path, options: str | None = OPTIONS) -> None:
        need_root()
        for tool in ("setpriv", "unshare", "nsenter", "ip"):
            need_tool(tool)
        self.bridge = Namespaces(stack, "ip link set lo up; echo; read go")
        self.bridge.run("ip link add bridge type bridge")
        self.bridge.run(f"ip addr add {CALLER}/24 dev bridge")
        self.bridge.run("ip link set bridge up")
        self.hosts = {name: Host(stack, name, directory, options) for name in NAMES}
        for name, host in self.hosts.items():
            subprocess.run(
                ("ip", "link", "add", "eth0", "netns", str(host.pid), "type", "veth",
                 "peer", "name", name, "netns", str(self.bridge.pid)), check=True,
            )  # fmt: skip
            self.bridge.run(f"ip link set {name} master bridge up")
            host.run(f"ip addr add {ADDRESSES[name]}/24 dev eth0")
            host.run("ip link set eth0 up")
        self._serve(stack)
        for host in self.hosts.values():
            host.go()

    def _serve(self, stack: ExitStack) -> None:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/tmp")))
        directory.chmod(0o755)
        web, app, db = self.hosts.values()
        self._start_database(db, directory / "data")
        app.start(*ROLES, "backend", ADDRESSES["db"])
        if nginx := shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin"):
            path = directory / "nginx.conf"
            address, port = ADDRESSES["app"], CALLED["app"]
            path.write_text(_NGINX.format(directory=directory, address=address, port=port))
            web.start(nginx, "-p", str(directory), "-c", str(path), "-e", "stderr")
        else:
            web.start(*ROLES, "proxy", ADDRESSES["app"])

    @staticmethod
    def _start_database(db: Host, data: Path) -> None:
        if not (initdb := shutil.which("initdb")):
            db.start(*ROLES, "database")
            return
        data.mkdir()
        os.chown(data, int(POSTGRES_USER), int(POSTGRES_USER))
        user = ("setpriv", f"--reuid={POSTGRES_USER}", f"--regid={POSTGRES_USER}", "--clear-groups")
        subprocess.run(
            (*user, initdb, "-D", str(data), "-U", "postgres", "-A", "trust", "-N"),
            check=True, stdout=subprocess.DEVNULL, cwd="/",
        )  # fmt: skip
        with (data / "pg_hba.conf").open("a") as file:
            file.write(f"host all all {CALLER}/24 trust\n")
        db.start(
            *user, str(Path(initdb).resolve().with_name("postgres")), "-D", str(data), "-F",
            "-c", "listen_addresses=*", "-c", "unix_socket_directories=",
            "-c", "max_connections=50", "-c", "log_min_messages=panic",
        )  # fmt: skip

    def clients(self, count: int) -> subprocess.Popen[bytes]:
        """Start clients that hold connections."""
        return self.bridge.start(*ROLES, "clients", ADDRESSES["web"], str(count))

    @contextmanager
    def churn(self) -> Iterator[None]:
        """Run a client that makes a new connection, through all hosts, for each page."""
        churning = self.bridge.start(*ROLES, "churn", ADDRESSES["web"])
        yield
        self.bridge.end(churning)
