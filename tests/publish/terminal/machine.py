"""The holdings of a small web server, which the views are tested with."""

from __future__ import annotations

from typing import Any

from agent.model import (
    CgroupInfo,
    Closed,
    Coverage,
    Holding,
    HostHolding,
    Opened,
    Owner,
    Process,
    Socket,
    TcpFigures,
    Updated,
)
from agent.publish.terminal.eventlog import (
    Dropped,
    LogValue,
    Started,
)

HOST = "web1"
START = 1_700_000_000.0
NOW = START + 7200.0
NETNS = 4_026_531_833
CONTAINER_NETNS = 4_026_532_201
CONTAINER = "f2ca1bb6c7e907d06dafe4687e579fce76b37e4e93b7605022da52e6ccc26fd2"
COVERAGE = Coverage(processes=41, unreadable=1, netns=2, missing=("one is unreadable",))

ROOT, WWW, SHOP, JOBS = (
    Owner(0, "root"),
    Owner(33, "www-data"),
    Owner(1001, "shop"),
    Owner(1002, "jobs"),
)
RESOLVE, REDIS = Owner(101, "systemd-resolve"), Owner(999, None)


def service(pid: int, comm: str, unit: str, exe: str, **more: Any) -> Process:
    return Process(pid, pid, comm, 1, START, None, exe, f"/system.slice/{unit}", unit, **more)


NGINX = service(812, "nginx", "web.service", "/usr/sbin/nginx")
NGINX_WORKERS = [NGINX._replace(pid=pid, start_ticks=pid, ppid=812) for pid in (813, 814, 815, 816)]
GUNICORN = service(1201, "gunicorn", "shop.service", "/srv/shop/venv/bin/python3.11")
GUNICORN_WORKER = GUNICORN._replace(pid=1204, start_ticks=1204, ppid=1201)
WORKER = service(1300, "worker", "jobs.service", "/srv/jobs/bin/worker")
RESOLVED = service(
    590, "systemd-resolve", "systemd-resolved.service", "/usr/lib/systemd/systemd-resolved"
)
SSHD = service(700, "sshd", "ssh.service", "/usr/sbin/sshd")
SESSION = Process(
    2201, 2201, "sshd-session", 700, START, 0, "/usr/lib/openssh/sshd-session",
    "/user.slice/user-1000.slice/session-3.scope", "session-3.scope",
)  # fmt: skip
REDIS_SERVER = Process(
    3100, 3100, "redis-server", 3050, START, 999, "/usr/local/bin/redis-server",
    f"/system.slice/docker-{CONTAINER}.scope", f"docker-{CONTAINER}.scope", CONTAINER,
)  # fmt: skip
POSTGRES = service(
    1400, "postgres", "postgresql@15-main.service", "/usr/lib/postgresql/15/bin/postgres"
)
DHCP = service(
    480, "systemd-network", "systemd-networkd.service", "/usr/lib/systemd/systemd-networkd"
)


class _Machine:
    def __init__(self) -> None:
        self.holdings: list[HostHolding] = []
        self._inode = 30_000

    def inode(self) -> int:
        self._inode += 1
        return self._inode

    def hold(
        self, socket: Socket, owner: Owner | None, *holders: Process, since: float | None = None,
        **more: Any,
    ) -> None:  # fmt: skip
        for number, process in enumerate(holders):
            holding = Holding(socket, process, (6 + number,), owner, **more)
            self.holdings.append(HostHolding(HOST, holding, since))
        if not holders:
            self.holdings.append(HostHolding(HOST, Holding(socket, None, (), owner, **more), since))

    def inet(
        self, proto: str, state: str, local: tuple[str, int], remote: tuple[str, int] | None,
        direction: str | None, **more: Any,
    ) -> Socket:  # fmt: skip
        family = "inet6" if ":" in local[0] else "inet"
        fields = {"recv_q": 0, "send_q": 0, "netns": NETNS, "source": "netlink", **more}
        return Socket(
            self.inode(), proto, family, None, state, local[0], local[1],
            remote and remote[0], remote and remote[1], None, direction, **fields,
        )  # fmt: skip


