"""A procfs made of plain files, and rows for its tables."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from agent.kernel.procfs.mount import ProcFS
from agent.kernel.procfs.scanner import ProcessScanner
from agent.snapshot.poller import Poller
from agent.snapshot.table_sources import sources_of

NETNS = 4026531833
BOOT_TIME = 1_700_000_000
INET_HEADING = (
    b"  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout"
    b" inode\n"
)
UNIX_HEADING = b"Num       RefCount Protocol Flags    Type St Inode Path\n"
LISTEN, ESTABLISHED, TIME_WAIT = "0A", "01", "06"


def inet_row(
    inode: int,
    local: str = "0100007F:1F90",
    remote: str = "00000000:0000",
    state: str = LISTEN,
    *,
    queues: str = "00000000:00000000",
    uid: int = 0,
) -> bytes:
    """Return a row of a table of the inet families; the default listens on 127.0.0.1:8080."""
    return (
        f"   0: {local} {remote} {state} {queues} 00:00000000 00000000 {uid:5}        0 {inode} 1 "
        "0000000000000000 100 0 0 10 0\n"
    ).encode()


def unix_row(inode: int, path: str | None = None, *, flags: int = 0, state: int = 1) -> bytes:
    name = "" if path is None else f" {path}"
    row = f"0000000000000000: 00000002 00000000 {flags:08X} 0001 {state:02X} {inode:5}{name}\n"
    return row.encode()


def stat_line(
    pid: int,
    *,
    comm: str,
    ppid: int,
    start: int,
    threads: int,
    image: int,
    flags: int = 0x40_0000,
) -> str:
    return (
        f"{pid} ({comm}) S {ppid} {pid} {pid} 0 -1 {flags} 64 0 0 0 0 0 0 0 20 0 {threads} 0 "
        f"{start} 2654208 348 18446744073709551615 {image} 2 {image} 0 0 0 0 0 0 1 0 0 17 0 0 0 0 "
        "0 0 3 4 5 6 7 8 9 0\n"
    )


class FakeProc:
    """A procfs below ``root``; processes of one network namespace share its tables by a link."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._ended = 0
        root.mkdir()
        (root / "stat").write_text(f"cpu  1 2 3\nbtime {BOOT_TIME}\n")

    def procfs(self) -> ProcFS:
        return ProcFS(str(self.root))

    def scanner(self) -> ProcessScanner:
        return ProcessScanner(self.procfs())

    def poller(self) -> Poller:
        scanner = self.scanner()
        return Poller(scanner, *sources_of(scanner.procfs, None), clock=lambda: 1_700_000_100.0)

    def process(
        self,
        pid: int,
        fds: Mapping[int, int | str] | None = None,
        *,
        comm: str = "app",
        ppid: int = 1,
        start: int = 100,
        threads: int = 1,
        image: int = 1,
        netns: int = NETNS,
        nameable: bool = True,
        cgroup: str = "0::/system.slice/app.service\n",
        cmdline: bytes = b"app\0",
    ) -> Path:
        """Add a process; ``fds`` maps descriptors to inodes of sockets, or to other links."""
        directory = self.root / str(pid)
        (directory / "fd").mkdir(parents=True)
        (directory / "stat").write_text(
            stat_line(pid, comm=comm, ppid=ppid, start=start, threads=threads, image=image)
        )
        (directory / "cgroup").write_text(cgroup)
        (directory / "cmdline").write_bytes(cmdline)
        (directory / "exe").symlink_to(f"/usr/bin/{comm}")
        self.hold(pid, fds or {})
        (directory / "ns").mkdir()
        if nameable:
            (directory / "ns" / "net").symlink_to(f"net:[{netns}]")
        tables = self._tables(netns)
        (directory / "net").symlink_to(tables, target_is_directory=True)
        (directory / "task" / str(pid)).mkdir(parents=True)
        return directory

    def hold(self, pid: int, fds: Mapping[int, int | str]) -> None:
        for fd, target in fds.items():
            link = f"socket:[{target}]" if isinstance(target, int) else target
            (self.root / str(pid) / "fd" / str(fd)).symlink_to(link)

    def close(self, pid: int, fd: int) -> None:
        (self.root / str(pid) / "fd" / str(fd)).unlink()

    def end(self, pid: int) -> None:
        """Remove a process; its inodes are not reused."""
        self._ended += 1
        (self.root / str(pid)).rename(self.root / f"ended-{self._ended}")

    def table(self, name: str, *rows: bytes, netns: int = NETNS) -> None:
        heading = UNIX_HEADING if name == "unix" else INET_HEADING
        self.raw_table(name, heading + b"".join(rows), netns=netns)

    def raw_table(self, name: str, data: bytes, *, netns: int = NETNS) -> None:
        # Replaced at once, by a new file.
        new = self._tables(netns) / f"{name}.new"
        new.write_bytes(data)
        new.rename(new.with_name(name))

    def break_table(self, name: str, *, netns: int = NETNS) -> None:
        """Make reading the table fail, for root too: it becomes a directory."""
        path = self._tables(netns) / name
        path.unlink(missing_ok=True)
        path.mkdir()

    def mend_table(self, name: str, *, netns: int = NETNS) -> None:
        (self._tables(netns) / name).rmdir()

    def break_descriptors(self, pid: int) -> None:
        """Make listing PID/fd fail, for root too: it becomes a link to itself."""
        path = self.root / str(pid) / "fd"
        path.rename(path.with_name("fd.kept"))
        path.symlink_to(path)

    def mend_descriptors(self, pid: int) -> None:
        path = self.root / str(pid) / "fd"
        path.unlink()
        path.with_name("fd.kept").rename(path)

    def _tables(self, netns: int) -> Path:
        directory = self.root / f"netns-{netns}"
        if not directory.exists():
            directory.mkdir()
            (directory / "dev").write_text("")
        return directory
