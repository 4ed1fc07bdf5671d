"""Setting up, reading and removing the trace instance, on a fake and on the real tracefs."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.kernel.trace import instance, unavailable
from agent.kernel.trace.instance import (
    BUFFER_KIB,
    EVENTS,
    MAX_BUFFER_KIB,
    STATE_FILTER,
    InstanceStatus,
)
from agent.kernel.trace.reader_lock import has_reader, lock_reader
from agent.kernel.trace.unavailable import (
    LOCKED_DOWN,
    NO_INSTANCES,
    NO_MEMORY,
    NO_PERMISSION,
    NO_TRACEFS,
    NOT_MOUNTED,
    READ_ONLY,
    TraceUnavailable,
)

STATS = """entries: {entries}
overrun: {overrun}
commit overrun: 1
bytes: 120
oldest event ts:   631.762658
now ts:   631.803415
dropped events: 2
read events: 0
"""
NAME = "sockagent"


def make_instance(root: Path, name: str = NAME) -> Path:
    """Create the files of an instance of two CPUs with both tracing and events off."""
    path = root / "instances" / name
    for event in EVENTS:
        (path / "events" / event).mkdir(parents=True)
        for file in ("enable", "filter"):
            (path / "events" / event / file).write_text("0\n")
        (path / "events" / event / "format").write_text(f"name: {event}\n")
    (path / "events/header_page").write_text("\tfield: u64 timestamp;\n")
    (path / "events/enable").write_text("0\n")
    for cpu in range(2):
        (path / "per_cpu" / f"cpu{cpu}").mkdir(parents=True)
        (path / "per_cpu" / f"cpu{cpu}" / "trace_pipe_raw").write_text("")
        (path / "per_cpu" / f"cpu{cpu}" / "stats").write_text(
            STATS.format(entries=10 + cpu, overrun=100 * cpu)
        )
        (path / "per_cpu" / f"cpu{cpu}" / "buffer_size_kb").write_text("7 (expanded: 1408)\n")
    for file in ("tracing_on", "trace_clock", "buffer_percent", "buffer_size_kb", "set_event"):
        (path / file).write_text("")
    (path / "trace").write_text("old events\n")
    return path


@pytest.fixture
def fake_tracefs(tmp_path: Path) -> Path:
    root = tmp_path / "tracing"
    (root / "instances").mkdir(parents=True)
    return root


def fail_writes(monkeypatch: pytest.MonkeyPatch, file: str, number: int, times: int = 1) -> None:
    """Let the first writes to a file fail, as the kernel does."""
    write = instance.write
    failed: list[str] = []

    def failing(path: str, text: str) -> None:
        if path.endswith(file) and len(failed) < times:
            failed.append(text)
            raise OSError(number, os.strerror(number))
        write(path, text)

    monkeypatch.setattr(instance, "write", failing)


# Without a kernel.


def test_the_filter_names_only_tcp_and_every_state_once() -> None:
    states = [part.split(")")[0].split(" ")[0] for part in STATE_FILTER.split("newstate==")[1:]]
    assert states == ["1", "2", "8", "4", "7", "9", "10"]
    assert STATE_FILTER.startswith("protocol==6 && (")
    assert STATE_FILTER.count("(") == STATE_FILTER.count(")")


@pytest.mark.parametrize(
    ("cpus", "can_stall", "kib"),
    [
        (1, False, 4096),
        (128, False, 4096),
        (1, True, 16384),
        (4, True, 16384),
        (8, True, 8192),
        (128, True, 4096),
    ],
)
def test_size_of_the_buffers(cpus: int, can_stall: bool, kib: int) -> None:
    assert instance.buffer_kib(cpus, can_stall=can_stall) == kib


def test_an_existing_instance_is_set_up_again(fake_tracefs: Path) -> None:
    path = make_instance(fake_tracefs)
    made = instance.enable(str(fake_tracefs), NAME, BUFFER_KIB)
    assert (made.root, made.name, made.path) == (str(fake_tracefs), NAME, str(path))
    assert made.filtered
    assert (path / "trace").read_text() == ""
    written = {
        "trace_clock": "boot",
        "buffer_percent": "0",
        "buffer_size_kb": "4096",
        "tracing_on": "1",
        "events/sock/inet_sock_set_state/filter": STATE_FILTER,
    }
    for file, text in written.items():
        assert (path / file).read_text().startswith(text), file
    for event in EVENTS:
        assert (path / "events" / event / "enable").read_text().startswith("1")


def test_the_events_of_an_instance_with_a_reader_are_kept(fake_tracefs: Path) -> None:
    path = make_instance(fake_tracefs)
    reader = lock_reader(str(path))
    try:
        instance.enable(str(fake_tracefs), NAME, BUFFER_KIB)
        assert (path / "trace").read_text() == "old events\n"
        assert (path / "buffer_size_kb").read_text() == ""
        assert (path / "tracing_on").read_text() == "1"
        with pytest.raises(TraceUnavailable, match="another agent reads"):
            instance.disable(str(fake_tracefs), NAME)
        assert (path / "tracing_on").read_text() == "1"
    finally:
        os.close(reader)


def test_smaller_buffers_where_memory_is_scarce(
    fake_tracefs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_instance(fake_tracefs)
    fail_writes(monkeypatch, "/buffer_size_kb", errno.ENOMEM, times=3)
    instance.enable(str(fake_tracefs), NAME, MAX_BUFFER_KIB)
    assert (path / "buffer_size_kb").read_text() == "2048"


def test_no_buffers_where_memory_is_exhausted(
    fake_tracefs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_instance(fake_tracefs)
    fail_writes(monkeypatch, "/buffer_size_kb", errno.ENOMEM, times=4)
    with pytest.raises(TraceUnavailable) as raised:
        instance.enable(str(fake_tracefs), NAME, 6000)
    assert str(raised.value) == NO_MEMORY


def test_a_refused_filter_records_all_events(
    fake_tracefs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_instance(fake_tracefs)
    fail_writes(monkeypatch, "/filter", errno.EINVAL)
    assert not instance.enable(str(fake_tracefs), NAME, BUFFER_KIB).filtered
    assert (path / "events/sock/inet_sock_set_state/filter").read_text().startswith("0")
    assert (path / "tracing_on").read_text() == "1"


@pytest.mark.parametrize("event", EVENTS)
def test_a_missing_tracepoint_is_named(fake_tracefs: Path, event: str) -> None:
    path = make_instance(fake_tracefs)
    for file in (path / "events" / event).iterdir():
        file.unlink()
    with pytest.raises(TraceUnavailable, match=f"has no tracepoint {event};"):
        instance.enable(str(fake_tracefs), NAME, BUFFER_KIB)


def test_status(fake_tracefs: Path) -> None:
    path = make_instance(fake_tracefs)
    assert not instance.status(str(fake_tracefs), NAME).on
    (path / "tracing_on").write_text("1\n")
    (path / "set_event").write_text("tcp:tcp_destroy_sock\nsock:inet_sock_set_state\nnet:other\n")
    expected = InstanceStatus(
        exists=True, on=True, events=EVENTS[:2], has_reader=False, cpus=2, buffer_kib=7,
        entries=21, lost=106,
    )  # fmt: skip
    assert instance.status(str(fake_tracefs), NAME) == expected
    (path / "set_event").write_text("fib:fib_table_lookup\nfib6:fib6_table_lookup\n")
    assert instance.status(str(fake_tracefs), NAME).udp
    reader = lock_reader(str(path))
    assert instance.status(str(fake_tracefs), NAME).has_reader
    os.close(reader)
    assert not instance.status(str(fake_tracefs), NAME).has_reader


def test_an_instance_that_does_not_exist(fake_tracefs: Path) -> None:
    assert instance.status(str(fake_tracefs), NAME) == InstanceStatus()
    instance.disable(str(fake_tracefs), NAME)
    path = instance.path_of(str(fake_tracefs), NAME)
    assert not instance.is_intact(path)
    with pytest.raises(TraceUnavailable, match="No such file"):
        lock_reader(path)
    with pytest.raises(TraceUnavailable, match="No such file"):
        instance.trace_files(path)


def test_intact_means_on_with_all_events(fake_tracefs: Path) -> None:
    path = make_instance(fake_tracefs)
    names = [event.replace("/", ":") for event in EVENTS]
    (path / "set_event").write_text("\n".join(names) + "\n")
    (path / "tracing_on").write_text("1\n")
    assert instance.is_intact(str(path))
    (path / "tracing_on").write_text("0\n")
    assert not instance.is_intact(str(path))
    (path / "tracing_on").write_text("1\n")
    (path / "set_event").write_text("\n".join(names[1:]) + "\n")
    assert not instance.is_intact(str(path))


def test_formats_and_trace_files(fake_tracefs: Path) -> None:
    path = make_instance(fake_tracefs)
    (path / "per_cpu" / "cpu10").mkdir()
    page, formats = instance.read_formats(str(path))
    assert "timestamp" in page
    assert formats == {event: f"name: {event}\n" for event in EVENTS}
    cpus = [file.split("/")[-2] for file in instance.trace_files(str(path))]
    assert cpus == ["cpu0", "cpu1", "cpu10"]


def test_only_one_process_locks_an_instance(fake_tracefs: Path) -> None:
    path = make_instance(fake_tracefs)
    only_one_locks(str(path))


def only_one_locks(path: str) -> None:
    program = (
        "import sys; from agent.kernel.trace.reader_lock import lock_reader;"
        "lock_reader(sys.argv[1]); print(flush=True); sys.stdin.read()"
    )
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", program, path], stdin=pipe, stdout=pipe) as other:
        assert other.stdout
        assert other.stdout.readline()
        assert has_reader(path)
        with pytest.raises(TraceUnavailable, match=f"another agent reads {path}"):
            lock_reader(path)
        other.kill()
    os.close(lock_reader(path))


def test_the_processes_of_abandoned_instances(
    fake_tracefs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    processes = {
        "10": (b"/usr/bin/python3\0/usr/local/bin/sockagent\0", b"sockagent\n"),
        "11": (b"python3\0-m\0agent\0", b"python3\n"),
        "12": (b"sleep\x0060\0", b"sleep\n"),
        "13": (b"", b"kworker/0:1\n"),
        "14": (b"", b"sockagent\n"),  # A zombie.
        "16": (b"sleep\x0060\0", b"sleep\n"),
    }
    for pid, (cmdline, comm) in processes.items():
        (tmp_path / "proc" / pid).mkdir(parents=True)
        (tmp_path / "proc" / pid / "cmdline").write_bytes(cmdline)
        (tmp_path / "proc" / pid / "comm").write_bytes(comm)
    names = [f"sockagent-{pid}" for pid in range(10, 17)]
    names += ["sockagent", "sockagent-x", "sockagent-0", "sockagent-10-old", "other-12"]
    for name in names:
        make_instance(fake_tracefs, name)
    removed: list[str] = []
    monkeypatch.setattr(os, "rmdir", lambda path: removed.append(Path(path).name))
    reader = lock_reader(str(fake_tracefs / "instances/sockagent-16"))
    try:
        found = instance.remove_abandoned(str(fake_tracefs), str(tmp_path / "proc"))
    finally:
        os.close(reader)
    assert found == removed == ["sockagent-12", "sockagent-13", "sockagent-15"]


def test_no_instances_are_abandoned_without_tracefs(tmp_path: Path) -> None:
    assert instance.remove_abandoned(str(tmp_path)) == []


# Why events cannot be had.


@pytest.mark.parametrize(
    ("number", "sentence"),
    [
        (errno.EACCES, NO_PERMISSION),
        (errno.EROFS, READ_ONLY),
        (errno.ENOMEM, NO_MEMORY),
        (errno.ENOSPC, unavailable.TOO_MANY),
        (errno.EBUSY, unavailable.IN_USE),
        (errno.ENODEV, unavailable.TRACING_DISABLED),
        (errno.EIO, "no kernel events: /t: Input/output error"),
    ],
)
def test_each_error_is_explained(number: int, sentence: str) -> None:
    with pytest.raises(TraceUnavailable) as raised, unavailable.explained("/t"):
        raise OSError(number, os.strerror(number))
    assert str(raised.value) == sentence


def test_root_is_refused_by_lockdown_only(monkeypatch: pytest.MonkeyPatch) -> None:
    refused = OSError(errno.EPERM, "Operation not permitted")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert unavailable.explain(refused, "/t") == LOCKED_DOWN
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert unavailable.explain(refused, "/t") == NO_PERMISSION


def test_where_tracefs_is_missing(tmp_path: Path) -> None:
    root, lockdown = tmp_path / "tracing", tmp_path / "lockdown"
    proc = tmp_path / "proc"
    (proc / "self").mkdir(parents=True)
    (proc / "self/mounts").write_text("sysfs /sys sysfs rw 0 0\n")

    def reason() -> str:
        return str(unavailable.missing_tracefs((str(root),), str(proc), str(lockdown)))

    (proc / "filesystems").write_text("nodev\tsysfs\n\text4\n")
    assert reason() == NO_TRACEFS
    (proc / "filesystems").write_text("nodev\tsysfs\nnodev\ttracefs\n")
    assert reason() == NOT_MOUNTED
    with (proc / "self/mounts").open("a") as mounts:
        mounts.write(f"tracefs {root} tracefs rw 0 0\n")
    root.mkdir()
    assert reason() == NO_INSTANCES
    lockdown.write_text("none integrity [confidentiality]\n")
    assert reason() == LOCKED_DOWN
    lockdown.write_text("none [integrity] confidentiality\n")
    assert reason() == NO_INSTANCES


def test_the_first_tracefs_with_instances_is_found(tmp_path: Path) -> None:
    roots = (str(tmp_path / "tracing"), str(tmp_path / "debug"))
    assert instance.find_tracefs(roots) is None
    (tmp_path / "tracing").mkdir()  # The mount point only.
    (tmp_path / "debug/instances").mkdir(parents=True)
    assert instance.find_tracefs(roots) == roots[1]
    assert instance.require_tracefs(roots) == roots[1]
    with pytest.raises(TraceUnavailable):
        instance.require_tracefs(roots[:1])


# With the kernel of this machine.


@pytest.fixture
def tracefs() -> str:
    root = instance.find_tracefs()
    if root is None or os.geteuid() != 0:
        pytest.skip(f"requires root and tracefs: {unavailable.missing_tracefs()}")
    return root


@pytest.fixture
def made(tracefs: str) -> Iterator[instance.TraceInstance]:
    """An instance that only this test uses."""
    name = f"test-sockagent-{os.getpid()}"
    yield instance.enable(tracefs, name, 1024)
    instance.disable(tracefs, name)
    assert not Path(instance.path_of(tracefs, name)).exists()


def connect_and_close() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        socket.create_connection(listening.getsockname()).close()


def test_a_real_instance_records_connections(made: instance.TraceInstance) -> None:
    assert instance.is_intact(made.path)
    assert made.filtered
    connect_and_close()
    found = instance.status(made.root, made.name)
    assert found.exists
    assert found.on
    assert found.events == EVENTS
    assert found.cpus == len(instance.trace_files(made.path))
    assert 1024 <= found.buffer_kib == made.buffer_kib < 1100  # Whole pages.
    assert found.entries >= 6  # Two sockets that open and close, and a listener.
    page, formats = instance.read_formats(made.path)
    assert "field: char data;" in page
    assert all(f"name: {event.split('/')[1]}\n" in text for event, text in formats.items())
    trace = Path(made.path, "trace").read_text()
    assert "family=AF_INET protocol=IPPROTO_TCP" in trace
    assert "newstate=TCP_SYN_SENT" in trace
    assert "newstate=TCP_SYN_RECV" not in trace  # The filter leaves it out.


def test_the_clock_of_a_real_instance_is_the_boot_clock(made: instance.TraceInstance) -> None:
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    connect_and_close()
    text = Path(made.path, "trace").read_text().splitlines()[-1]
    seconds = float(text.split(": ")[0].split()[-1])
    assert before - 0.001 <= seconds <= time.clock_gettime(time.CLOCK_BOOTTIME) + 0.001


def test_setting_up_a_real_instance_again_discards_its_events(
    made: instance.TraceInstance,
) -> None:
    connect_and_close()
    recorded = Path(made.path, "trace").read_text()
    assert "TCP_SYN_SENT" in recorded
    Path(made.path, "tracing_on").write_text("0")
    assert not instance.is_intact(made.path)
    again = instance.enable(made.root, made.name, 1024)
    assert again.path == made.path
    assert instance.is_intact(made.path)
    assert recorded.splitlines()[-1] not in Path(made.path, "trace").read_text()


def test_only_one_process_reads_a_real_instance(made: instance.TraceInstance) -> None:
    only_one_locks(made.path)


def test_a_real_instance_in_use_is_not_removed(made: instance.TraceInstance) -> None:
    reader = lock_reader(made.path)
    try:
        with pytest.raises(TraceUnavailable, match="another agent reads"):
            instance.disable(made.root, made.name)
        assert instance.is_intact(made.path)
    finally:
        os.close(reader)
    # A program that takes no lock, such as cat.
    with Path(made.path, "trace_pipe").open("rb"), pytest.raises(TraceUnavailable) as raised:
        instance.disable(made.root, made.name)
    assert str(raised.value) == unavailable.IN_USE


def test_a_real_instance_that_cannot_be_set_up_is_removed(
    tracefs: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(instance, "EVENTS", (*EVENTS, "sock/no_such_event"))
    name = f"test-sockagent-{os.getpid()}"
    with pytest.raises(TraceUnavailable, match="no tracepoint sock/no_such_event"):
        instance.enable(tracefs, name, 1024)
    assert not instance.status(tracefs, name).exists


def test_the_kernel_refuses_an_unknown_filter(
    tracefs: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(instance, "STATE_FILTER", "no_such_field==1")
    name = f"test-sockagent-{os.getpid()}"
    made = instance.enable(tracefs, name, 1024)
    try:
        assert not made.filtered
        connect_and_close()
        assert "newstate=TCP_SYN_RECV" in Path(made.path, "trace").read_text()
    finally:
        instance.disable(tracefs, name)


def test_other_instances_are_not_changed(tracefs: str) -> None:
    """In particular, they still record the names of programs."""
    mine, other = (f"test-sockagent-{os.getpid()}-{name}" for name in ("mine", "other"))
    path = Path(instance.path_of(tracefs, other))
    path.mkdir()
    try:
        (path / "events/sched/sched_process_exit/enable").write_text("1")
        options = (path / "trace_options").read_text()
        instance.enable(tracefs, mine, 1024)
        # A program that sleeps is switched to often enough for its name to be recorded.
        subprocess.run([sys.executable, "-c", "import time; time.sleep(0.05)"], check=True)
        instance.disable(tracefs, mine)
        assert (path / "trace_options").read_text() == options
        assert "comm=python" in (path / "trace").read_text()
        names = [line.split()[0] for line in (path / "trace").read_text().splitlines()]
        assert any(name.startswith("python") for name in names), names
    finally:
        path.rmdir()
