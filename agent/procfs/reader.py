"""The only code that opens procfs. It knows nothing of deltas and output.

Whatever vanishes while it is looked at is no error: ENOENT and ESRCH mean that the process is gone,
EINVAL that it is a zombie. EACCES and EPERM mean that the process is not ours to read; that is
told, as ``Look.readable``, for coverage.

Processes are looked at in batches, one executor hop a batch; a hop per descriptor costs ten times
the system call. Inside a batch everything is opened relative to the process's own directory, which
can never lead to a process that got the same pid later.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial
from typing import NamedTuple

from ..model import Process
from .process import Stat, parse_cgroup, parse_cmdline, parse_stat

GONE = frozenset({errno.ENOENT, errno.ESRCH, errno.EINVAL, errno.ENOTDIR})
DENIED = frozenset({errno.EACCES, errno.EPERM})
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
# A table is read in pieces of this many bytes; the kernel hands out 4 KiB at a time anyway.
_READ_SIZE = 1 << 16
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_SOCKET = "socket:["
_NETNS = "net:["
# Free numbers that are tried in vain before the directory is listed.
_MOST_MISSES = 8

_cgroup_of = lru_cache(maxsize=4096)(parse_cgroup)  # Processes of one service share the text.


class Look(NamedTuple):
    """What one look at a process showed.

    ``fds`` maps its descriptors to the inodes of their sockets, 0 for what is no socket; ``more``
    are (descriptor, inode) of threads with descriptor tables of their own. ``readable`` is False
    when they may not be read. ``netns`` is the inode of its network namespace; negative when that
    may not be read: then it only tells namespaces apart. ``directory`` is the inode of ``PID/fd``,
    which another process with the same pid has not.
    """

    process: Process
    fds: dict[int, int]
    more: tuple[tuple[int, int], ...]
    readable: bool
    netns: int
    directory: int


class Walked(NamedTuple):
    """What a walk showed; ``failed`` says of processes that could not be looked at why not."""

    looks: list[Look]
    failed: dict[int, str]


class Evidence(NamedTuple):
    """What is cheap to see of a process: the inode of ``PID/fd``, and how many descriptors it has.

    The same inode is the same process. The same number is a hint only: one may have been closed
    and another opened.
    """

    directory: int
    descriptors: int


class Check(NamedTuple):
    """What to look at again in a process whose descriptors were ``fds``: the ``suspects``, and what
    its number of descriptors shows to be new or gone. ``facts``: its facts too."""

    pid: int
    directory: int
    fds: dict[int, int]
    suspects: Collection[int]
    facts: bool = False


class Checked(NamedTuple):
    """What a check showed: descriptor → inode, 0 for what is no socket, None for what is closed;
    only what is not as it was. ``process`` and ``netns`` are None if they were not asked for."""

    pid: int
    changes: dict[int, int | None]
    process: Process | None
    netns: int | None
    reads: int


class Vanished(Exception):
    """The process, or its namespace, went away while it was read."""


class ProcFS:
    """A mounted procfs. ``root`` is where; ``cmdline`` whether command lines are read too.

    Everything here blocks: it is for executors.
    """

    def __init__(self, root: str = "/proc", *, cmdline: bool = False) -> None:
        self.root = os.path.abspath(root)
        # Walking from inside each directory saves a tenth; for where no other thread minds.
        self.may_chdir = False
        self._cmdline = cmdline
        self._boot_time = self._read_boot_time()
        self._netns_by_device: dict[int, int] = {}
        self.own = self._own_namespace()
        # Since Linux 6.2 the size of PID/fd is the number of open descriptors; before it is 0.
        self._counts = self._directories_count()

    def pids(self) -> list[int]:
        """The processes there are. Raises OSError when they cannot be listed, or there are none:
        then this is no procfs, or it was unmounted."""
        pids = [int(name) for name in os.listdir(self.root) if name.isdigit()]
        if not pids:
            raise FileNotFoundError(errno.ENOENT, "no processes are listed", self.root)
        return pids

    def hides_processes(self) -> bool:
        """Whether other users' processes are hidden from us (the mount option hidepid)."""
        return not self._exists("1") and not self._exists("1/stat")

    def boot_id(self) -> str | None:
        """The kernel's random id of this boot; None when it cannot be read."""
        raw = self._read_text("sys/kernel/random/boot_id")
        return raw.strip() or None

    def ephemeral_ports(self) -> range | None:
        """The local ports that the kernel chooses from by itself; None when it does not say."""
        words = self._read_text("sys/net/ipv4/ip_local_port_range").split()
        try:
            return range(int(words[0]), int(words[1]) + 1)
        except (IndexError, ValueError):
            return None

    # Processes and their descriptors.

    def walk(self, pids: Iterable[int]) -> Walked:
        """Look at these processes; those that are gone are left out."""
        walked = Walked([], {})
        for pid in pids:
            try:
                walked.looks.append(self.look(pid))
            except Vanished:
                continue
            except OSError as error:  # hidepid=1, or no descriptors left for ourselves.
                walked.failed[pid] = os.strerror(error.errno or 0)
        return walked

    def look(self, pid: int) -> Look:
        """Look at all of one process. Raises Vanished, or OSError when the look itself failed."""
        with self._process(pid) as directory:
            stat = parse_stat(_read_at(directory, "stat"))
            readable, fds, more, inode = self._descriptors(pid, directory, stat)
            facts = self._facts(pid, directory, stat)
            return Look(facts, fds, more, readable, self._netns(directory), inode)

    @contextmanager
    def _process(self, pid: int) -> Iterator[int]:
        """The process's directory, open. What says that the process is gone becomes Vanished."""
        try:
            directory = os.open(f"{self.root}/{pid}", _DIRECTORY)
            try:
                yield directory
            finally:
                os.close(directory)
        except OSError as error:
            if error.errno in GONE:
                raise Vanished from error
            raise
        except ValueError as error:  # An empty stat: it went between open and read.
            raise Vanished from error

    def _descriptors(
        self, pid: int, directory: int, stat: Stat
    ) -> tuple[bool, dict[int, int], tuple[tuple[int, int], ...], int]:
        inode = os.stat("fd", dir_fd=directory).st_ino
        try:
            fds = self._descriptors_in(directory, "fd")
        except OSError as error:
            if error.errno in DENIED:
                return False, {}, (), inode
            raise
        more: list[tuple[int, int]] = []
        if stat.threads > 1:
            from .threads import separate_tables  # Only here: it loads ctypes.

            for tid in separate_tables(self.root, pid, directory):
                try:
                    more += self._descriptors_in(directory, f"task/{tid}/fd").items()
                except OSError as error:
                    if error.errno not in GONE and error.errno not in DENIED:
                        raise
        return True, fds, tuple(item for item in more if item[1]), inode

    def _descriptors_in(self, directory: int, name: str) -> dict[int, int]:
        """Descriptor → inode, 0 for what is no socket, of a directory of descriptors."""
        opened = os.open(name, _DIRECTORY, dir_fd=directory)
        try:
            names = os.listdir(opened)
            if self.may_chdir:
                os.fchdir(opened)
                readlink: Callable[[str], str] = os.readlink
            else:
                readlink = partial(os.readlink, dir_fd=opened)
            try:
                links: list[str | None] = list(map(readlink, names))
            except OSError as error:  # One was closed meanwhile: that one only is passed over.
                if error.errno not in GONE:
                    raise
                links = [_link(opened, descriptor) for descriptor in names]
            return {
                int(descriptor): int(link[8:-1]) if link[:8] == _SOCKET else 0
                for descriptor, link in zip(names, links, strict=True)
                if link is not None
            }
        finally:
            os.close(opened)

    def evidence(self, pids: Iterable[int]) -> dict[int, Evidence]:
        """What is cheap to see of each process; those that are gone are left out."""
        seen = {}
        root, stat, counts = self.root, os.stat, self._counts
        for pid in pids:
            path = f"{root}/{pid}/fd"
            try:
                found = stat(path)
                count = found.st_size if counts else len(os.listdir(path))
            except OSError as error:
                if error.errno in GONE:
                    continue
                seen[pid] = Evidence(0, 0)
            else:
                seen[pid] = Evidence(found.st_ino, count)
        return seen

    def check(self, checks: Iterable[Check]) -> tuple[list[Checked], list[int]]:
        """Check these processes; and those that are gone, or may no longer be read."""
        checked, lost = [], []
        for one in checks:
            try:
                checked.append(self._check(one))
            except (Vanished, OSError):  # A whole look tells which.
                lost.append(one.pid)
        return checked, lost

    def _check(self, check: Check) -> Checked:
        with self._process(check.pid) as directory:
            opened = os.open("fd", _DIRECTORY, dir_fd=directory)
            try:
                found = os.fstat(opened)
                if found.st_ino != check.directory:
                    raise Vanished
                changes, reads = _recheck(opened, check, found.st_size)
            finally:
                os.close(opened)
            process = netns = None
            if check.facts:
                process = self._facts(check.pid, directory, parse_stat(_read_at(directory, "stat")))
                netns = self._netns(directory)
            return Checked(check.pid, changes, process, netns, reads)

    def _facts(self, pid: int, directory: int, stat: Stat) -> Process:
        place = _cgroup_of(_read_or_empty(directory, "cgroup"))
        return Process(
            pid=pid,
            start_ticks=stat.start_ticks,
            comm=stat.comm,
            ppid=stat.ppid,
            start_time=self._boot_time + stat.start_ticks / _TICKS_PER_SECOND,
            uid=os.fstat(directory).st_uid,
            exe=_link(directory, "exe"),
            cgroup=place.cgroup,
            unit=place.unit,
            container=place.container,
            cmdline=parse_cmdline(_read_or_empty(directory, "cmdline")) if self._cmdline else None,
        )

    def protocols(self, descriptors: Sequence[tuple[int, int, int]]) -> list[bytes | None]:
        """For each (pid, descriptor, inode) the kernel's name of the socket's protocol.

        Empty when the descriptor no longer leads to that socket, None when there is no telling.
        """
        return [self._protocol(*descriptor) for descriptor in descriptors]

    def _protocol(self, pid: int, fd: int, inode: int) -> bytes | None:
        path = f"{self.root}/{pid}/fd/{fd}"
        try:
            name: bytes | None = os.getxattr(path, "system.sockprotoname")
        except OSError:
            name = None
        try:
            # Read after the name: then the name was this socket's.
            return name if os.readlink(path) == f"{_SOCKET}{inode}]" else b""
        except OSError as error:
            return b"" if error.errno in GONE else name

    # Network namespaces and their tables.

    def netns_id(self, netns: int) -> int | None:
        """The inode of the namespace that ``Look.netns`` names; None when it may not be read."""
        return netns if netns > 0 else self._netns_by_device.get(-netns)

    def _netns(self, directory: int) -> int:
        link = _link(directory, "ns/net")
        if link is not None and link.startswith(_NETNS):
            netns = int(link[len(_NETNS) : -1])
            if netns not in self._netns_by_device.values():
                self._netns_by_device[_device(directory)] = netns
            return netns
        device = _device(directory)
        return self._netns_by_device.get(device, -device)

    def _directories_count(self) -> bool:
        try:
            return os.stat(f"{self.root}/self/fd").st_size > 0
        except OSError:
            return False

    def _own_namespace(self) -> tuple[int, int] | None:
        """(namespace, our pid); None where this procfs does not show us. It is always ours to
        name, also for the processes in it that we may not read."""
        try:
            pid = int(os.readlink(f"{self.root}/self"))
            directory = os.open(f"{self.root}/{pid}", _DIRECTORY)
        except (OSError, ValueError):
            return None
        try:
            return self._netns(directory), pid
        except OSError:
            return None
        finally:
            os.close(directory)

    def tables(self, pids: Sequence[int], names: Sequence[str]) -> dict[str, bytes | OSError]:
        """The text of the named tables of one namespace, which all of ``pids`` are in.

        A table that this kernel has not is left out; one that cannot be read gives its error.
        Raises Vanished when none of the processes is there any longer.
        """
        for pid in pids:
            read: dict[str, bytes | OSError] = {}
            for name in names:
                try:
                    read[name] = _read_file(f"{self.root}/{pid}/net/{name}")
                except OSError as error:
                    if error.errno not in GONE:
                        read[name] = error
                    elif not self._exists(f"{pid}/net/dev"):
                        break  # The process is gone, or a zombie: ask the next.
            else:
                return read
        raise Vanished

    def _exists(self, name: str) -> bool:
        try:
            os.stat(f"{self.root}/{name}")
        except OSError:
            return False
        return True

    def _read_text(self, name: str) -> str:
        try:
            return _read_file(f"{self.root}/{name}").decode("ascii", "replace")
        except OSError:
            return ""

    def _read_boot_time(self) -> float:
        for line in self._read_text("stat").splitlines():
            if line.startswith("btime "):
                return float(line[6:])
        # Where /proc/stat is hidden (ProcSubset=pid) the clocks tell.
        return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)


