"""The man page in man(1), and the completions in bash, zsh and fish."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import time
from pathlib import Path

import pytest

from agent.grammar import build_parser
from agent.stream.filters import FILTERS, Filter

from .helpers import need_tool

SHARE = Path(__file__).parents[2] / "share"
# No shell takes as long to start and complete a word, unless it waits for ever.
HANG_SECONDS = 20.0
COMPINIT = " autoload -Uz compinit; compinit -u -D"
START = {
    "bash": (
        ["bash", "--noprofile", "--norc", "-i"],
        f"source {SHARE}/bash-completion/completions/sockagent",
    ),
    "zsh": (
        ["zsh", "-f", "-i"],
        f"fpath=({SHARE}/zsh/site-functions $fpath); unsetopt auto_remove_slash;" + COMPINIT,
    ),
}


def test_the_man_page_renders_without_warnings() -> None:
    need_tool("man")
    page = str(SHARE / "man/man1/sockagent.1")
    done = subprocess.run(
        ["man", "--warnings", "-l", page], capture_output=True, text=True, check=True,
        env={**os.environ, "LC_ALL": "C.UTF-8", "MANWIDTH": "100"},
    )  # fmt: skip
    assert done.stderr == ""
    text = done.stdout
    assert "sockagent - report which process opened or closed which socket" in text
    for name in {name for action in build_parser()._actions for name in action.option_strings}:
        assert name in ("-h", "--help") or re.search(
            rf"^ +(-\w( [A-Z]+)?, )?{name}\b", text, re.MULTILINE
        )


def test_the_completed_values_of_filters_are_accepted() -> None:
    script = (SHARE / "bash-completion/completions/sockagent").read_text(encoding="utf-8")
    values = dict(re.findall(r"^_shtab_sockagent___(\w+)_choices=\((.*)\)$", script, re.MULTILINE))
    assert values.keys() - FILTERS.keys() == {
        "events", "source", "color", "output", "publish_encoding"
    }  # fmt: skip
    for name in values.keys() & FILTERS.keys():
        Filter({name: values[name].split()})


def type_in(shell: str, line: str) -> str:
    """Return what an interactive shell makes of a line when TAB is pressed at its end."""
    need_tool(shell)
    command, setup = START[shell]
    process, terminal = pty.fork()
    if not process:
        os.execvpe(command[0], command, {"PATH": os.environ["PATH"], "TERM": "dumb"})
    try:
        # Ctrl-A moves to the beginning of the line.
        show = "show() { printf '<%s>' \"$@\"; echo; }"
        os.write(terminal, f"{setup}; {show}\n{line}\t\x01show END \n".encode())
        output = ""
        deadline = time.monotonic() + HANG_SECONDS
        while not (found := re.search(r"<END>(.*?)\r?\n", output)):
            ready, _, _ = select.select([terminal], [], [], deadline - time.monotonic())
            assert ready, output
            output += os.read(terminal, 4096).decode()
    finally:
        os.close(terminal)
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
    return found[1]


def complete(shell: str, line: str) -> list[str]:
    """Return the completed words of a line of which one completion is possible."""
    if shell != "fish":
        return re.findall(r"<(.*?)>", type_in(shell, line))
    need_tool("fish")
    script = f"source {SHARE}/fish/vendor_completions.d/sockagent.fish; complete -C $argv"
    done = subprocess.run(
        ["fish", "--no-config", "-c", script, line], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    words = [found.split("\t")[0] for found in done.stdout.splitlines()]
    assert len(words) == 1, words
    return [*line.split()[:-1], words[0]]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("--foll", "--follow"),
        ("--follow --max-clients-per", "--follow --max-clients-per-address"),
        ("--source n", "--source netlink"),
        ("--source=n", "--source=netlink"),
        ("--event=sn", "--event=snapshot"),
        ("--event open --event cl", "--event open --event close"),
        ("--proto udpl", "--proto udplite"),
        ("--state LIS", "--state LISTEN"),
        ("--direction o", "--direction outbound"),
        ("--scope ext", "--scope external"),
        ("--output nd", "--output ndjson"),
        ("-o nd", "-o ndjson"),
        ("nginx --foll", "nginx --follow"),
        ("-l --proto udpl", "-l --proto udplite"),
        ("--token-file {}/to", "--token-file {}/tokens"),
        ("--token-file={}/to", "--token-file={}/tokens"),
        ("--proc {}/pr", "--proc {}/proc/"),
        ("--listen un", "--listen unix:"),
        ("--listen unix:{}/so", "--listen unix:{}/socket"),
        ("--listen=unix:{}/so", "--listen=unix:{}/socket"),
        ("--connect unix:{}/so", "--connect unix:{}/socket"),
        ("ev", "events"),
        ("pa", "page"),
        ("page --no-o", "page --no-open"),
        ("top --read-o", "top --read-only"),
        ("page --source n", "page --source netlink"),
        ("events en", "events enable"),
        ("events st", "events status"),
        ("events enable --ud", "events enable --udp"),
    ],
)
def test_a_shell_completes(shell: str, typed: str, completed: str, tmp_path: Path) -> None:
    (tmp_path / "tokens").touch()
    (tmp_path / "socket").touch()
    (tmp_path / "proc").mkdir()
    words = complete(shell, f"sockagent {typed.format(tmp_path)}")
    assert words == ["sockagent", *completed.format(tmp_path).split()]


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_a_path_with_a_space_is_quoted(shell: str, tmp_path: Path) -> None:
    (tmp_path / "a token file").touch()
    words = complete(shell, f"sockagent --token-file {tmp_path}/a")
    assert words == ["sockagent", "--token-file", f"{tmp_path}/a token file"]
