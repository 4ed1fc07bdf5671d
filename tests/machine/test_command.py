"""The command: its exit status, its streams, its options."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import jsonschema
import pytest

from .anyone import NOBODY, Anyone
from .helpers import (
    COMMAND,
    DEADLINE,
    Follow,
    Holder,
    Record,
    need_root,
    run,
    snapshot,
)

PIPE_BYTES = 64 * 1024
NOT_WRITTEN = "cannot write to standard output"
# The number of tgkill(2), which C libraries do not wrap, by machine.
TGKILL = {"x86_64": 234}.get(os.uname().machine, 131)
libc = ctypes.CDLL(None, use_errno=True)
MODES: tuple[tuple[str, ...], ...] = ((), ("--follow",))


def shell(script: str) -> subprocess.CompletedProcess[str]:
    """Run a script in which $1 is the command."""
    return run("-o", "pipefail", "-c", script, "bash", *COMMAND, command=("bash",))


@pytest.fixture(scope="module")
def busy() -> Iterator[Holder]:
    """A process with more sockets than records fit a pipe."""
    with Holder() as holder:
        holder.do("pairs = [socket.socketpair() for _ in range(400)]")
        yield holder


# The end of the process.


@pytest.mark.parametrize("mode", ["", "--follow"])
def test_it_exits_quietly_when_the_reader_leaves(mode: str, busy: Holder) -> None:
    done = shell(f'"$1" {mode} --pid {busy.pid} --cmdline | head -1')
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == 1
    assert "rror" not in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_following(number: signal.Signals, holder: Holder) -> None:
    with Follow("--pid", str(holder.pid)) as follow:
        follow.started()
        follow.process.send_signal(number)
        assert follow.process.wait(DEADLINE) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("mode", MODES)
def test_a_signal_ends_it_while_the_reader_stalls(
    mode: tuple[str, ...], number: signal.Signals, busy: Holder
) -> None:
    with subprocess.Popen(
        (*COMMAND, *mode, "--pid", str(busy.pid)),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout
        assert process.stderr
        # After the first byte it handles signals, and has more to write than fits the pipe.
        assert process.stdout.read(1) == b"{"
        process.send_signal(number)
        assert process.wait(DEADLINE) == 0
        assert b"Traceback" not in process.stderr.read()


def test_a_signal_to_another_thread_ends_it(busy: Holder) -> None:
    with subprocess.Popen(
        (*COMMAND, "--pid", str(busy.pid)), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout
        assert process.stdout.read(1) == b"{"
        # Wait until the main thread sleeps; it does as long as the reader stalls.
        while Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] != "S":
            time.sleep(0.01)
        others = [int(tid) for tid in os.listdir(f"/proc/{process.pid}/task")]
        others.remove(process.pid)
        assert libc.syscall(TGKILL, process.pid, others[0], int(signal.SIGTERM)) == 0
        assert process.wait(DEADLINE) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("mode", MODES)
def test_a_signal_at_the_start_leaves_no_traceback(
    mode: tuple[str, ...], number: signal.Signals
) -> None:
    with subprocess.Popen(
        (*COMMAND, *mode), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as process:
        assert process.stderr
        process.send_signal(number)
        process.wait(DEADLINE)
        assert b"Traceback" not in process.stderr.read()


def test_a_second_signal_changes_nothing() -> None:
    for _ in range(5):
        with subprocess.Popen(
            (*COMMAND, "--follow"), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            assert process.stdout
            assert process.stderr
            process.stdout.read(1)
            threading.Thread(target=process.stdout.read).start()
            while process.poll() is None:
                for number in (signal.SIGTERM, signal.SIGINT):
                    process.send_signal(number)
                    time.sleep(0.001)
            assert process.returncode == 0
            assert b"Traceback" not in process.stderr.read()


def test_a_snapshot_is_complete_if_sigchld_is_ignored(holder: Holder) -> None:
    inode = holder.open("s = socket.socket()")
    done = shell("trap '' CHLD; exec \"$1\"")
    assert (done.returncode, failures(done.stderr)) == (0, [])
    assert str(inode) in done.stdout


@pytest.mark.parametrize("arguments", ["--proc /nowhere", "--pid x", "--nonsense"])
def test_a_failure_does_not_wait_for_a_reader_of_stderr(arguments: str) -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writing, b"x" * 4096)
    os.set_blocking(writing, True)
    with subprocess.Popen((*COMMAND, *arguments.split()), stderr=writing) as process:
        assert process.wait(DEADLINE) in (1, 2)
    os.close(reading)
    os.close(writing)


def test_a_closed_pipe_ends_it_without_a_write(holder: Holder) -> None:
    with Follow("--pid", str(holder.pid), interval=3600) as follow:
        follow.started()
        assert follow.process.stdout
        follow.process.stdout.close()
        assert follow.process.wait(10) == 0  # Earlier than the next heartbeat.


@pytest.mark.parametrize("mode", ["", "--follow"])
@pytest.mark.parametrize("output", [">&-", ">/dev/full"])
def test_an_unwritable_stdout_is_reported_on_one_line(mode: str, output: str) -> None:
    done = shell(f'"$1" {mode} {output}')
    assert done.returncode == 1
    assert len(failures(done.stderr)) == 1, done.stderr


def check_the_output_of_a_full_disk(first: bytes, second: bytes) -> None:
    """Check a file that ended within a line, and the same file after another run appended to it."""
    *complete, part = first.split(b"\n")
    assert part, "the disk was full at the end of a line"
    for line in complete:
        json.loads(line)
    assert second.startswith(first + b"\n")
    more = second.removeprefix(first + b"\n").splitlines(keepends=True)
    assert len(more) == 800
    for line in more:
        assert line.endswith(b"\n")
        assert json.loads(line)["event"] == "snapshot"


@pytest.mark.parametrize("mode", ["", "--follow"])
def test_a_full_disk_is_reported_with_the_incomplete_line(
    mode: str, busy: Holder, tmp_path: Path
) -> None:
    need_root()
    (tmp_path / "disk").mkdir()
    done = run(
        "--mount", "sh", "-c",
        f"""
        cd {tmp_path}
        mount -t tmpfs -o size=64k none disk
        printf '{{}}\n' >disk/out
        "$1" {mode} --pid {busy.pid} >>disk/out; echo $?
        cp disk/out first
        mount -o remount,size=8m disk
        "$1" --pid {busy.pid} >>disk/out; echo $?
        cp disk/out second
        """,
        "sh", *COMMAND, command=("unshare",),
    )  # fmt: skip
    assert done.stdout == "1\n0\n"
    assert failures(done.stderr) == [
        f"sockagent: {NOT_WRITTEN}: No space left on device; the last line is incomplete"
    ]
    check_the_output_of_a_full_disk(
        (tmp_path / "first").read_bytes(), (tmp_path / "second").read_bytes()
    )


def test_a_file_size_limit_is_reported_with_the_incomplete_line(
    busy: Holder, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    done = shell(f'ulimit -f 50; "$1" --follow --pid {busy.pid} >>{out}')
    assert done.returncode == 1
    assert failures(done.stderr) == [
        "sockagent: cannot write to standard output: File too large; the last line is incomplete"
    ]
    first = out.read_bytes()
    assert shell(f'"$1" --pid {busy.pid} >>{out}').returncode == 0
    check_the_output_of_a_full_disk(first, out.read_bytes())


@pytest.mark.parametrize("what", ["--schema", "--help", "--help=all", "--version"])
def test_help_and_schema_exit_quietly_when_the_reader_leaves(what: str) -> None:
    done = shell(f'"$1" {what} | true')
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("what", ["--schema", "--help", "--help=all", "--version"])
@pytest.mark.parametrize("output", [">&-", ">/dev/full"])
def test_help_and_schema_report_an_unwritable_stdout(output: str, what: str) -> None:
    done = shell(f'"$1" {what} {output}')
    assert done.returncode == 1
    assert len(failures(done.stderr)) == 1, done.stderr


@pytest.mark.parametrize("mode", ["", "--follow"])
@pytest.mark.parametrize("limit", ["-n 6", "-n 9", "-v 40000"])
def test_a_lack_of_descriptors_or_memory_is_reported_on_one_line(mode: str, limit: str) -> None:
    done = shell(f'ulimit {limit}; timeout 2 "$1" {mode} >/dev/null')
    assert done.returncode in (0, 1, 124)  # A few descriptors may suffice for a snapshot.
    assert len(failures(done.stderr)) == (done.returncode == 1), done.stderr


def test_an_unread_stderr_does_not_block_records_or_the_end(holder: Holder) -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writing, b"x" * 4096)
    os.set_blocking(writing, True)
    with Follow("--pid", str(holder.pid), "--stats", "0.1", stderr=writing) as follow:
        follow.started()
        end = time.monotonic() + 1  # More lines than fit the pipe.
        follow.until(lambda: time.monotonic() > end)
        inode = holder.open("late = socket.socket()")
        follow.wait(event="open", inode=inode)
    os.close(reading)
    os.close(writing)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("root", ["", "nothing-here"])
def test_a_directory_that_is_not_procfs_is_reported_on_one_line(
    mode: tuple[str, ...], root: str, tmp_path: Path
) -> None:
    done = run(*mode, "--proc", str(tmp_path / root))
    assert done.returncode == 1
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == len(failures(done.stderr)) == 1


def failures(stderr: str) -> list[str]:
    """Return the lines of stderr that report a failure."""
    return [
        line
        for line in stderr.splitlines()
        if line.startswith("sockagent: ") and not line.startswith("sockagent: warning: ")
    ]


WRONG = {
    "--interval": ("0", "0.01", "nan", "inf", "soon"),
    "--pid": ("x", "-1", "1,,2", ""),
    "--comm": ("",),
    "--user": ("",),
    "--proto": ("",),
    "--family": ("",),
    "--state": ("OPEN", ""),
    "--port": ("65536", "10-1", "http", ""),
    "--addr": ("10.0.0.0/33", "localhost", ""),
    "--unit": ("",),
    "--container": ("",),
    "--netns": ("x", ""),
    "--direction": ("sideways", ""),
    "--event": ("hello", ""),
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name in WRONG for value in WRONG[name]]
)
def test_wrong_usage_names_the_argument(name: str, value: str) -> None:
    done = run(f"{name}={value}")
    assert done.returncode == 2
    assert done.stdout == ""
    assert f"argument {name}: " in done.stderr


@pytest.mark.parametrize("arguments", [("--nonsense",), ("prot=tcp",), ("--foll",), ("-z",)])
def test_an_unknown_argument_is_wrong_usage(arguments: tuple[str, ...]) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert arguments[0] in done.stderr


def test_all_and_follow_exclude_each_other() -> None:
    done = run("--all", "--follow")
    assert done.returncode == 2
    assert "--all" in done.stderr


# Records.


def test_every_record_fits_the_schema(holder: Holder) -> None:
    printed = run("--schema")
    assert printed.returncode == 0
    schema = json.loads(printed.stdout)
    jsonschema.Draft202012Validator.check_schema(schema)
    check = jsonschema.Draft202012Validator(schema).validate
    with Follow("--cmdline", "--pid", f"{holder.pid},1,{os.getpid()}") as follow:
        follow.started()
        holder.do("l = tcp_listener(); c, a = tcp_pair(l); n = socket.socket(16, 3)")
        holder.do("x = socket.socketpair(); u = socket.socket()")
        follow.wait(event="open", inode=holder.do("inode(u)"))
        once = snapshot("--pid", str(holder.pid))
        holder.do("c.shutdown(1)")
        follow.wait(event="update", inode=holder.do("inode(c)"))
        holder.do("a.close()")
        follow.wait(event="close")
        events = {record["event"] for record in follow.records}
        assert events >= {"hello", "snapshot_end", "open", "update", "close"}
        for record in (*once, *follow.records):
            check(record)


def test_rows_without_a_holder_fit_the_schema() -> None:
    schema = json.loads(run("--schema").stdout)
    check = jsonschema.Draft202012Validator(schema).validate
    with Holder() as holder:
        holder.do("l = tcp_listener(OWN); c, a = tcp_pair(l); l.close()")
        holder.do("c.close(); a.close()")
        (record,) = snapshot("--all", "--addr", holder.address)
        check(record)


def test_command_lines_are_printed_only_on_request(holder: Holder) -> None:
    holder.do("s = tcp_listener()")
    (bare,) = snapshot("--pid", str(holder.pid))
    (full,) = snapshot("--pid", str(holder.pid), "--cmdline")
    assert "cmdline" not in bare
    line = Path(f"/proc/{holder.pid}/cmdline").read_text()
    assert full["cmdline"] == line.removesuffix("\0").split("\0")


def test_the_version_is_printed() -> None:
    assert run("--version").stdout.startswith("sockagent ")


def test_a_stream_begins_with_hello(holder: Holder) -> None:
    with Follow("--pid", str(holder.pid), interval=0.25) as follow:
        follow.started()
        hello = follow.records[0]
        assert hello["schema"] == 1
        assert hello["interval"] == 0.25
        assert hello["resumed"] is False
        assert hello["boot_id"] == Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def test_changes_during_the_start_are_reported_once(holder: Holder) -> None:
    holder.do("import time; kept = []; busy = True")
    holder.do(
        "def go():\n"
        "    while busy:\n"
        "        kept.append(socket.socketpair()); time.sleep(0.01)\n"
        "        if len(kept) > 20: [s.close() for s in kept.pop(0)]\n"
        "t = threading.Thread(target=go); t.start()"
    )
    with Follow("--pid", str(holder.pid), interval=0.05) as follow:
        follow.started()
        follow.until(lambda: follow.seq > 100)
        holder.do("busy = False; t.join()")
        inodes = set(holder.do("[inode(s) for pair in kept for s in pair]"))
        follow.until(lambda: set(follow.of(holder.pid)) == inodes)


# Slow readers.

SMALL_HISTORY = """
import sys
from agent.stream import feed
class Feed(feed.Feed):
    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **{**options, "history_burst": 0.0}, history_records=200)
    def publish(self, *news):
        super().publish(*news)
        print(self.seq, file=sys.stderr, flush=True)