def _listeners(machine: _Machine) -> None:
    def listen(at: tuple[str, int], queue: int, backlog: int, **more: Any) -> Socket:
        return machine.inet(
            "tcp", "LISTEN", at, None, "listen", recv_q=queue, backlog=backlog, **more
        )

    machine.hold(listen(("0.0.0.0", 443), 0, 511), ROOT, NGINX, *NGINX_WORKERS)
    machine.hold(listen(("::", 443), 0, 511), ROOT, NGINX, *NGINX_WORKERS)
    machine.hold(listen(("127.0.0.1", 8080), 129, 128), SHOP, GUNICORN, GUNICORN_WORKER)
    machine.hold(listen(("0.0.0.0", 22), 0, 128), ROOT, SSHD)
    machine.hold(listen(("::", 22), 0, 128), ROOT, SSHD)
    machine.hold(listen(("0.0.0.0", 6379), 0, 511, netns=CONTAINER_NETNS), REDIS, REDIS_SERVER)
    machine.hold(listen(("127.0.0.53", 53), 0, 4096, interface="lo"), RESOLVE, RESOLVED)
    udp = machine.inet("udp", "UNCONNECTED", ("127.0.0.53", 53), None, None, interface="lo")
    machine.hold(udp, RESOLVE, RESOLVED)
    dhcp = machine.inet("udp", "UNCONNECTED", ("10.0.0.4", 68), None, None, interface="eth0")
    machine.hold(dhcp, ROOT, DHCP)
    link = ("fe80::5054:ff:fe12:3456", 546)
    machine.hold(machine.inet("udp", "UNCONNECTED", link, None, None, interface="eth0"), ROOT, DHCP)
    machine.hold(machine.inet("raw", "UNCONNECTED", ("::", 58), None, None), ROOT, DHCP)


def _connections(machine: _Machine) -> None:
    def pair(
        at: tuple[str, int], remote: tuple[str, int], state: str, direction: str, **more: Any
    ) -> Socket:
        return machine.inet("tcp", state, at, remote, direction, **more)

    for number in range(12):
        client = (f"198.51.100.{number % 5 + 1}", 51_500 + number)
        socket = pair(("10.0.0.4", 443), client, "ESTABLISHED", "inbound", send_q=number % 3 * 1448)
        machine.hold(socket, WWW, NGINX_WORKERS[number % 4], since=NOW - 5.0 * number)
    six = pair(
        ("2001:db8:85a3:8d3:1319:8a2e:370:7348", 443),
        ("2001:db8:ffff:ffff:ffff:ffff:ffff:1", 60_001),
        "ESTABLISHED",
        "inbound",
    )
    machine.hold(six, WWW, NGINX_WORKERS[0], since=NOW - 3700)
    for number in range(4):
        at, to = ("127.0.0.1", 48_500 + number), ("127.0.0.1", 8080)
        machine.hold(pair(at, to, "ESTABLISHED", "outbound"), WWW, NGINX_WORKERS[1], since=NOW - 90)
        machine.hold(pair(to, at, "ESTABLISHED", "inbound"), SHOP, GUNICORN_WORKER, since=NOW - 90)
    for number in range(3):
        socket = pair(
            ("127.0.0.1", 8080), ("127.0.0.1", 48_438 + number), "CLOSE_WAIT", "inbound", recv_q=1
        )
        machine.hold(socket, SHOP, GUNICORN_WORKER, since=NOW - 260)
    for number in range(2):
        socket = pair(("10.0.0.4", 40_112 + number), ("10.0.9.20", 5432), "ESTABLISHED", "outbound")
        machine.hold(socket, JOBS, WORKER)
    # A socket with mapped addresses and its other end with plain ones.
    at, to = ("127.0.0.1", 39_000), ("127.0.0.1", 22)
    machine.hold(pair(at, to, "ESTABLISHED", "outbound"), JOBS, WORKER)
    mapped = pair(("::ffff:127.0.0.1", 22), ("::ffff:127.0.0.1", 39_000), "ESTABLISHED", "inbound")
    machine.hold(mapped, ROOT, SSHD, SESSION)
    # The same addresses and ports in a container are another connection.
    socket = pair(("127.0.0.1", 6379), at, "ESTABLISHED", "inbound", netns=CONTAINER_NETNS)
    machine.hold(socket, REDIS, REDIS_SERVER)
    machine.hold(pair(("10.0.0.4", 40_200), ("192.0.2.7", 25), "SYN_SENT", "outbound"), JOBS)


