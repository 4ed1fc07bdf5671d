"""``sockagent top`` on a terminal, end to end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.publish.top.signal import NotSent, Target, send, start_ticks

from .helpers import DEADLINE, Holder, need_root
from .live import Agent
from .tmux import PROMPT, Tmux

LIVE = "live"
# A poll each 0.2 s: three of them take less than a second.
FAST = "--interval 0.2"


@pytest.fixture
def tmux() -> Iterator[Tmux]:
    with Tmux(100, 24) as tmux:
        yield tmux


@pytest.fixture
def pair(holder: Holder) -> Holder:
    """A listener, and a connection to it."""
    holder.do("l = tcp_listener(); c, a = tcp_pair(l); port = l.getsockname()[1]")
    return holder


def test_start_filter_drill_down_resize_pause_quit(tmux: Tmux, pair: Holder) -> None:
    port = pair.do("port")
    tmux.start(f"top {FAST}")
    tmux.wait(LIVE)
    tmux.press("/")
    tmux.type(f"pid={pair.pid}")
    tmux.press("Enter")
    tmux.wait(f"filter: pid={pair.pid}")
    tmux.until(lambda shown: len(rows(shown)) == 1)
    tmux.press("Enter")
    tmux.wait(f"sockets of python[{pair.pid}]")
    tmux.wait(f"127.0.0.1:{port}")
    tmux.press("Enter")
    tmux.wait("start_time")
    tmux.resize(60, 15)
    tmux.until(lambda shown: len(shown.splitlines()) == 15 and "q quit" in shown.splitlines()[-1])
    tmux.resize(200, 60)
    tmux.until(lambda shown: "q quit" in shown.splitlines()[-1] and "fd_count" in shown)
    tmux.press("Escape")
    tmux.wait("sockets of")
    tmux.press("Escape")
    tmux.wait("by process")
    tmux.press("Space")
    tmux.wait("paused, ")
    # Others may open and close sockets meanwhile: only the number of these is known.
    pair.do("more = [tcp_pair(l) for _ in range(20)]")
    behind = tmux.until(lambda shown: number_behind(shown) >= 40)
    assert len(rows(behind)) == 1
    assert rows(behind)[0].split()[5:7] == ["1", "1"]
    tmux.press("Space")
    tmux.until(lambda shown: rows(shown)[0].split()[5:7] == ["21", "21"])
    tmux.press("q")
    tmux.check_restored()


def test_the_size_is_that_of_the_terminal_whatever_the_environment_says(tmux: Tmux) -> None:
    tmux.start(f"top {FAST}", "LINES=7 COLUMNS=44")
    tmux.wait(LIVE)
    tmux.until(lambda shown: len(shown.splitlines()) == 24 and "q quit" in shown.splitlines()[-1])
    tmux.press("q")
    tmux.check_restored()


def rows(shown: str) -> list[str]:
    """Return the rows of the grid."""
    return [line for line in shown.splitlines()[4:-1] if line.strip()]


def number_behind(shown: str) -> int:
    words = shown.split()
    return int(words[words.index("paused,") + 1].replace(",", "")) if "paused," in words else -1


@pytest.mark.parametrize("how", ["q", "C-c", "TERM", "HUP", "at once"])
def test_the_terminal_is_restored(how: str, tmux: Tmux) -> None:
    tmux.start(f"top {FAST}")
    if how == "at once":
        tmux.until(lambda _shown: tmux.mode("alternate_on") == "1")
        os.kill(tmux.pid(), signal.SIGTERM)
    else:
        tmux.wait(LIVE)
        if how in ("TERM", "HUP"):
            os.kill(tmux.pid(), signal.SIGTERM if how == "TERM" else signal.SIGHUP)
        else:
            tmux.press(how)
    tmux.check_restored()
    assert "Traceback" not in tmux.text()


def test_the_exit_status_is_0(tmux: Tmux) -> None:
    tmux.type("clear")
    tmux.press("Enter")
    tmux.start("top; echo status-$((0 + $?))")
    tmux.wait(LIVE)
    tmux.press("q")
    tmux.wait("status-0")


def test_it_can_be_suspended_and_goes_on(tmux: Tmux) -> None:
    tmux.start(f"top {FAST}")
    tmux.wait(LIVE)
    tmux.press("C-z")
    tmux.wait("Stopped")
    tmux.wait_for_shell()
    tmux.type("fg")
    tmux.press("Enter")
    tmux.wait(LIVE)
    tmux.press("q")
    tmux.check_restored()


def test_after_a_crash_the_terminal_is_restored(tmux: Tmux) -> None:
    """What ends the screen is an error of the code: its traceback is printed, without values."""
    code = (
        "import sys; from agent.publish.top import watch; "
        "watch.Watch.alarms = lambda self, now: 1 / 0; "
        "from agent.__main__ import entry; sys.argv = ['sockagent', 'top']; entry()"
    )
    (tmux.path / "crash.py").write_text(code)
    root = Path(__file__).parents[2]
    tmux.type(f"PYTHONPATH={root} {sys.executable} crash.py")
    tmux.press("Enter")
    tmux.wait("ZeroDivisionError")
    tmux.check_restored()


def test_a_leak_and_a_full_queue_are_on_the_alarm_line(tmux: Tmux, holder: Holder) -> None:
    holder.do("l = tcp_listener(); pairs = [tcp_pair(l) for _ in range(13)]")
    holder.do("q = socket.socket(); q.bind(('127.0.0.1', 0)); q.listen(1)")
    port = holder.do("q.getsockname()[1]")
    tmux.resize(1000, 24)  # Other programs of this machine may cause alarms too.
    tmux.start("top")  # A poll each second.
    tmux.wait(LIVE)
    holder.do("[c.close() for c, _a in pairs]")
    holder.do("waiting = [socket.socket() for _ in range(4)]")
    holder.do("[w.setblocking(False) for w in waiting]")
    holder.do("[w.connect_ex(q.getsockname()) for w in waiting]")
    tmux.until(lambda shown: f"13 CLOSE_WAIT in python[{holder.pid}]" in shown.splitlines()[1])
    tmux.until(lambda shown: f"accept queue full: 127.0.0.1:{port} (2/1)" in shown.splitlines()[1])
    # All of them: those that did not fit come in when others leave.
    holder.do("accepted = [q.accept() for _ in range(4)]")
    tmux.until(lambda shown: f"accept queue full: 127.0.0.1:{port} " not in shown.splitlines()[1])
    tmux.press("q")
    tmux.check_restored()


def test_the_signal_reaches_the_process(tmux: Tmux) -> None:
    code = "import socket, time; s = socket.create_server(('127.0.0.1', 0)); time.sleep(60)"
    with subprocess.Popen((sys.executable, "-c", code)) as process:
        try:
            tmux.start(f"top {FAST} {process.pid}")
            tmux.wait(f" {process.pid} ")
            tmux.press("k")
            tmux.wait("Type TERM or KILL")
            tmux.type("TERM")
            tmux.press("Enter")
            assert process.wait(DEADLINE) == -signal.SIGTERM
            tmux.wait("TERM was sent to python")
        finally:
            process.kill()
    tmux.press("q")
    tmux.check_restored()


def test_read_only_sends_nothing(tmux: Tmux, pair: Holder) -> None:
    tmux.start(f"top {FAST} --read-only {pair.pid}")
    tmux.wait(f" {pair.pid} ")
    tmux.press("k")
    tmux.wait("signals are off: --read-only")
    assert pair.process.poll() is None


def test_a_pid_that_is_used_again_gets_no_signal() -> None:
    """The process that was chosen has ended, and another one has its pid."""
    need_root()
    last = Path("/proc/sys/kernel/ns_last_pid")
    for _ in range(200):  # Another process may take the pid first.
        with subprocess.Popen(("sleep", "60")) as chosen:
            target = Target(chosen.pid, start_ticks(chosen.pid), "sleep", 0.0, None)
            chosen.kill()
        time.sleep(2 / os.sysconf("SC_CLK_TCK"))  # The new one starts in a later tick.
        last.write_text(str(target.pid - 1))
        with subprocess.Popen(("sleep", "60")) as other:
            try:
                if other.pid != target.pid:
                    continue
                with pytest.raises(NotSent, match="another process"):
                    send(target, signal.SIGKILL)
                assert other.poll() is None
                return
            finally:
                other.kill()
    pytest.fail("the pid was never used again")


def test_a_remote_agent_that_is_lost_is_named(tmux: Tmux, pair: Holder) -> None:
    with Agent() as agent:
        tmux.resize(180, 24)
        tmux.start(f"top --connect ws://{agent.address} {pair.pid}")
        tmux.wait(f" {pair.pid} ")
        tmux.until(lambda shown: LIVE in shown.splitlines()[0])
        tmux.wait("queues at record time")
        tmux.press("k")
        tmux.wait("signals are off: only for processes of this machine")
    tmux.until(lambda shown: "cut off since" in shown.splitlines()[0])
    tmux.press("q")
    tmux.check_restored()


def test_an_agent_that_refuses_ends_it_with_a_sentence(tmux: Tmux, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("0123456789abcdef\n")
    tokens.chmod(0o600)
    with Agent("--token-file", str(tokens)) as agent:
        tmux.resize(180, 24)
        tmux.start(f"top --connect ws://{agent.address}")
        tmux.wait("401")
        tmux.check_restored()


def test_a_recording_moves_in_time(tmux: Tmux, pair: Holder) -> None:
    path = tmux.path / "recording.ndjson"
    root = Path(__file__).parents[2]
    with path.open("wb") as file:
        recorder = subprocess.Popen(
            (sys.executable, "-m", "agent", "-f", "--interval", "0.2", "--pid", str(pair.pid)),
            stdout=file, cwd=root,
        )  # fmt: skip
        try:
            wait_for(path, b"snapshot_end")
            pair.do("d, b = tcp_pair(l)")
            wait_for(path, b'"event":"open"', 2)  # Of both ends.
            time.sleep(2)  # The arrow keys move by seconds.
            pair.do("d.close(); b.close()")
            wait_for(path, b'"event":"close"', 2)
        finally:
            recorder.terminate()
            recorder.wait(DEADLINE)
    tmux.start("top --read recording.ndjson")
    shown = tmux.wait("end of the recording")
    assert rows(shown)[0].split()[5:7] == ["1", "1"]
    tmux.press("Left")
    tmux.until(lambda shown: rows(shown) and rows(shown)[0].split()[5:7] == ["2", "2"])
    tmux.press("S-Left")
    tmux.until(lambda shown: rows(shown) and rows(shown)[0].split()[5:7] == ["1", "1"])
    tmux.press("q")
    tmux.check_restored()


def wait_for(path: Path, part: bytes, count: int = 1) -> None:
    """Wait until a file has a text so many times."""
    end = time.monotonic() + DEADLINE
    while path.read_bytes().count(part) < count:
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.parametrize("sink", ["| cat", "> out", "< /dev/null"])
def test_without_a_terminal_one_sentence_comes(sink: str, tmux: Tmux) -> None:
    tmux.start(f"top {sink}; echo status-$((0 + $?))")
    tmux.wait("is not a terminal; use sockagent --follow")
    tmux.wait(PROMPT.strip())


def test_messages_on_stderr_do_not_need_a_terminal(tmux: Tmux) -> None:
    tmux.start(f"top {FAST} 2> errors")
    tmux.wait(LIVE)
    tmux.press("q")
    tmux.check_restored()
    assert "\x1b" not in (tmux.path / "errors").read_text()
