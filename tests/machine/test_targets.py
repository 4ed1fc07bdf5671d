"""Targets compared with ss; exit statuses for scripts."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import time
from contextlib import closing
from pathlib import Path

import pytest

from .helpers import COMMAND, DEADLINE, Holder, need_tool, run, snapshot
from .tools import output


def free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        return int(free.getsockname()[1])


def test_options_of_netstat_agree_with_ss(holder: Holder) -> None:
    need_tool("ss")
    holder.do("l = tcp_listener(); u = socket.socket(type=socket.SOCK_DGRAM)")
    holder.do("u.bind(('127.0.0.1', 0))")
    found = {(one["proto"], one["inode"]) for one in snapshot("-tulpn", str(holder.pid))}
    lines = [line for line in output(["ss", "-tulpnHe"]) if f"pid={holder.pid}," in line]
    assert found == {(line.split()[0], int(line.partition("ino:")[2].split()[0])) for line in lines}
    assert len(found) == 2


def test_a_network_agrees_with_ss(holder: Holder) -> None:
    need_tool("ss")
    holder.do("l = tcp_listener('127.77.1.2'); c, a = tcp_pair(l)")
    holder.do("other = tcp_listener('127.78.1.2')")
    found = {one["inode"] for one in snapshot("127.77.0.0/16", "-t")}
    lines = output(["ss", "-tanHe", "src 127.77.0.0/16 or dst 127.77.0.0/16"])
    assert found == {int(line.partition("ino:")[2].split()[0]) for line in lines}
    assert len(found) == 3


@pytest.mark.parametrize("opens", [True, False])
def test_a_script_waits_for_a_port(opens: bool, holder: Holder) -> None:
    port = free_port()
    seconds = "20" if opens else "1"
    waiting = subprocess.Popen(
        (*COMMAND, "-f", "-q", "--interval", "0.1", "--timeout", seconds, "-l", f":{port}"),
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        if opens:
            time.sleep(0.5)
            assert waiting.poll() is None
            holder.do(f"l = socket.create_server(('127.0.0.1', {port}))")
        out, _ = waiting.communicate(timeout=DEADLINE)
    finally:
        waiting.kill()
        waiting.wait()
    assert (waiting.returncode, out) == (0 if opens else 1, b"")


def test_kill_ends_the_listener_and_not_its_client(holder: Holder) -> None:
    holder.do("l = tcp_listener(); port = l.getsockname()[1]")
    port = holder.do("port")
    with Holder() as client:
        client.do(f"c = socket.create_connection(('127.0.0.1', {port}))")
        script = f'kill $("$1" -o pid :{port})'
        assert run("-c", script, "bash", *COMMAND, command=("bash",)).returncode == 0
        assert holder.process.wait(DEADLINE) == -signal.SIGTERM
        assert client.process.poll() is None


def test_the_exit_status_answers(holder: Holder, tmp_path: Path) -> None:
    holder.do("l = tcp_listener(); port = l.getsockname()[1]")
    there, free = f":{holder.do('port')}", f":{free_port()}"
    for arguments, status in (
        ((there,), 0), (("-q", there), 0), ((free,), 1), (("-q", free), 1), (("-q",), 0),
        (("-o", "pid", free), 1), (("--port", free[1:]), 0), ((":99999",), 2),
        (("--proc", str(tmp_path), there), 3), (("--proc", str(tmp_path)), 1),
    ):  # fmt: skip
        done = run(*arguments)
        assert done.returncode == status, (arguments, done.stderr)
        if "-q" in arguments:
            assert done.stdout == ""


@pytest.mark.parametrize(
    ("words", "typed"),
    [
        ("-i :8080", "sockagent :8080"),
        ("--table", "sockagent -o table"),
        ("--json", "sockagent -o json"),
    ],
)
def test_what_is_typed_by_habit_gets_the_line_to_type(words: str, typed: str) -> None:
    done = run(*words.split())
    assert done.returncode == 2
    option = words.split(maxsplit=1)[0]
    assert done.stderr == f"sockagent: there is no option {option}; type {typed}\n"


@pytest.mark.parametrize("words", ["-l", "-tulpn", "--output json", "--state listening"])
def test_what_is_typed_by_habit_works(words: str, holder: Holder) -> None:
    inode = holder.open("l = tcp_listener()")
    done = run(*words.split())
    assert done.returncode == 0
    assert f'"inode":{inode},' in done.stdout


def test_a_recording_is_shown_in_every_format(holder: Holder, tmp_path: Path) -> None:
    inode = holder.open("l = tcp_listener()")
    path = tmp_path / "recorded.ndjson"
    with path.open("wb") as file:
        recording = subprocess.Popen(
            (*COMMAND, "-f", "--interval", "0.1"), stdin=subprocess.DEVNULL, stdout=file
        )
    try:
        end = time.monotonic() + DEADLINE
        while b'"snapshot_end"' not in path.read_bytes():
            assert time.monotonic() < end
            time.sleep(0.05)
        holder.do("l.close()")
        closed = re.compile(rb'"event":"close".*"pid":%d,' % holder.pid)
        while not closed.search(path.read_bytes()):
            assert time.monotonic() < end
            time.sleep(0.05)
    finally:
        recording.terminate()
        recording.wait(DEADLINE)
    pid = str(holder.pid)
    records = [json.loads(line) for line in path.read_bytes().splitlines()]
    (begin,) = [one["time"] for one in records if one["event"] == "snapshot_end"]
    read = ("--read", str(path), f"pid={pid}")
    assert " close " in run(*read, "-o", "log").stdout
    for output_format in ("table", "csv", "wide"):
        assert pid in run(*read, "-o", output_format, "--at", begin).stdout
        assert pid not in run(*read, "-o", output_format).stdout
    at_begin = run(*read, "-o", "ndjson", "--at", begin).stdout
    assert json.loads(at_begin)["inode"] == inode
    whole = path.read_bytes()
    cut = tmp_path / "cut.ndjson"
    cut.write_bytes(whole[: whole.index(b'"snapshot_end"')])
    done = run("--read", str(cut), "-o", "table", f"pid={pid}")
    assert (done.returncode, "cut off in line" in done.stderr) == (0, True)
    subprocess.run(["gzip", "-k", str(cut)], check=True)
    assert run("--read", f"{cut}.gz", "-o", "table", f"pid={pid}").stdout == done.stdout
    script = f'"$1" --read - -o table pid={pid} < {cut}'
    assert run("-c", script, "bash", *COMMAND, command=("bash",)).stdout == done.stdout
    both = tmp_path / "both.ndjson"
    host = json.dumps(records[0]["host"]).encode()
    both.write_bytes(
        whole[: len(cut.read_bytes())].rpartition(b"\n")[0]
        + b"\n"
        + whole.replace(b'"host":' + host, b'"host":"elsewhere"')
    )
    shown = run("--read", str(both), "-o", "table", "-l").stdout
    assert "elsewhere" in shown
    assert "HOST" in shown