def _others(machine: _Machine) -> None:
    def unix(
        state: str, path: str | None, direction: str | None, peer: int | None = None
    ) -> Socket:
        return Socket(
            machine.inode(), "unix", "unix", "stream", state, path=path, direction=direction,
            recv_q=0, send_q=0, netns=NETNS, source="netlink", peer_inode=peer,
        )  # fmt: skip

    path = "/var/run/postgresql/.s.PGSQL.5432"
    machine.hold(unix("LISTEN", path, "listen"), ROOT, POSTGRES)
    server = unix("CONNECTED", path, "inbound")
    client = unix("CONNECTED", None, "outbound", server.inode)
    machine.hold(server._replace(peer_inode=client.inode), ROOT, POSTGRES, peer_pid=1300)
    machine.hold(client, JOBS, WORKER, peer_pid=1400)
    machine.hold(unix("LISTEN", "@/tmp/.X11-unix/X0", "listen"), ROOT, SESSION)
    netlink = Socket(
        machine.inode(), "netlink", "netlink", None, "UNCONNECTED", "route", 480, netns=NETNS
    )
    machine.hold(netlink, ROOT, DHCP)
    packet = Socket(
        machine.inode(), "packet", "packet", None, "UNCONNECTED", "0x0806", 2, netns=NETNS
    )
    machine.hold(packet, ROOT, DHCP)
    unseen = machine.inet("tcp", "LISTEN", ("127.0.0.1", 631), None, "listen", backlog=5)
    place = CgroupInfo("/system.slice/cups.service", "cups.service", None)
    machine.hold(unseen, ROOT, cgroup=place)


def web_server() -> list[HostHolding]:
    """Return all holdings."""
    machine = _Machine()
    _listeners(machine)
    _connections(machine)
    _others(machine)
    return machine.holdings


def on(port: int, holdings: list[HostHolding]) -> list[HostHolding]:
    """Return those that have a port at either end."""
    return [
        one for one in holdings
        if port in (one.holding.socket.local_port, one.holding.socket.remote_port)
    ]  # fmt: skip


def events() -> list[tuple[float, LogValue]]:
    """Return changes with their times."""
    by_port = {one.holding.socket.remote_port: one.holding for one in web_server()}
    waiting, client, called = by_port[48_438], by_port[51_504], by_port[5432]
    established = waiting._replace(socket=waiting.socket._replace(state="ESTABLISHED"))
    unseen = called._replace(socket=called.socket._replace(inode=0), process=None, fds=())
    guessed = client._replace(
        socket=client.socket._replace(inode=0), fds=(), attribution="listener"
    )
    unix = next(one.holding for one in web_server() if one.holding.socket.direction == "outbound"
                and one.holding.socket.family == "unix")  # fmt: skip
    figures = TcpFigures(1_204, 48_211_003, 40, 33_000, 2, 12.5)
    dup = client._replace(fds=(6, 7))
    renamed = called.process and called._replace(process=called.process._replace(comm="curl"))
    values: list[LogValue] = [
        Started(3639, 41, "^C ends (in a pipe: NDJSON)"),
        Opened(client),
        Updated(established, waiting, 3.0),
        Updated(waiting, established, 260.0),
        Updated(dup, client),
        Updated(renamed or called, called),
        Closed(client, "closed", 1.04, figures=figures),
        Closed(waiting, "exited", 260.0),
        Closed(called, "closed", None),
        Closed(unseen, "closed", None),
        Closed(guessed, "closed", 0.2),
        Closed(called._replace(process=None, fds=()), "attributed", 4000.0),
        Closed(called, "filtered", 200_000.0),
        Opened(guessed),
        Opened(unix),
        COVERAGE._replace(missing=("the descriptors of process 4 (app) may not be read",)),
        Coverage(573, 0, 1),
        Dropped(1200, 1260, 3641),
        Dropped(1200, None),
    ]
    return [(START + number, value) for number, value in enumerate(values)]
