"""What comes on a terminal, and that nothing else gets it."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from .helpers import COMMAND, DEADLINE, Holder, need_root, run
from .terminal import environment, screen, terminal

COLOR = re.compile(r"\x1b\[[0-9]+m")
CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")
# A name of a process, at most 15 bytes, and a path: erase the screen, set the title.
EVIL_NAME, EVIL_PATH = "\x1b[2J\x07\x9bx", "\x1b]0;owned\x07\x9b2J\u202e"
WIDTHS = (80, 120, 200)
# Views that are not loaded for a pipe.
VIEWS = re.compile(
    r"agent\.(publish\.terminal|show|outputs|replay|stream\.(decoder|state|recording))\b"
)
VARIABLES: tuple[dict[str, str], ...] = (
    {"SOCKAGENT_OUTPUT": "table"},
    {"SOCKAGENT_OUTPUT": "nonsense"},
    {"COLUMNS": "40"},
    {"NO_COLOR": "1", "TERM": "dumb"},
    {"LC_ALL": "C"},
)
CHANGING = re.compile(rb'"(time|epoch)":"[^"]*"')


@pytest.fixture
def pair(holder: Holder) -> Holder:
    """A listener, and a connection to it."""
    holder.do("l = tcp_listener(); c, a = tcp_pair(l); port = l.getsockname()[1]")
    return holder


# On a terminal.


@pytest.mark.parametrize("columns", WIDTHS)
def test_without_a_target_the_summary_comes(columns: int, pair: Holder) -> None:
    shown = screen(columns=columns)
    assert shown.process.returncode == 0
    lines = [COLOR.sub("", line) for line in shown.lines()]
    assert re.fullmatch(r".+: [\d,]+ process(es)?, [\d,]+ sockets?", lines[0])
    assert lines[1].split()[:4] == ["ROLE", "PROTO", "SERVICE", "CONNS"]
    port, pid = pair.do("port"), str(pair.pid)
    (row,) = [line.split() for line in lines if f"127.0.0.1:{port} " in line and "listen" in line]
    assert pid in row
    assert {line.split()[0] for line in lines if f" {pid} " in line} == {"listen", "in", "out"}


@pytest.mark.parametrize("columns", WIDTHS)
def test_with_a_target_the_table_comes(columns: int, pair: Holder) -> None:
    port = pair.do("port")
    lines = [COLOR.sub("", line) for line in screen(f":{port}", columns=columns).lines()]
    assert lines[0].split()[:2] == ["PROCESS", "PID"]
    assert len([line for line in lines if f" {pair.pid} " in line]) == 3
    assert max(map(len, lines)) <= columns
    # Behind it a line may say what could not be read.
    hidden = any(line.startswith("hidden: UNIT") for line in lines[-2:])
    assert hidden == (" UNIT" not in lines[0])


@pytest.mark.parametrize("columns", WIDTHS)
def test_following_shows_the_log(columns: int, pair: Holder) -> None:
    arguments = ("-f", "--interval", "0.1", "--pid", str(pair.pid))
    with terminal(*arguments, columns=columns, variables={"NO_COLOR": "1"}) as shown:
        shown.wait("^C ends")
        far = pair.do("(globals().update(zip('de', tcp_pair(l))), d.getsockname()[1])[1]")
        shown.wait(f"127.0.0.1:{far}")
        pair.do("d.close(); e.close()")
        shown.wait("close ")
        shown.process.send_signal(signal.SIGINT)
        assert shown.process.wait(DEADLINE) == 0
    call = f"127.0.0.1:{far} → 127.0.0.1:{pair.do('port')}"
    assert any(call in line and " open " in line for line in shown.lines())


def test_the_log_says_what_the_figures_of_the_kernel_mean(holder: Holder) -> None:
    """Only root gets the figures: a socket that ends is reported over netlink."""
    need_root()
    holder.do("l = tcp_listener()")
    port = holder.do("l.getsockname()[1]")
    plain = {"NO_COLOR": "1"}
    with terminal("-f", "--interval", "0.1", f":{port}", columns=200, variables=plain) as shown:
        shown.wait("^C ends")
        holder.do("c, a = tcp_pair(l); a.close()")
        shown.wait("CLOSE_WAIT")
        holder.do("c.close()")
        shown.wait("0 B sent, nothing received")
        holder.do("l.close()")
        holder.do("r = socket.socket(); r.setblocking(False)")
        holder.do(f"r.connect_ex(('127.0.0.1', {port}))")
        holder.do("r.close()")
        shown.wait("not established")


@pytest.mark.parametrize(
    ("arguments", "variables", "colored"),
    [
        ((), {}, True),
        ((), {"NO_COLOR": "1"}, False),
        ((), {"TERM": "dumb"}, False),
        (("--color", "never"), {}, False),
        (("--color", "always"), {"NO_COLOR": "1", "TERM": "dumb"}, True),
    ],
)
def test_colours_come_where_they_are_wanted(
    arguments: tuple[str, ...], variables: dict[str, str], colored: bool, pair: Holder
) -> None:
    shown = screen(f":{pair.do('port')}", *arguments, columns=80, **variables)
    assert bool(COLOR.search(shown.text)) == colored


def test_in_the_c_locale_only_ascii_comes(pair: Holder) -> None:
    port = pair.do("port")
    pair.do("u = socket.socket(socket.AF_UNIX); u.bind('\\0é…' + str(os.getpid()))")
    for arguments in ((), ("-a",), (f":{port}",), ("-o", "wide", str(pair.pid))):
        assert screen(*arguments, LC_ALL="C").text.isascii()
    assert "·" in screen(f":{port}").text


def test_the_variable_changes_the_format_of_terminals(pair: Holder) -> None:
    lines = screen("--pid", str(pair.pid), SOCKAGENT_OUTPUT="ndjson").lines()
    assert {json.loads(line)["pid"] for line in lines} == {pair.pid}
    assert screen("-o", "pid", str(pair.pid), SOCKAGENT_OUTPUT="csv").lines() == [str(pair.pid)]
    assert screen(SOCKAGENT_OUTPUT="nonsense").process.returncode == 2


def test_no_control_character_of_a_process_reaches_the_terminal(holder: Holder) -> None:
    code = f"import time; open('/proc/self/comm', 'wb').write({EVIL_NAME.encode()!r})\n"
    code += f"import socket; s = socket.socket(socket.AF_UNIX); s.bind('\\0' + {EVIL_PATH!r})\n"
    code += "s.listen(); t = socket.create_server(('127.0.0.1', 0))\n"
    code += "print(t.getsockname()[1], flush=True); time.sleep(60)"
    argument = "\x1b[31m\x9b\u202e\r"
    with subprocess.Popen((sys.executable, "-c", code, argument), stdout=subprocess.PIPE) as other:
        try:
            assert other.stdout
            port, pid = int(other.stdout.readline()), str(other.pid)
            for arguments in (
                (), ("-a",), (f":{port}",), (pid,), ("-o", "wide", "--cmdline", pid),
                ("--columns", "comm,local,cmdline", "--cmdline", pid), ("-o", "csv", pid),
            ):  # fmt: skip
                text = "\n".join(COLOR.sub("", line) for line in screen(*arguments).lines())
                if arguments[-2:] != ("csv", pid):
                    assert r"\x1b[2J\x07" in text, arguments
                assert not CONTROL.findall(text), arguments
                assert "\u202e" not in text
        finally:
            other.kill()


# Anything else than a terminal.


def written(kind: str, arguments: tuple[str, ...], variables: dict[str, str], path: Path) -> bytes:
    """Return what the command writes to a pipe, a file or a socket."""
    options = {
        "stdin": subprocess.DEVNULL, "timeout": DEADLINE,
        "env": environment(**variables),
    }  # fmt: skip
    command = (*COMMAND, *arguments)
    if kind == "pipe":
        return bytes(subprocess.run(command, check=True, stdout=subprocess.PIPE, **options).stdout)  # type: ignore[call-overload]
    if kind == "file":
        with path.open("wb") as file:
            subprocess.run(command, check=True, stdout=file, **options)  # type: ignore[call-overload]
        return path.read_bytes()
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            subprocess.run(command, check=True, stdout=theirs, **options)  # type: ignore[call-overload]
        with ours.makefile("rb") as file:
            return file.read()


@pytest.mark.parametrize("kind", ["pipe", "file", "socket"])
def test_what_is_no_terminal_gets_the_same_records_as_ever(
    kind: str, pair: Holder, tmp_path: Path
) -> None:
    arguments = ("--pid", str(pair.pid), "--proto", "tcp")
    plain = written("pipe", arguments, {}, tmp_path / "out")
    records = [orjson.loads(line) for line in plain.splitlines()]
    assert len(records) == 3
    assert b"".join(orjson.dumps(record) + b"\n" for record in records) == plain
    assert [*records[0]][:8] == [
        "event", "seq", "time", "host", "proto", "family", "state", "local_addr",
    ]  # fmt: skip
    for variables in VARIABLES:
        found = written(kind, arguments, variables, tmp_path / "out")
        assert CHANGING.sub(b"", found) == CHANGING.sub(b"", plain)


def test_what_is_followed_in_a_pipe_is_the_same_whatever_the_environment(pair: Holder) -> None:
    script = f'"$1" --follow --pid {pair.pid} | head -5'
    found = {
        CHANGING.sub(
            b"",
            subprocess.run(
                ("bash", "-c", script, "bash", *COMMAND), stdin=subprocess.DEVNULL,
                capture_output=True, check=True, timeout=DEADLINE, env=environment(**variables),
            ).stdout,
        ).split(b'"processes"')[0]
        for variables in ({}, *VARIABLES)
    }  # fmt: skip
    assert len(found) == 1


@pytest.mark.parametrize("sink", ["| cat", "> /dev/null", '> "$2"'])
@pytest.mark.parametrize("arguments", ["", "--proto tcp --port 1-65535", "-a"])
def test_the_views_are_not_loaded_for_what_is_no_terminal(
    sink: str, arguments: str, tmp_path: Path
) -> None:
    script = f"{sys.executable} -X importtime -m agent {arguments} {sink}"
    done = subprocess.run(
        ("bash", "-c", script, "bash", COMMAND[0], str(tmp_path / "out")),
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True, timeout=DEADLINE,
        env=environment(SOCKAGENT_OUTPUT="table"), cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert "agent.stream.encoder" in done.stderr
    assert not VIEWS.findall(done.stderr)


def test_the_order_of_arguments_does_not_matter(pair: Holder) -> None:
    port = pair.do("port")
    first, second = (
        run("-o", "csv", f":{port}", "-t").stdout, run("-t", f":{port}", "-o", "csv").stdout
    )  # fmt: skip
    assert first == second
    assert os.linesep in first