feed.Feed = Feed
from agent.__main__ import entry
entry()
"""


def test_a_reader_that_stalled_gets_lost_and_a_new_snapshot(busy: Holder) -> None:
    command = (sys.executable, "-c", SMALL_HISTORY)
    with Follow(command=command, interval=0.05) as follow, Holder() as other:
        follow.until(lambda: follow.records)
        # More is queued than fits the pipe: these changes are not read.
        for _ in range(2):
            for code in ("pairs = [socket.socketpair() for _ in range(100)]", "pairs = []"):
                end, before = time.monotonic() + DEADLINE, newest(follow.stderr())
                other.do(code)
                while newest(follow.stderr()) < before + 200:
                    assert time.monotonic() < end
                    time.sleep(0.02)
        inode = other.open("s = tcp_listener()")
        follow.wait(event="lost")
        follow.until(lambda: len(follow.of(busy.pid)) == 800)
        follow.until(lambda: set(follow.of(other.pid)) == {inode})


def newest(stderr: str) -> int:
    numbers = [int(line) for line in stderr.splitlines() if line.isdigit()]
    return numbers[-1] if numbers else 0


# Without privilege.


def test_without_privilege_it_warns_once_and_works(anyone: Anyone) -> None:
    with Holder(anyone.python, anyone.holder) as own, Holder() as root:
        inode = own.open("s = tcp_listener()")
        hidden = root.open("s = tcp_listener()")
        done = run(command=anyone.sockagent, cwd="/")
        assert done.returncode == 0
        (warning,) = done.stderr.splitlines()
        assert warning.startswith("sockagent: warning: ")
        records: dict[int, Record] = {}
        for line in done.stdout.splitlines():
            record = json.loads(line)
            records[record["inode"]] = record
        assert (records[inode]["pid"], records[inode]["uid"]) == (own.pid, NOBODY)
        assert records[hidden]["pid"] is None
        assert records[hidden]["state"] == "LISTEN"
        assert records[hidden]["uid"] == 0


def test_without_privilege_it_follows_and_reports_what_it_cannot_see(anyone: Anyone) -> None:
    with (
        Holder(anyone.python, anyone.holder) as own,
        Follow("--user", str(NOBODY), command=anyone.sockagent) as follow,
    ):
        follow.started()
        hello = follow.records[0]
        assert hello["complete"] is False
        assert hello["unreadable"] > 0
        assert hello["missing"]
        inode = own.open("s = tcp_listener()")
        assert follow.wait(event="open", pid=own.pid, inode=inode)["state"] == "LISTEN"
        own.do("s.close()")
        assert follow.wait(event="close", pid=own.pid, inode=inode)["reason"] == "closed"
        assert follow.stderr().count("\n") == 1
