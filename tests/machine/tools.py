"""The output of ss, netstat and lsof, in one form."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from .helpers import DEADLINE, Record

TCP = {
    "ESTAB": "ESTABLISHED",
    "FIN-WAIT-1": "FIN_WAIT1",
    "FIN-WAIT-2": "FIN_WAIT2",
    "UNCONN": "CLOSE",
}
DATAGRAM = {"ESTAB": "ESTABLISHED", "UNCONN": "UNCONNECTED", "": "UNCONNECTED", "7": "UNCONNECTED"}
UNIX = {
    "ESTAB": "CONNECTED",
    "SYN-SENT": "CONNECTING",
    "UNCONN": "UNCONNECTED",
    "LISTENING": "LISTEN",
    "": "UNCONNECTED",
}
STATES = {"tcp": TCP, "unix": UNIX}
NETLINK = {"route": "0", "usersock": "2", "sock_diag": "4", "xfrm": "6", "audit": "9"}
NETLINK |= {"connector": "11", "netfilter": "12", "kobject_uevent": "15", "generic": "16"}
INET = {"tcp", "udp", "udplite", "raw", "icmp"}


class Row(NamedTuple):
    """A socket as a tool shows it; None: not shown. ``place`` is the pair of addresses, with * for
    any, or the path, or protocol and port."""

    proto: str
    state: str | None
    place: str
    inode: int | None
    uid: int | None
    holders: frozenset[tuple[int, int | None]] = frozenset()  # (pid, descriptor)


def output(command: Sequence[str]) -> list[str]:
    """Return the lines that a tool prints. Its stderr and status, which report what it cannot see,
    are ignored."""
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=DEADLINE
    )
    lines = done.stdout.decode(errors="backslashreplace").splitlines()
    assert lines, done.stderr
    return lines


def state_of(proto: str, state: str) -> str:
    """Return the state as the kernel names it."""
    return STATES.get(proto, DATAGRAM).get(state, state.replace("-", "_"))


def end(address: str, port: object) -> str:
    """Return one end of a socket in a form common to the tools."""
    address = address.partition("%")[0].strip("[]").removeprefix("::ffff:")
    if address in {"", "0.0.0.0", "::"}:
        address = "*"
    return f"{address}:{'*' if port in (None, '', '0', 0) else port}"


def ends(local: str, remote: str) -> str:
    parts = [text.rpartition(":") for text in (local, remote)]
    return " ".join(end(address, port) for address, _, port in parts)


def first_word(path: str) -> str:
    """Return the first word of a path: all that every tool shows of a path with blanks."""
    return path.split(maxsplit=1)[0] if path.strip() else ""


def record_place(record: Record) -> str:
    """Return the place of a record's socket, as in ``Row``."""
    if record["family"] == "unix":
        return first_word(record["path"] or "")
    if record["family"] == "netlink":
        return f"{NETLINK.get(record['local_addr'], record['local_addr'])}:{record['local_port']}"
    if record["family"] == "packet":
        return "packet"
    names = ("local_addr", "local_port", "remote_addr", "remote_port")
    values = [record[name] or "" for name in names]
    return f"{end(values[0], values[1])} {end(values[2], values[3])}"


_HOLDER = re.compile(r"pid=(\d+),fd=(\d+)")
_SS = re.compile(r"(\S+)\s+(\S+)\s+\d+\s+\d+\s+(.*)")
_SS_UNIX = re.compile(r"(\S+).*? (\d+)\s+\S+ \d+\s*(?:(?:users:|<->).*)?")


