import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.kernel.procfs.files import open_directory
from agent.kernel.procfs.mount import ProcFS, TableTexts

from ...fakeproc import BOOT_TIME, NETNS, FakeProc, inet_row
from ...unprivileged import as_nobody


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as opened:
        yield opened


def netns_of(procfs: ProcFS, pid: int) -> int:
    directory = os.open(f"{procfs.root}/{pid}", os.O_RDONLY | os.O_DIRECTORY)
    try:
        return procfs.netns(directory)
    finally:
        os.close(directory)


def table_of(procfs: ProcFS, netns: int, pids: list[int]) -> bytes | OSError:
    """Return the text of the namespace's table of IPv4 TCP sockets, or the error of reading it."""
    texts = procfs.read_tables(netns, pids, ["tcp"]).texts
    assert texts is not None
    return texts["tcp"]


# Network namespaces.


def test_a_namespace_is_identified_by_its_inode(fake: FakeProc) -> None:
    fake.process(7, netns=5)
    procfs = fake.procfs()
    assert [procfs.netns_id(netns_of(procfs, pid)) for pid in (1, 7)] == [NETNS, 5]


def test_namespaces_with_unreadable_links_are_distinguished(fake: FakeProc) -> None:
    fake.process(7, netns=5, nameable=False)
    fake.process(8, netns=5, nameable=False)
    fake.process(9, netns=6, nameable=False)
    procfs = fake.procfs()
    seven, eight, nine = (netns_of(procfs, pid) for pid in (7, 8, 9))
    assert seven == eight != nine
    assert procfs.netns_id(seven) is None


def test_a_namespace_with_an_unreadable_link_is_known_from_another_process(
    fake: FakeProc,
) -> None:
    fake.process(7, nameable=False)
    procfs = fake.procfs()
    netns_of(procfs, 1)
    assert procfs.netns_id(netns_of(procfs, 7)) == NETNS


def test_the_own_namespace_is_known_from_the_start(fake: FakeProc) -> None:
    fake.process(7)
    (fake.root / "self").symlink_to("7")
    assert fake.procfs().own == (NETNS, 7)


def test_a_procfs_without_this_process_has_no_own_namespace(fake: FakeProc) -> None:
    assert fake.procfs().own is None


# Tables.


def test_tables_are_read_whole_and_missing_ones_are_left_out(fake: FakeProc) -> None:
    fake.table("tcp", *(inet_row(inode) for inode in range(1, 2000)))
    read = fake.procfs().read_tables(NETNS, [1], ["tcp", "tcp6"]).texts
    assert read == {"tcp": (fake.root / "1" / "net" / "tcp").read_bytes()}


def test_a_table_is_read_again_each_time(fake: FakeProc) -> None:
    procfs = fake.procfs()
    fake.raw_table("tcp", b"old")
    assert procfs.read_tables(NETNS, [1], ["tcp"]).texts == {"tcp": b"old"}
    fake.raw_table("tcp", b"new")
    assert procfs.read_tables(NETNS, [1], ["tcp"]).texts == {"tcp": b"new"}


def test_a_table_that_cannot_be_read_gives_its_error(fake: FakeProc) -> None:
    fake.break_table("tcp")
    fake.raw_table("udp", b"rows")
    read = fake.procfs().read_tables(NETNS, [1], ["tcp", "udp"]).texts
    assert read is not None
    assert isinstance(read["tcp"], IsADirectoryError)
    assert read["udp"] == b"rows"


def test_when_a_process_has_ended_the_tables_are_read_from_another(fake: FakeProc) -> None:
    fake.process(7)
    fake.raw_table("tcp", b"rows")
    assert fake.procfs().read_tables(NETNS, [6, 7], ["tcp"]).texts == {"tcp": b"rows"}


def test_a_process_that_entered_another_namespace_is_reported_as_moved(fake: FakeProc) -> None:
    fake.process(6, netns=NETNS + 1)
    fake.process(7)
    fake.table("tcp", inet_row(5), netns=NETNS + 1)
    fake.raw_table("tcp", b"rows")
    procfs = fake.procfs()
    assert procfs.read_tables(NETNS, [6, 7], ["tcp"]) == TableTexts(
        {"tcp": b"rows"}, frozenset({6})
    )
    assert procfs.read_tables(NETNS, [6], ["tcp"]) == TableTexts(None, frozenset({6}))


def test_a_process_that_cannot_be_opened_does_not_count_as_ended(
    fake: FakeProc, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_arguments: object, **_options: object) -> int:
        raise OSError(errno.EMFILE, "too many open files")

    procfs = fake.procfs()
    monkeypatch.setattr(os, "open", refused)
    error = table_of(procfs, NETNS, [1])
    assert isinstance(error, OSError)
    assert error.errno == errno.EMFILE


def test_a_device_in_place_of_a_table_is_an_error(fake: FakeProc) -> None:
    table = fake.root / "1" / "net" / "tcp"
    table.unlink(missing_ok=True)
    table.symlink_to("/dev/zero")
    error = table_of(fake.procfs(), NETNS, [1])
    assert isinstance(error, OSError)
    assert error.errno == errno.EFBIG