def _recheck(opened: int, check: Check, count: int) -> tuple[dict[int, int | None], int]:
    """What is not as it was, and how many descriptors were read. ``opened`` is ``PID/fd``.

    The kernel gives out the lowest number that is free: where a few descriptors are missing from
    what the directory says there are, they are there. Else the directory is listed.
    """
    fds = check.fds
    changes: dict[int, int | None] = {}
    known = len(fds)
    reads = 0

    def read(descriptor: int) -> bool:
        """Note what the descriptor leads to; whether it is open."""
        nonlocal known, reads
        reads += 1
        inode = _inode(opened, str(descriptor))
        if inode != fds.get(descriptor):
            changes[descriptor] = inode
            known += (inode is not None) - (descriptor in fds)
        return inode is not None

    for descriptor in check.suspects:
        read(descriptor)
    free = 0
    misses = 0
    while known < count and misses < _MOST_MISSES:
        while free in fds or free in changes:
            free += 1
        if not read(free):
            misses += 1
        free += 1
    if known != count:
        listed = {int(name) for name in os.listdir(opened)}
        for descriptor in listed - fds.keys():
            if descriptor not in changes:
                read(descriptor)
        for descriptor in fds.keys() - listed:
            changes[descriptor] = None
    return {fd: inode for fd, inode in changes.items() if inode is not None or fd in fds}, reads


