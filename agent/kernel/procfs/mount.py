"""A mounted procfs: its processes, its network namespaces and their tables. Blocking."""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple

from .files import GONE_ERRNOS, Progress, open_directory, read, read_link, read_or_empty

# A process or thread in a network namespace: a pid, or the directory PID/task/TID.
NetnsMember = int | str

_NETNS_PREFIX = "net:["  # Of the link PID/ns/net, namespaces(7).
_MAX_INODE_DIGITS = 18  # Less than 63 bits; these inodes are 32 bits wide.
# The greatest pid of any kernel is 2^22 (PID_MAX_LIMIT in include/linux/threads.h).
_PID = re.compile(r"[1-9][0-9]{0,6}", re.ASCII)
_BOOT_TIME = re.compile(r"[0-9]{1,10}", re.ASCII)  # Seconds until the year 2286.
# How often the clocks are read for the boot time; the reading that took the shortest time counts.
_CLOCK_READINGS = 5


class OwnProcess(NamedTuple):
    """The network namespace and the pid of this process, as a procfs shows them."""

    netns: int
    pid: int


class TableTexts(NamedTuple):
    """The text of tables of one network namespace, as ``ProcFS.read_tables`` returns it.

    ``texts`` maps the name of a table to its text or to the error of reading it; None when no
    process was found in the namespace. ``moved_pids`` are processes that were found in another
    network namespace than the caller expected.
    """

    texts: dict[str, bytes | OSError] | None
    moved_pids: frozenset[int] = frozenset()