def test_a_namespace_without_processes_has_no_texts(fake: FakeProc) -> None:
    assert fake.procfs().read_tables(NETNS, [6, 7], ["tcp"]) == TableTexts(None)


def test_a_listening_socket_is_in_the_real_table(listener: socket.socket) -> None:
    own = os.stat("/proc/self/ns/net").st_ino
    table = table_of(ProcFS(), own, [os.getpid()])
    assert isinstance(table, bytes)
    assert b" %d " % os.fstat(listener.fileno()).st_ino in table


# The machine.


def test_pids_of_all_processes(fake: FakeProc) -> None:
    fake.process(7)
    assert sorted(fake.procfs().pids()) == [1, 7]


def test_a_directory_without_processes_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        ProcFS(str(tmp_path)).pids()
    with pytest.raises(FileNotFoundError):
        ProcFS(str(tmp_path / "nowhere")).pids()


def test_processes_are_hidden_when_process_1_is(fake: FakeProc) -> None:
    assert not fake.procfs().hides_processes()
    fake.process(7)
    fake.end(1)
    assert fake.procfs().hides_processes()


def test_the_boot_id(fake: FakeProc) -> None:
    assert fake.procfs().boot_id() is None
    path = fake.root / "sys" / "kernel" / "random"
    path.mkdir(parents=True)
    (path / "boot_id").write_text("0e3cbbb5-9d5d\n")
    assert fake.procfs().boot_id() == "0e3cbbb5-9d5d"


@pytest.mark.parametrize(
    ("text", "ports"), [("1024\t2000\n", range(1024, 2001)), ("", None), ("a b", None)]
)
def test_the_ephemeral_ports(fake: FakeProc, text: str, ports: range | None) -> None:
    path = fake.root / "sys" / "net" / "ipv4"
    path.mkdir(parents=True)
    (path / "ip_local_port_range").write_text(text)
    assert fake.procfs().ephemeral_ports() == ports


def test_without_btime_the_clocks_show_the_boot_time(fake: FakeProc) -> None:
    (fake.root / "stat").unlink()
    assert fake.procfs().boot_time() > BOOT_TIME


def test_the_boot_time_is_btime(fake: FakeProc) -> None:
    assert fake.procfs().boot_time() == BOOT_TIME


def test_the_boot_time_of_another_machine_is_its_btime(fake: FakeProc) -> None:
    path = fake.root / "sys" / "kernel" / "random"
    path.mkdir(parents=True)
    (path / "boot_id").write_text("00000000-0000-4000-8000-000000000000\n")
    assert fake.procfs().boot_time() == BOOT_TIME


def test_the_boot_time_of_this_machine_is_constant() -> None:
    procfs = ProcFS()
    times = {procfs.boot_time() for _ in range(1000)}
    ticks = os.sysconf("SC_CLK_TCK")
    assert len(times) == 1
    assert times == {round(time * ticks) / ticks for time in times}


# The procfs of this machine.


def test_the_own_namespace_is_that_of_proc_self_ns_net() -> None:
    netns = os.stat("/proc/self/ns/net").st_ino
    assert ProcFS().own == (netns, os.getpid())


def test_every_user_may_read_the_tables_of_another_users_process() -> None:
    def read() -> tuple[bool, bool]:
        procfs = ProcFS()
        table = table_of(procfs, netns_of(procfs, 1), [1])
        return isinstance(table, bytes), netns_of(procfs, 1) > 0

    # The namespace of process 1 is known although its link may not be read: it is the own one.
    assert as_nobody(read) == (True, True)


def test_a_procfs_that_may_not_be_listed_raises_an_error(open_fake: FakeProc) -> None:
    open_fake.root.chmod(0o111)
    procfs = open_fake.procfs()

    def pids() -> int | None:
        try:
            procfs.pids()
        except OSError as error:
            return error.errno
        return None

    assert as_nobody(pids) == errno.EACCES


@pytest.mark.parametrize("btime", ["", "nan", "inf", "-5", "1e300", "9" * 30, "²"])
def test_a_malformed_btime_is_ignored(fake: FakeProc, btime: str) -> None:
    (fake.root / "stat").write_text(f"btime {btime}\n", "utf-8")
    assert BOOT_TIME < fake.procfs().boot_time() < 2 * BOOT_TIME


def test_names_that_are_not_pids_are_ignored(fake: FakeProc) -> None:
    for name in ("0", "01", "²", "12345678", "9" * 40, "-1", "self"):
        (fake.root / name).mkdir()
    assert fake.procfs().pids() == [1]


@pytest.mark.parametrize(
    "target", ["net:[abc]", "net:[-1]", "net:[]", f"net:[{'9' * 30}]", "net:["]
)
def test_a_malformed_namespace_link_counts_as_unreadable(fake: FakeProc, target: str) -> None:
    directory = fake.process(7)
    (directory / "ns" / "net").unlink()
    (directory / "ns" / "net").symlink_to(target)
    fake.table("dev")
    with open_directory(str(directory)) as process:
        assert fake.procfs().netns(process) < 0
