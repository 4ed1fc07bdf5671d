"""Both ends of a fleet as commands, for tests: a publisher and a reader, and what they say."""

from __future__ import annotations

import re
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

from .helpers import COMMAND
from .test_publish_nats import Server

# With the time that a publisher waits for an answer, on a busy machine.
SECONDS = 40.0
# Said once of a run, whatever happens.
_NOT_OF_THE_BROKER = "may not be read"


class Side:
    """A running command: its lines on stderr, without those that are not about the broker."""

    def __init__(self, *arguments: str, environment: Mapping[str, str] | None = None) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed at exit)
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 (closed at exit)
        self.process = subprocess.Popen(
            (*COMMAND, *arguments), stdin=subprocess.DEVNULL, stdout=self._output,
            stderr=self._errors, env=environment,
        )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_raised: object) -> None:
        self.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(SECONDS)
        self.process.kill()
        self.process.wait()
        self._errors.close()
        self._output.close()

    def lines(self) -> list[str]:
        """Return what was said."""
        self._errors.seek(0)
        lines = self._errors.read().decode().splitlines()
        return [line for line in lines if _NOT_OF_THE_BROKER not in line]

    def output(self) -> str:
        """Return what was printed."""
        self._output.seek(0)
        return self._output.read().decode()

    def until_said(self, pattern: str) -> None:
        """Wait for a line that is as the pattern says, which must be the only one."""
        self._wait(lambda: bool(self.lines()))
        (line,) = self.lines()
        assert re.fullmatch(pattern, line), line

    def until_said_last(self, line: str) -> None:
        """Wait until the last line is this one; what was said before is trouble with the broker."""
        self._wait(lambda: self.lines()[-1:] == [line])
        assert all(line.startswith("sockagent: tls://") for line in self.lines())

    def until_printed(self, text: str) -> None:
        """Wait until something is printed."""
        self._wait(lambda: text in self.output())

    def _wait(self, holds: object) -> None:
        assert callable(holds)
        end = time.monotonic() + SECONDS
        while not holds():
            assert time.monotonic() < end, self.lines()
            time.sleep(0.05)


class Ends:
    """Publishers of the agent at a unix socket, and readers."""

    def __init__(self, agent: str) -> None:
        self._agent = agent

    def publisher(self, url: str, *more: str, environment: Mapping[str, str] | None = None) -> Side:
        """Start a publisher."""
        words = ("--connect", self._agent, "--publish", url, *more)
        return Side(*words, environment=environment)

    @staticmethod
    def reader(url: str, *more: str, environment: Mapping[str, str] | None = None) -> Side:
        """Start a reader, which prints what there is and goes on."""
        return Side("--connect", url, "--since", "start", *more, environment=environment)


@contextmanager
def started(directory: Path, more: str = "") -> Iterator[Server]:
    """Start a broker, and end it. ``more`` is a part of its configuration."""
    server = Server(directory, more)
    try:
        yield server
    finally:
        server.kill()


def make_certificate(directory: Path, name: str, issuer: Path | None = None) -> Path:
    """Make a CA, or a certificate for loopback that the CA at ``issuer`` signed; return its path.
    The key is beside it, as .key."""
    path = directory / f"{name}.pem"
    command: Sequence[str] = (
        "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
        "-nodes", "-keyout", str(path.with_suffix(".key")), "-out", str(path), "-days", "2",
        "-subj", f"/CN={name}",
    )  # fmt: skip
    if issuer is not None:
        command = (
            *command, "-CA", str(issuer), "-CAkey", str(issuer.with_suffix(".key")), "-addext",
            "subjectAltName=DNS:localhost,IP:127.0.0.1", "-addext",
            "basicConstraints=critical,CA:FALSE",
        )  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)
    return path