def _inode(directory: int, descriptor: str) -> int | None:
    """The inode of the descriptor's socket, 0 if it is none, None if it is closed."""
    try:
        link = os.readlink(descriptor, dir_fd=directory)
    except OSError as error:
        if error.errno in GONE:
            return None
        raise
    return int(link[8:-1]) if link[:8] == _SOCKET else 0


def _device(directory: int) -> int:
    """A number that tells network namespaces apart, readable for every process."""
    return os.stat("net/dev", dir_fd=directory).st_ino


def _link(directory: int, name: str) -> str | None:
    try:
        return os.fsencode(os.readlink(name, dir_fd=directory)).decode("utf-8", "backslashreplace")
    except OSError:  # Denied, gone, or a kernel thread, which has none.
        return None


def _read_or_empty(directory: int, name: str) -> bytes:
    try:
        return _read_at(directory, name)
    except OSError:  # Denied or gone; what the file would tell is unknown then.
        return b""


def _read_at(directory: int, name: str) -> bytes:
    return _read_all(os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory))


def _read_file(path: str) -> bytes:
    return _read_all(os.open(path, os.O_RDONLY | os.O_CLOEXEC))


def _read_all(descriptor: int) -> bytes:
    """Everything from a descriptor, which is closed then."""
    try:
        chunks = []
        while chunk := os.read(descriptor, _READ_SIZE):
            chunks.append(chunk)
        return b"".join(chunks)
    finally:
        os.close(descriptor)
