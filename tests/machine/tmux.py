"""A terminal with a shell, which tests type into and read: tmux(1)."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

from .helpers import DEADLINE, need_tool
from .terminal import environment

PROMPT = "ready$ "


class Tmux:
    """A tmux server of its own with one window, in which a shell runs."""

    def __init__(self, columns: int = 80, rows: int = 24) -> None:
        need_tool("tmux")
        self._directory = tempfile.TemporaryDirectory(prefix="sockagent-")
        self.path = Path(self._directory.name)
        subprocess.run(
            (*self._command, "-f", "/dev/null", "new-session", "-d", "-x", str(columns), "-y",
             str(rows), "bash --norc --noprofile"),
            check=True, env=environment(), cwd=self.path, timeout=DEADLINE,
        )  # fmt: skip

    @property
    def _command(self) -> tuple[str, ...]:
        return ("tmux", "-S", f"{self._directory.name}/tmux")

    def _run(self, *arguments: str) -> str:
        done = subprocess.run(
            (*self._command, *arguments), check=True, capture_output=True, text=True,
            timeout=DEADLINE,
        )  # fmt: skip
        return done.stdout

    def __enter__(self) -> Self:
        try:
            self.type(f"PS1='{PROMPT}'; clear")
            self.press("Enter")
            self.until(lambda shown: shown.strip() == PROMPT.strip(), what=PROMPT)
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(self, *_raised: object) -> None:
        self.end()

    def end(self) -> None:
        """End everything that runs in the terminal."""
        subprocess.run((*self._command, "kill-server"), check=False, timeout=DEADLINE)
        self._directory.cleanup()

    # What is typed.

    def press(self, *keys: str) -> None:
        """Press keys, by tmux's names of them."""
        self._run("send-keys", *keys)

    def type(self, text: str) -> None:
        """Type text, without Enter."""
        self._run("send-keys", "-l", text)

    def start(self, arguments: str, variables: str = "") -> None:
        """Start the command of this directory in the shell, with further ``variables``."""
        root = Path(__file__).parents[2]
        self.type(f"PYTHONPATH={root} {variables} {sys.executable} -m agent {arguments}")
        self.press("Enter")

    def resize(self, columns: int, rows: int) -> None:
        """Resize the window."""
        self._run("resize-window", "-x", str(columns), "-y", str(rows))

    # What is shown.

    def text(self) -> str:
        """Return what the screen shows."""
        return self._run("capture-pane", "-p")

    def lines(self) -> list[str]:
        """Return the lines of the screen."""
        return self.text().splitlines()

    def wait(self, text: str, seconds: float = DEADLINE) -> str:
        """Wait until the screen shows a text; return the screen."""
        return self.until(lambda shown: text in shown, seconds, text)

    def until(self, holds: Callable[[str], object], seconds: float = DEADLINE,
              what: str = "") -> str:  # fmt: skip
        """Wait until a condition holds for the screen; return the screen."""
        end = time.monotonic() + seconds
        while True:
            shown = self.text()
            if holds(shown):
                return shown
            assert time.monotonic() < end, f"{what!r} never came:\n{shown}"
            time.sleep(0.05)

    def mode(self, name: str) -> str:
        """Return a mode of the terminal, by the name of tmux's format."""
        return self._run("display-message", "-p", f"#{{{name}}}").strip()

    def pid(self) -> int:
        """Return the process that the shell runs."""
        shell = self.mode("pane_pid")
        children = Path(f"/proc/{shell}/task/{shell}/children").read_text().split()
        return int(children[0])

    def wait_for_shell(self) -> None:
        """Wait until the shell reads the terminal: what is typed before may be dropped."""
        self.until(lambda _shown: self.mode("pane_current_command") == "bash", what="the shell")

    def check_restored(self) -> None:
        """Check that the terminal is as it was before: the shell reads lines and echoes."""
        self.wait_for_shell()
        # The program has ended, but tmux may still have some of its output to read.
        flags = "#{alternate_on} #{cursor_flag} #{mouse_any_flag}"
        self.until(
            lambda _shown: self._run("display-message", "-p", flags).split() == ["0", "1", "0"],
            what="a screen that is restored",
        )
        self.press("C-u")
        self.type("stty -a; echo restored-$((6 * 7))")
        self.press("Enter")
        shown = self.wait("restored-42")
        settings = shown.replace(";", " ").split()
        for name in ("icanon", "echo", "isig", "icrnl", "opost"):
            assert name in settings, shown
