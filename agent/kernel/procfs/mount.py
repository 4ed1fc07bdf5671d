"""A mounted procfs: its processes, its network namespaces, and the tables of these.

Together with the walker it is the only code that opens procfs. It knows nothing of descriptors,
deltas and output. Everything here blocks: it is for executors.
"""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple

from .files import GONE_ERRNOS, open_directory, read, read_link, read_or_empty
from .progress import Progress

# What leads to a network namespace: a process, or the directory of a thread, PID/task/TID.
NetnsMember = int | str

_NETNS = "net:["
_INODE_DIGITS = 19  # So many may be more than 63 bits; they are 32 bits wide.
# The greatest pid that any kernel gives is 2^22 (PID_MAX_LIMIT in include/linux/threads.h).
_PID = re.compile(r"[1-9][0-9]{0,6}", re.ASCII)
_BOOT_TIME = re.compile(r"[0-9]{1,10}", re.ASCII)  # Seconds until the year 2286.
# The clocks are read so often; the reading counts in which least time passed between them.
_CLOCK_READINGS = 5


class OwnProcess(NamedTuple):
    """The network namespace and the pid of this process, as a procfs shows them."""

    netns: int
    pid: int


class TableTexts(NamedTuple):
    """The text of tables of one network namespace, as ``ProcFS.tables`` read it.

    ``texts`` maps the name of a table to its text or to the error of reading it; None when no
    process was found in the namespace. ``moved_pids`` are processes that were found in another
    network namespace than the caller expected.
    """

    texts: dict[str, bytes | OSError] | None
    moved_pids: frozenset[int] = frozenset()


class ProcFS:
    """A mounted procfs; ``root`` is where."""

    def __init__(self, root: str = "/proc") -> None:
        self.root = os.path.abspath(root)
        self._netns_by_device: dict[int, int] = {}
        self._named: set[int] = set()
        # (namespace, our pid); None where this procfs does not show us. Our own namespace is
        # always ours to name, also for the processes in it that we may not read.
        self.own = self._own_process()

    def pids(self) -> list[int]:
        """The processes there are. Raises OSError when they cannot be listed, or there are none:
        then this is no procfs, or it was unmounted."""
        names = os.listdir(self.root)
        pids = [int(name) for name in names if name.isdigit() and _PID.fullmatch(name)]
        if not pids:
            raise FileNotFoundError(errno.ENOENT, "no processes are listed", self.root)
        return pids

    def hides_processes(self) -> bool:
        """Whether other users' processes are hidden from us (the mount option hidepid)."""
        return not self._exists("1") and not self._exists("1/stat")

    def boot_id(self) -> str | None:
        """The kernel's random id of this boot; None when it cannot be read."""
        return _boot_id(self.root)

    def ephemeral_ports(self) -> range | None:
        """The local ports that the kernel chooses from by itself; None when it does not say."""
        words = self._read_text("sys/net/ipv4/ip_local_port_range").split()
        try:
            return range(int(words[0]), int(words[1]) + 1)
        except (IndexError, ValueError):
            return None

    # Network namespaces and their tables.

    def netns_id(self, netns: int) -> int | None:
        """The inode of the namespace that ``Look.netns`` names; None when it may not be read."""
        return netns if netns > 0 else self._netns_by_device.get(-netns)

    def netns(self, directory: int, by: str = "") -> int:
        """The inode of a process's network namespace; ``directory`` is the process's, open, and
        ``by`` leads on from there to the thread to be asked, ``task/TID/``.

        Negative when it may not be read: then it only tells namespaces apart. Raises OSError.
        """
        target = read_link(f"{by}ns/net", directory)
        name = "" if target is None else target.removeprefix(_NETNS).removesuffix("]")
        if name.isascii() and name.isdigit() and len(name) < _INODE_DIGITS:
            netns = int(name)
            if netns not in self._named:
                self._netns_by_device[_device(directory, by)] = netns
                self._named.add(netns)
            return netns
        device = _device(directory, by)
        return self._netns_by_device.get(device, -device)

    def _own_process(self) -> OwnProcess | None:
        try:
            pid = int(os.readlink(f"{self.root}/self"))
            with open_directory(f"{self.root}/{pid}") as directory:
                return OwnProcess(self.netns(directory), pid)
        except (OSError, ValueError):
            return None

    def read_tables(
        self, netns: int, ways: Sequence[NetnsMember], names: Sequence[str]
    ) -> TableTexts:
        """Read the named tables of one namespace, to which ``ways`` led when last seen.

        Tables that this kernel does not have are left out.
        """
        moved: set[int] = set()
        for pid, way in self._ways(ways):
            try:
                with open_directory(f"{self.root}/{way}") as directory:
                    tables = self._tables(directory, names)
                    # It may have left for another namespace at any moment before.
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

    def _tables(self, directory: int, names: Sequence[str]) -> dict[str, bytes | OSError] | None:
        """The tables that a process shows; None when it is gone, or a zombie."""
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

    def _ways(self, ways: Sequence[NetnsMember]) -> Iterator[tuple[int | None, str]]:
        """The directories below which the tables of a namespace may be found, and whose; None where
        it is a single thread that is there."""
        yield from ((way if isinstance(way, int) else None, str(way)) for way in ways)
        for way in ways:  # The main thread of a process may have ended before the others.
            if isinstance(way, int):
                with suppress(OSError):
                    for tid in os.listdir(f"{self.root}/{way}/task"):
                        yield way, f"{way}/task/{tid}"

    def thread_namespaces(self, pids: Iterable[int], progress: Progress) -> dict[int, NetnsMember]:
        """Return the network namespaces that threads of these processes are in, each with the way
        to a thread; those that are gone, or may not be read, are left out."""
        found: dict[int, NetnsMember] = {}
        for pid in progress.each(pids):
            with suppress(OSError), open_directory(f"{self.root}/{pid}") as directory:
                for tid in os.listdir(f"{self.root}/{pid}/task"):
                    with suppress(OSError):
                        netns = self.netns(directory, f"task/{tid}/")
                        found.setdefault(netns, f"{pid}/task/{tid}")
        return found

    def _exists(self, name: str) -> bool:
        try:
            os.stat(f"{self.root}/{name}")
        except OSError:
            return False
        return True

    def _read_text(self, name: str) -> str:
        return read_or_empty(f"{self.root}/{name}").decode("ascii", "replace")

    def boot_time(self) -> float:
        """Return when the machine booted; seconds since the Unix epoch, in whole clock ticks."""
        for line in self._read_text("stat").splitlines():
            if line.startswith("btime ") and _BOOT_TIME.fullmatch(line, 6):
                # This has no fraction of a second. It is all there is of another machine.
                return _booted() if self._is_of_this_kernel() else float(line[6:])
        # Where /proc/stat is hidden (ProcSubset=pid) the clocks show it.
        return _booted()

    def _is_of_this_kernel(self) -> bool:
        boot_id = self.boot_id()
        return boot_id is not None and boot_id == _boot_id("/proc")


def _boot_id(root: str) -> str | None:
    raw = read_or_empty(f"{root}/sys/kernel/random/boot_id").decode("ascii", "replace")
    return raw.strip() or None


def _booted() -> float:
    """Return when this machine booted, from the clocks; see ``ProcFS.boot_time``.

    The difference of the two clocks changes only when somebody sets the time. Whole ticks make it
    the same number at each start, though the clocks are not read at once; they are rounded up, as
    start times in ticks are rounded down.
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


def _device(directory: int, by: str) -> int:
    """A number that tells network namespaces apart, readable for every process."""
    return os.stat(f"{by}net/dev", dir_fd=directory).st_ino
