"""Bytes of ``/proc/PID/{stat,cgroup,cmdline}`` to process facts. Pure: it knows no sockets.

Formats: proc_pid_stat(5), proc_pid_cmdline(5), cgroups(7); the names that container managers and
systemd give to cgroups are theirs.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from ...model import CgroupInfo
from ...text import decode

_INT_BITS = 31  # Of an int that is not negative.
_TICKS_BITS = 42  # 1,400 years of a hundred ticks a second.
_ENDED = (b"Z", b"X")  # States: zombie, dead.
_EXITING = 0x4  # PF_EXITING in include/linux/sched.h.


class ProcessStat(NamedTuple):
    """From ``stat``: ``start_ticks`` in clock ticks since boot. ``image`` differs after an exec
    (where the reader may see it; else it is constant), so that one is noticed. ``exiting`` is True
    from before the kernel closes the descriptors of a thread that exits; ``state`` changes later.
    """

    comm: str
    state: str
    ppid: int
    threads: int
    start_ticks: int
    image: bytes
    exiting: bool


def parse_stat(data: bytes) -> ProcessStat:
    """``/proc/PID/stat``. Raises ValueError when it is none.

    ``comm`` may hold blanks and parentheses: the fields are counted behind the last ``)``.
    """
    head, closed, tail = data.rpartition(b")")
    _pid, opened, comm = head.partition(b"(")
    fields = tail.split()
    if not closed or not opened or len(fields) < 20:
        raise ValueError("not a stat line")
    ppid, threads, start_ticks = int(fields[1]), int(fields[17]), int(fields[19])
    if (ppid | threads) >> _INT_BITS or start_ticks >> _TICKS_BITS:
        raise ValueError("no kernel's numbers")
    return ProcessStat(
        comm=decode(comm),
        state=decode(fields[0]),
        ppid=ppid,
        threads=threads,
        start_ticks=start_ticks,
        # startcode and startstack: addresses that are chosen anew by each exec.
        image=b" ".join(fields[23:26:2]),
        exiting=fields[0] in _ENDED or bool(int(fields[6]) & _EXITING),
    )


def parse_cmdline(data: bytes) -> tuple[str, ...]:
    """``/proc/PID/cmdline``: arguments ended by NULs; empty for a zombie or kernel thread."""
    if not data:
        return ()
    return tuple(decode(argument) for argument in data.removesuffix(b"\0").split(b"\0"))


def parse_cgroup(data: bytes) -> CgroupInfo:
    """``/proc/PID/cgroup`` on v1, v2 and hybrid hierarchies; what is no line of it is skipped."""
    paths: dict[str, str] = {}
    for line in data.split(b"\n"):
        hierarchy, _, rest = line.partition(b":")
        controllers, colon, path = rest.partition(b":")
        if colon and hierarchy.isdigit() and path.startswith(b"/"):
            # A removed cgroup is marked so; its name still tells whose process it was.
            paths[decode(controllers)] = decode(path.removesuffix(b" (deleted)"))
    return cgroup_info_of(paths)


def cgroup_info_of(paths: dict[str, str]) -> CgroupInfo:
    """What the paths of a process in its hierarchies tell; by controllers, "" the unified one."""
    # v2 ("") says most, unless it is unused beside v1; then systemd's own v1 hierarchy does.
    order = [paths.pop(name) for name in ("", "name=systemd") if name in paths]
    order += sorted(paths.values(), key=len, reverse=True)
    if not order:
        return CgroupInfo(None, None, None)
    telling = [path for path in order if path != "/"]
    container = next((found for path in telling if (found := container_of(path))), None)
    unit = next((found for path in telling if (found := unit_of(path))), None)
    return CgroupInfo(telling[0] if telling else "/", unit, container)


# Patterns are compiled when they are first used: a start need not wait for them.
_UNIT = r"_?(.+\.(?:service|scope|socket|mount|swap))"


def unit_of(path: str) -> str | None:
    """The systemd unit that a cgroup path lies in: the outermost one that is not a slice.

    So a process of a user's session belongs to ``session-N.scope`` or ``user@UID.service``.
    """
    for part in path.split("/"):
        if match := re.fullmatch(_UNIT, part):
            return match[1]
    return None


_ID = r"([0-9a-f]{64})"
_CONTAINERS = (
    # Docker, podman, containerd (CRI, nerdctl) and CRI-O with the systemd driver. Their
    # monitors (libpod-conmon-, crio-conmon-) run outside: not matched.
    rf"(?:docker|libpod|cri-containerd|nerdctl|crio)-{_ID}(?:\.scope)?",
    # containerd's systemd driver writes slice:prefix:id.
    rf"[^:]+:[^:]+:{_ID}",
    # The cgroupfs driver: a bare id below docker/, a pod, or containerd's namespace.
    _ID,
)
_LXC_PREFIX = "lxc.payload."
_NSPAWN_UNIT = r"systemd-nspawn@(.+)\.service"
_MACHINE = r"machine-(.+)\.scope"


def container_of(path: str) -> str | None:
    """The container that a cgroup path lies in, the innermost where they nest.

    A 64 digit id of docker, podman, containerd or crio; the name of a systemd-nspawn or lxc one.
    """
    parts = path.split("/")
    for at in range(len(parts) - 1, 0, -1):
        part = parts[at]
        for pattern in _CONTAINERS:
            if match := re.fullmatch(pattern, part):
                return match[1]
        if part.startswith(_LXC_PREFIX) and len(part) > len(_LXC_PREFIX):
            return part[len(_LXC_PREFIX) :]
        if parts[at - 1] in ("lxc", "lxc.payload") and part:
            return part
        if match := re.fullmatch(_NSPAWN_UNIT, part) or re.fullmatch(_MACHINE, part):
            name = unescape(match[1])
            return None if name.startswith("qemu-") else name  # A virtual machine's scope.
    return None


def unescape(name: str) -> str:
    r"""A systemd unit name's ``\xNN`` read back, systemd.unit(5)."""
    return re.sub(r"\\x([0-9a-f]{2})", lambda match: chr(int(match[1], 16)), name)