class ProcFS:
    """A procfs that is mounted at ``root``."""

    def __init__(self, root: str = "/proc") -> None:
        self.root = os.path.abspath(root)
        self._netns_by_dev_inode: dict[int, int] = {}
        self._known_netns: set[int] = set()
        # None where this procfs does not show this process. Reading the own namespace first makes
        # it known, also for those of its processes whose link may not be read.
        self.own = self._own_process()

    def pids(self) -> list[int]:
        """Return the pids of all processes. Raises OSError when they cannot be listed, or there are
        none: then this is not a procfs, or no longer mounted."""
        names = os.listdir(self.root)
        pids = [int(name) for name in names if name.isdigit() and _PID.fullmatch(name)]
        if not pids:
            raise FileNotFoundError(errno.ENOENT, "no processes are listed", self.root)
        return pids

    def hides_processes(self) -> bool:
        """Return whether other users' processes are hidden (hidepid, proc(5))."""
        return not any(os.path.exists(f"{self.root}/{name}") for name in ("1", "1/stat"))

    def boot_id(self) -> str | None:
        """Return the kernel's random id of this boot; None when it cannot be read."""
        return _boot_id(self.root)

    def ephemeral_ports(self) -> range | None:
        """Return net.ipv4.ip_local_port_range, ip(7); None when it cannot be read."""
        words = self._read_text("sys/net/ipv4/ip_local_port_range").split()
        try:
            return range(int(words[0]), int(words[1]) + 1)
        except (IndexError, ValueError):
            return None

    def netns_id(self, netns: int) -> int | None:
        """Return the inode of a namespace that ``netns`` returned; None when it is not known."""
        return netns if netns > 0 else self._netns_by_dev_inode.get(-netns)

    def netns(self, directory: int, thread: str = "") -> int:
        """Return the inode of the network namespace of a process, or of its ``thread``
        (``task/TID/``); ``directory`` is the process's, open.

        Where the link may not be read and the inode is not known from another process, the result
        is a negative number that differs between namespaces. Raises OSError.
        """
        target = read_link(f"{thread}ns/net", directory)
        digits = "" if target is None else target.removeprefix(_NETNS_PREFIX).removesuffix("]")
        if digits.isascii() and digits.isdigit() and len(digits) <= _MAX_INODE_DIGITS:
            netns = int(digits)
            if netns not in self._known_netns:
                self._netns_by_dev_inode[_dev_inode(directory, thread)] = netns
                self._known_netns.add(netns)
            return netns
        dev_inode = _dev_inode(directory, thread)
        return self._netns_by_dev_inode.get(dev_inode, -dev_inode)

    def _own_process(self) -> OwnProcess | None:
        try:
            pid = int(os.readlink(f"{self.root}/self"))
            with open_directory(f"{self.root}/{pid}") as directory:
                return OwnProcess(self.netns(directory), pid)
        except (OSError, ValueError):
            return None

    def read_tables(
        self, netns: int, members: Sequence[NetnsMember], names: Sequence[str]
    ) -> TableTexts:
        """Read the named tables of one namespace, whose members were ``members`` when last seen.
        Tables that this kernel does not have are left out."""
        moved: set[int] = set()
        for pid, path in self._paths_of(members):
            try:
                with open_directory(f"{self.root}/{path}") as directory:
                    tables = self._read_tables(directory, names)
                    # Checked afterwards, because it may enter another namespace at any moment.
                    if tables is not None and not self._is_in(netns, directory):
                        if pid is not None:
                            moved.add(pid)
                        continue
            except OSError as error:
                if error.errno in GONE_ERRNOS:
                    continue
                return TableTexts(dict.fromkeys(names, error), frozenset(moved))
            if tables is not None:
                return TableTexts(tables, frozenset(moved))
        return TableTexts(None, frozenset(moved))

    def _read_tables(
        self, directory: int, names: Sequence[str]
    ) -> dict[str, bytes | OSError] | None:
        """Read the tables below the directory of a process; None when it is gone or a zombie."""
        tables: dict[str, bytes | OSError] = {}
        for name in names:
            try:
                tables[name] = read(f"net/{name}", directory)
            except OSError as error:
                if error.errno not in GONE_ERRNOS:
                    tables[name] = error
                    continue
                try:
                    os.stat("net/dev", dir_fd=directory)
                except OSError:
                    return None
        return tables

    def _is_in(self, netns: int, directory: int) -> bool:
        try:
            now = self.netns(directory)
        except OSError:
            return False
        return now == netns or (
            self.netns_id(now) is not None and self.netns_id(now) == self.netns_id(netns)
        )

    def _paths_of(self, members: Sequence[NetnsMember]) -> Iterator[tuple[int | None, str]]:
        """Yield the directories that may show the tables of a namespace, each with its pid, None
        where the member is a thread."""
        for member in members:
            yield (member if isinstance(member, int) else None), str(member)
        for member in members:  # The main thread of a process may have ended before the others.
            if isinstance(member, int):
                with suppress(OSError):
                    for tid in os.listdir(f"{self.root}/{member}/task"):
                        yield member, f"{member}/task/{tid}"

    def thread_namespaces(self, pids: Iterable[int], progress: Progress) -> dict[int, NetnsMember]:
        """Return the network namespaces of the threads of these processes, each with one thread in
        it; threads that have ended or may not be read are left out."""
        found: dict[int, NetnsMember] = {}
        for pid in progress.each(pids):
            with suppress(OSError), open_directory(f"{self.root}/{pid}") as directory:
                for tid in os.listdir(f"{self.root}/{pid}/task"):
                    with suppress(OSError):
                        netns = self.netns(directory, f"task/{tid}/")
                        found.setdefault(netns, f"{pid}/task/{tid}")
        return found

    def _read_text(self, name: str) -> str:
        return read_or_empty(f"{self.root}/{name}").decode("ascii", "replace")

    def boot_time(self) -> float:
        """Return when the machine booted, in seconds since the Unix epoch, in whole clock ticks."""
        for line in self._read_text("stat").splitlines():
            if line.startswith("btime ") and _BOOT_TIME.fullmatch(line, 6):
                boot_id = self.boot_id()
                if boot_id is None or boot_id != _boot_id("/proc"):
                    # In whole seconds, but all that is known of another machine.
                    return float(line[6:])
                break
        # Without /proc/stat (ProcSubset=pid, systemd.exec(5)) the clocks show it.
        return _boot_time()


def _boot_id(root: str) -> str | None:
    raw = read_or_empty(f"{root}/sys/kernel/random/boot_id").decode("ascii", "replace")
    return raw.strip() or None


def _boot_time() -> float:
    """Return when this machine booted, from its clocks; see ``ProcFS.boot_time``.

    The difference of the two clocks changes only when the time is set. In whole ticks it is the
    same number at each start, though the clocks are not read at the same moment; it is rounded up,
    as start times in ticks are rounded down.
    """
    readings = []
    for _ in range(_CLOCK_READINGS):
        before = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        now = time.clock_gettime_ns(time.CLOCK_REALTIME)
        after = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        readings.append((after - before, now - (before + after) // 2))
    _width, nanoseconds = min(readings)
    ticks_per_second = os.sysconf("SC_CLK_TCK")
    return -(-nanoseconds * ticks_per_second // 10**9) / ticks_per_second


def _dev_inode(directory: int, thread: str) -> int:
    """Return the inode of ``net/dev``, which differs between network namespaces and may be read of
    every process."""
    return os.stat(f"{thread}net/dev", dir_fd=directory).st_ino
