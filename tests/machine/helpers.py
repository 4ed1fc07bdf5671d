"""Shared by these tests: the command, a followed stream, a process that holds sockets."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

Record = dict[str, Any]
Key = tuple[int | None, int]

DEADLINE = 20.0
COMMAND = (str(Path(sys.executable).with_name("sockagent")),)
HOLDER = Path(__file__).with_name("holder.py")
# Options that filter nothing: with others, sequence numbers have gaps.
_UNFILTERED = {"--interval", "--cmdline", "--stats", "--proc", "--follow", "--all"}
# Fields whose changes make no `update`, and fields of the record itself.
_NOT_COMPARED = {
    "recv_q",
    "send_q",
    "cmdline",
    "peer_pid",
    "event",
    "seq",
    "time",
    "time_source",
    "host",
    "previous",
}


def must_have(there: object, reason: str) -> None:
    """Skip the test unless ``there`` holds; in CI, where the test must run, fail it."""
    if there:
        return
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def need_root() -> None:
    must_have(os.geteuid() == 0, "only root may do this")


def need_tool(name: str) -> str:
    found = shutil.which(name)
    must_have(found, f"{name} is not installed")
    return str(found)


def run(
    *arguments: str, command: Sequence[str] = COMMAND, **options: Any
) -> subprocess.CompletedProcess[str]:
    """Run the command; return its output and status."""
    done = subprocess.run(
        (*command, *arguments),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE,
        **options,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


def snapshot(*arguments: str, command: Sequence[str] = COMMAND, **options: Any) -> list[Record]:
    """Return the records of a one-shot snapshot."""
    done = run(*arguments, command=command, **options)
    assert done.returncode == 0, done.stderr
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert {record["event"] for record in records} <= {"snapshot"}
    return records


def by_key(records: Sequence[Record]) -> dict[Key, Record]:
    """Return records by (pid, inode), which must be unique."""
    found = {(record["pid"], record["inode"]): record for record in records}
    assert len(found) == len(records)
    return found


def by_inode(records: Sequence[Record]) -> dict[int, Record]:
    """Return records by inode, which must be unique."""
    found = {record["inode"]: record for record in records}
    assert len(found) == len(records)
    return found


class Follow:
    """``sockagent --follow``: its records, checked, and folded to a state by (pid, inode)."""

    def __init__(
        self,
        *arguments: str,
        interval: float = 0.1,
        command: Sequence[str] = COMMAND,
        stderr: int | None = None,
    ) -> None:
        self.fold: dict[Key, Record] = {}
        self.records: list[Record] = []
        self.seq = 0
        self._gapless = {text for text in arguments if text.startswith("--")} <= _UNFILTERED
        self._counted: int | None = None  # Records of the current snapshot.
        self._snapshots = "--event" not in arguments
        self._rest = b""
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 (closed at exit)
        self.process = subprocess.Popen(
            (*command, "--follow", "--interval", str(interval), *arguments),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._stderr if stderr is None else stderr,
        )
        assert self.process.stdout
        self._stdout = self.process.stdout.fileno()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if self.process.poll() is None:
                self.process.terminate()
            status = self.process.wait(DEADLINE)
        finally:
            self.process.kill()
            self.process.wait()
            assert self.process.stdout
            self.process.stdout.close()
            stderr = self.stderr()
            self._stderr.close()
        if kind is None:
            assert "Traceback" not in stderr, stderr
            assert status == 0, stderr

    def stderr(self) -> str:
        # pread: the process writes at the offset that both share.
        size = os.fstat(self._stderr.fileno()).st_size
        return os.pread(self._stderr.fileno(), size, 0).decode()

    def started(self) -> Self:
        """Wait for the end of the first snapshot."""
        self.wait(event="snapshot_end")
        return self

    def until(self, holds: Callable[[], object], timeout: float = DEADLINE) -> None:
        """Read records until the condition holds."""
        end = time.monotonic() + timeout
        while not holds():
            left = end - time.monotonic()
            if left <= 0:
                raise TimeoutError("the condition never held")
            self.read(min(left, 0.1))

    def wait(self, **fields: object) -> Record:
        """Return the first record with these fields; wait for it."""
        at = 0

        def found() -> bool:
            nonlocal at
            while at < len(self.records):
                record = self.records[at]
                if all(record.get(name) == value for name, value in fields.items()):
                    return True
                at += 1
            return False

        try:
            self.until(found)
        except TimeoutError:
            last = "\n".join(map(str, self.records[-10:]))
            pytest.fail(f"no record with {fields}; the last were\n{last}\n{self.stderr()}")
        return self.records[at]

    def of(self, pid: int | None) -> dict[int, Record]:
        """Return the state of a process: records by inode."""
        return {key[1]: record for key, record in self.fold.items() if key[0] == pid}

    def read(self, seconds: float) -> None:
        """Read what is available; wait at most so many seconds."""
        if not select.select([self._stdout], [], [], seconds)[0]:
            return
        data = os.read(self._stdout, 1 << 20)
        assert data, f"the stream ended: {self.stderr()}"
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._take(json.loads(line))

    def _take(self, record: Record) -> None:
        event, seq = record["event"], record["seq"]
        assert (event == "hello") == (not self.records)
        self.records.append(record)
        if event == "hello":
            self.seq, self._counted = seq, 0 if self._snapshots else None
        elif event == "lost":
            assert record["from"] == self.seq + 1
            assert record["to"] == seq >= record["from"]
            self.fold.clear()
            self.seq, self._counted = seq, 0
        elif event in {"snapshot", "snapshot_end", "heartbeat"}:
            assert seq >= self.seq if event == "heartbeat" else seq == self.seq
            if event != "heartbeat":
                self._take_snapshot(record)
        else:
            assert self._counted is None, f"{event} inside a snapshot"
            assert seq == self.seq + 1 if self._gapless else seq > self.seq
            self.seq = seq
            if event != "coverage":
                self._take_delta(record)

    def _take_snapshot(self, record: Record) -> None:
        assert self._counted is not None, "a snapshot without hello or lost"
        if record["event"] == "snapshot_end":
            assert record["count"] == self._counted
            self._counted = None
        else:
            self._counted += 1
            self._open(record)

    def _take_delta(self, record: Record) -> None:
        key = (record["pid"], record["inode"])
        if record["event"] == "open":
            self._open(record)
            return
        assert key in self.fold, f"{record['event']} of a socket that is not open: {record}"
        if record["event"] == "close":
            del self.fold[key]
            return
        assert record["event"] == "update", record
        was = self.fold[key]
        changed = {
            name: was.get(name)
            for name, value in record.items()
            if name not in _NOT_COMPARED and was.get(name) != value
        }
        assert record["previous"] == changed
        self.fold[key] = {name: value for name, value in record.items() if name != "previous"}

    def _open(self, record: Record) -> None:
        key = (record["pid"], record["inode"])
        assert key not in self.fold, f"{record['event']} of a socket that is open: {record}"
        self.fold[key] = record


class Holder:
    """A process that opens and closes sockets on request."""

    def __init__(self, command: Sequence[str] = (sys.executable,), script: Path = HOLDER) -> None:
        self.process = subprocess.Popen(
            (*command, "-S", str(script)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd="/",
        )
        self.pid = self.process.pid
        self.address = str(self.do("OWN"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_raised: object) -> None:
        self.end()

    def do(self, code: str) -> Any:
        """Run statements, or evaluate an expression and return its value."""
        assert self.process.stdin
        assert self.process.stdout
        print(json.dumps(code), file=self.process.stdin, flush=True)
        ready = select.select([self.process.stdout], [], [], DEADLINE)[0]
        line = self.process.stdout.readline() if ready else ""
        assert line, f"no answer to {code}"
        answer = json.loads(line)
        if "error" in answer:
            raise OSError(answer["error"])
        return answer["value"]

    def open(self, code: str) -> int:
        """Open a socket, named by the first word of the code; return its inode."""
        name = code.split(maxsplit=1)[0]
        self.do(code)
        return int(self.do(f"inode({name})"))

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe:
                pipe.close()