def ss(become: Sequence[str] = ()) -> Iterator[Row]:
    """Run ``ss -anpe``, which omits processes of netlink sockets and inodes of raw sockets."""
    for line in output((*become, "ss", "-H", "-O", "-anpe")):
        match = _SS.fullmatch(line)
        if not match:
            continue
        kind, state, rest = match.groups()
        holders = frozenset((int(pid), int(fd)) for pid, fd in _HOLDER.findall(rest))
        details = dict(re.findall(r"\b(ino|uid):(\d+)", rest.rpartition("))")[2] or rest))
        inode = int(details["ino"]) if "ino" in details else None
        uid = int(details.get("uid", 0))
        words = rest.split()
        if kind in {"tcp", "udp", "raw"}:
            place = ends(words[0], words[1])
            owner = uid if inode else None
            if inode != 0:
                yield Row(kind, state_of(kind, state), place, inode, owner, holders)
        elif kind.startswith("u_"):
            unix = _SS_UNIX.fullmatch(rest)
            if unix:
                path = "" if unix[1] == "*" else unix[1]
                yield Row("unix", state_of("unix", state), path, int(unix[2]), None, holders)
        elif kind == "nl":
            if not words[0].endswith((":0", ":*")):
                # ss shows port ids above 2^31, which the kernel chooses, as negative.
                protocol, _, port = words[0].rpartition(":")
                if port.startswith("-"):
                    words[0] = f"{protocol}:{int(port) % 2**32}"
                yield Row("netlink", "UNCONNECTED", words[0], None, None)
        elif kind.startswith("p_"):
            yield Row("packet", "UNCONNECTED", "packet", inode, uid if inode else None, holders)


_NETSTAT_INET = re.compile(
    r"(tcp|udp|udpl|raw)6?\s+\d+\s+\d+\s+(\S+)\s+(\S+)\s+([A-Z_0-9]*?)\s+(\d+)\s+(\d+)\s+(-|\d+/.*?)\s*"
)
_NETSTAT_UNIX = re.compile(
    r"unix\s+\d+\s+\[.*?\]\s+(?:STREAM|DGRAM|SEQPACKET)\s+([A-Z]*)\s+(\d+)\s+(-|\d+/\S*)\s*(.*)"
)


def netstat(become: Sequence[str] = ()) -> Iterator[Row]:
    """Run ``netstat -apeen``, which shows one holder of each socket, without descriptor."""
    for line in output((*become, "netstat", "-apeenW")):
        if match := _NETSTAT_INET.fullmatch(line):
            name, local, remote, state, user, inode, program = match.groups()
            proto = "udplite" if name == "udpl" else name
            place, uid = ends(local, remote), int(user)
        elif match := _NETSTAT_UNIX.fullmatch(line):
            state, inode, program, place = match.groups()
            proto, uid, place = "unix", None, first_word(place)
        else:
            continue
        if inode != "0":
            pid = program.partition("/")[0]
            holders = frozenset() if pid == "-" else frozenset({(int(pid), None)})
            yield Row(proto, state_of(proto, state), place, int(inode), uid, holders)


_LSOF_PATH = re.compile(r"(.*?) ?type=[A-Z]+(?: ->.*)?")


def lsof(become: Sequence[str] = ()) -> Iterator[Row]:
    """Run ``lsof -nP -i -U -F``: one row per descriptor; no raw, netlink and packet sockets."""
    pid = 0
    fields: dict[str, str] = {}
    for line in (*output((*become, "lsof", "-nP", "-i", "-U", "-F")), "p0"):
        letter, text = line[:1], line[1:]
        if letter in "pf" and "f" in fields:
            if row := _lsof_row(pid, fields):
                yield row
            fields = {}
        if letter == "p":
            pid = int(text)
        elif letter == "T":
            name, _, value = text.partition("=")
            fields[name] = value
        else:
            fields[letter] = text


def _lsof_row(pid: int, fields: dict[str, str]) -> Row | None:
    if not fields["f"].isdigit():
        return None
    holders = frozenset({(pid, int(fields["f"]))})
    name = fields.get("n", "")
    if fields.get("t") == "unix":
        path = _LSOF_PATH.fullmatch(name)
        assert path, name
        return Row("unix", fields.get("ST"), first_word(path[1]), int(fields["i"]), None, holders)
    proto = fields["P"].lower()
    local, _, remote = name.partition("->")
    return Row(proto, fields.get("ST"), ends(local, remote), int(fields["d"]), None, holders)
