"""A process that is killed and started again."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

from ..agents import ROOT

_END_SECONDS = 10.0
_LOG_BYTES = 2000


class Process:
    """A process that is killed and started again. ``output`` is the file for what it prints; by
    default that goes to the log too."""

    def __init__(self, argv: Sequence[str], log: Path, output: Path | None = None) -> None:
        self._argv = argv
        self._log = log
        self._output = log if output is None else output
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it."""
        self._start()

    def _start(
        self, stdin: int = subprocess.DEVNULL, stdout: int | None = None, state: int | None = None
    ) -> None:
        """Start it with these descriptors; the variable STATE has the path of the last one."""
        passed = () if state is None else (state,)
        with self._log.open("ab") as log, self._output.open("ab") as output:
            self._process = subprocess.Popen(
                # It ends with the bench, whatever ends that.
                ("setpriv", "--pdeathsig", "KILL", *self._argv),
                cwd=ROOT, stdin=stdin, stdout=output if stdout is None else stdout, stderr=log,
                pass_fds=passed, env=os.environ | {"STATE": f"/proc/self/fd/{state}"},
            )  # fmt: skip

    def send(self, number: int) -> None:
        """Send a signal."""
        if self._process is not None:
            self._process.send_signal(number)

    def kill(self) -> None:
        """End it at once."""
        self.send(signal.SIGKILL)
        self.wait()

    def stop(self) -> None:
        """End it as a service manager does."""
        self.send(signal.SIGTERM)
        self.wait()

    def wait(self) -> None:
        """Wait for its end; kill it if there is none."""
        if self._process is None:
            return
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    @property
    def status(self) -> int | None:
        """Its exit status; None while it runs."""
        return None if self._process is None else self._process.poll()

    def log(self) -> str:
        """Return the end of what it wrote to stderr."""
        return self._log.read_bytes()[-_LOG_BYTES:].decode(errors="replace")
