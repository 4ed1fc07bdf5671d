"""Parse ``/proc/PID/{stat,cgroup,cmdline}``. Pure.

Formats: proc_pid_stat(5), proc_pid_cmdline(5), proc_pid_cgroup(5) and cgroups(7); systemd and each
container manager have their own names of cgroups.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from ...model import CgroupInfo
from ...text import decode

_INT_BITS = 31  # Of a C int that is not negative.
_TICKS_BITS = 42  # 1,400 years at 100 ticks a second.
_DEAD_STATES = (b"Z", b"X")  # Zombie, dead.
_EXITING = 0x4  # PF_EXITING in include/linux/sched.h.


class ProcessStat(NamedTuple):
    """The fields of ``stat`` that the agent uses.

    ``start_ticks`` is in clock ticks since boot. ``image`` changes with an execve(2); it is
    constant where it may not be read (PTRACE_MODE_READ, ptrace(2)). ``exiting`` becomes True before
    the kernel closes the descriptors of a thread that exits; ``state`` changes later.
    """

    comm: str
    state: str
    ppid: int
    threads: int
    start_ticks: int
    image: bytes
    exiting: bool


def parse_stat(data: bytes) -> ProcessStat:
    """Parse ``/proc/PID/stat``. Raises ValueError when it is malformed. ``comm`` may contain blanks
    and parentheses: the other fields begin after the last ``)``."""
    head, closed, tail = data.rpartition(b")")
    _pid, opened, comm = head.partition(b"(")
    fields = tail.split()
    if not closed or not opened or len(fields) < 20:
        raise ValueError("not a stat line")
    ppid, threads, start_ticks = int(fields[1]), int(fields[17]), int(fields[19])
    if (ppid | threads) >> _INT_BITS or start_ticks >> _TICKS_BITS:
        raise ValueError("a number in stat is out of range")
    return ProcessStat(
        comm=decode(comm),
        state=decode(fields[0]),
        ppid=ppid,
        threads=threads,
        start_ticks=start_ticks,
        # startcode and startstack: each execve(2) chooses new addresses.
        image=b" ".join(fields[23:26:2]),
        exiting=fields[0] in _DEAD_STATES or bool(int(fields[6]) & _EXITING),
    )


def parse_cmdline(data: bytes) -> tuple[str, ...]:
    """Parse ``/proc/PID/cmdline``, arguments that end with NUL; empty for zombies and kernel
    threads."""
    if not data:
        return ()
    return tuple(decode(argument) for argument in data.removesuffix(b"\0").split(b"\0"))


def parse_cgroup(data: bytes) -> CgroupInfo:
    """Parse ``/proc/PID/cgroup`` of v1, v2 and hybrid hierarchies; ignore malformed lines."""
    paths: dict[str, str] = {}
    for line in data.split(b"\n"):
        hierarchy, _, rest = line.partition(b":")
        controllers, colon, path = rest.partition(b":")
        if colon and hierarchy.isdigit() and path.startswith(b"/"):
            # The kernel marks a cgroup that was removed; its name is still of use.
            paths[decode(controllers)] = decode(path.removesuffix(b" (deleted)"))
    return cgroup_info_of(paths)


def cgroup_info_of(paths: dict[str, str]) -> CgroupInfo:
    """Return the cgroup, unit and container of a process, from its paths in each hierarchy.
    ``paths`` are by controllers, "" for the unified hierarchy of v2."""
    # v2 counts first, then systemd's own v1 hierarchy: v2 may exist unused beside v1.
    order = [paths.pop(name) for name in ("", "name=systemd") if name in paths]
    order += sorted(paths.values(), key=len, reverse=True)
    if not order:
        return CgroupInfo(None, None, None)
    below_root = [path for path in order if path != "/"]
    container = next((found for path in below_root if (found := container_of(path))), None)
    unit = next((found for path in below_root if (found := unit_of(path))), None)
    return CgroupInfo(below_root[0] if below_root else "/", unit, container)


# Patterns are compiled when they are first used, which makes the start faster.
_UNIT = r"_?(.+\.(?:service|scope|socket|mount|swap))"


def unit_of(path: str) -> str | None:
    """Return the systemd unit of a cgroup path: the outermost one that is not a slice. A process of
    a user's session belongs to ``session-N.scope`` or ``user@UID.service``."""
    for part in path.split("/"):
        if match := re.fullmatch(_UNIT, part):
            return match[1]
    return None


_ID = r"([0-9a-f]{64})"
_CONTAINERS = (
    # Docker, podman, containerd (CRI, nerdctl) and CRI-O with the systemd driver. Their monitors
    # (libpod-conmon-, crio-conmon-) run outside the container and do not match.
    rf"(?:docker|libpod|cri-containerd|nerdctl|crio)-{_ID}(?:\.scope)?",
    # The systemd driver of containerd: slice:prefix:id.
    rf"[^:]+:[^:]+:{_ID}",
    # The cgroupfs driver: the id alone below docker/, a pod or a namespace of containerd.
    _ID,
)
_LXC_PREFIX = "lxc.payload."
_NSPAWN_UNIT = r"systemd-nspawn@(.+)\.service"
_MACHINE = r"machine-(.+)\.scope"


def container_of(path: str) -> str | None:
    """Return the container of a cgroup path, the innermost of nested ones. That is the id of 64
    digits for docker, podman, containerd and CRI-O, and the name for systemd-nspawn and LXC."""
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
            return None if name.startswith("qemu-") else name  # The scope of a virtual machine.
    return None


def unescape(name: str) -> str:
    r"""Replace the escapes ``\xNN`` of the name of a systemd unit, systemd.unit(5)."""
    return re.sub(r"\\x([0-9a-f]{2})", lambda match: chr(int(match[1], 16)), name)
