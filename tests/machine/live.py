"""An agent that serves the feed."""

from __future__ import annotations

import re
import subprocess
import tempfile
import time
from collections.abc import Sequence
from typing import Self

from .helpers import COMMAND, DEADLINE

_LISTENING = re.compile(r"^sockagent: listening on ([^,\n]*)", re.MULTILINE)


class Agent:
    """``sockagent --listen``, on a free port unless another address is given."""

    def __init__(
        self,
        *arguments: str,
        listen: str = "127.0.0.1:0",
        command: Sequence[str] = COMMAND,
        stdout: int = subprocess.DEVNULL,
        interval: float | None = 0.1,
    ) -> None:
        """``interval``: None of a relay, which does not poll."""
        self._stdout = stdout
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 (closed at exit)
        self._arguments = (*command, "--listen", listen, *arguments)
        if interval is not None:
            self._arguments += ("--interval", str(interval))
        self.process = self._started()

    def _started(self) -> subprocess.Popen[bytes]:
        self._from = self._stderr.seek(0, 2)
        process = subprocess.Popen(
            self._arguments, stdin=subprocess.DEVNULL, stdout=self._stdout,
            stderr=self._stderr,
        )  # fmt: skip
        end = time.monotonic() + DEADLINE
        while True:
            found = _LISTENING.findall(self.stderr())
            if found:
                break
            assert process.poll() is None, self.stderr()
            assert time.monotonic() < end, self.stderr()
            time.sleep(0.01)
        self.url = found[0]
        return process

    def restart(self) -> None:
        """Stop the agent, and start it again at the same address."""
        self.stop()
        self.start_again()

    def crash(self) -> None:
        """Kill the agent."""
        self.process.kill()
        self.process.wait()

    def start_again(self) -> None:
        """Start the agent, which ended, at the same address."""
        arguments = list(self._arguments)
        arguments[arguments.index("--listen") + 1] = self.address
        self._arguments = tuple(arguments)
        self.process = self._started()

    @property
    def address(self) -> str:
        """The address: HOST:PORT or unix:PATH."""
        return re.sub(r"^wss?://|/events$", "", self.url)

    def stderr(self) -> str:
        """Return what the agent wrote to stderr since it started."""
        self._stderr.seek(self._from)
        return self._stderr.read().decode()

    def stop(self) -> float:
        """Stop the agent; return how many seconds that took."""
        begun = time.monotonic()
        self.process.terminate()
        assert self.process.wait(DEADLINE) == 0, self.stderr()
        assert "Traceback" not in self.stderr(), self.stderr()
        return time.monotonic() - begun

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_raised: object) -> None:
        try:
            if kind is None and self.process.poll() is None:
                self.stop()
        finally:
            self.process.kill()
            self.process.wait()
            self._stderr.close()
