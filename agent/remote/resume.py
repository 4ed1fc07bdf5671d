"""Positions in the stream of a remote agent, or of several behind a relay: where to resume, and
which records were lost."""

from __future__ import annotations

from orjson import OPT_APPEND_NEWLINE, JSONDecodeError, dumps, loads

from ..stream.publication import Positions
from ..text import safe_lines

# Hosts of one stream: a remote side must not fill the memory.
MAX_HOSTS = 1000


class InvalidFeed(ValueError):
    """A message that is not of a sockagent stream."""


class ResumePosition:
    """The position in a remote stream, over all connections to its agent: one for each host.
    ``snapshots``: whether the stream includes snapshots, and is complete only after one."""

    def __init__(self, *, snapshots: bool = True) -> None:
        self._snapshots = snapshots
        self._hosts: dict[str, _HostPosition] = {}
        self._greeted: set[str] = set()  # Hosts of which this connection has had ``hello``.

    @property
    def hosts(self) -> list[str]:
        """The hosts of the stream, in the order in which they appeared."""
        return list(self._hosts)

    @property
    def resume(self) -> Positions:
        """The (epoch, seq) of each host after which to resume; those of which a new snapshot is
        needed are left out."""
        found = (host.resume for host in self._hosts.values())
        return tuple(position for position in found if position is not None)

    def pass_on(self, message: bytes, *, is_first: bool) -> bytes:
        """Return the records of a message, each ``hello`` with ``lost`` before it if there is a
        gap. ``is_first``: the message is the first one of a connection. Raises InvalidFeed."""
        if is_first:
            self._greeted.clear()
        try:
            # The agent may be of any version.
            lines = [line for line in safe_lines(message).split(b"\n") if line]
            passed = list(map(self._pass_on, lines))
            if not passed:
                raise InvalidFeed
        except (JSONDecodeError, UnicodeDecodeError, LookupError, TypeError) as error:
            raise InvalidFeed from error
        return b"".join(passed)

    def _pass_on(self, line: bytes) -> bytes:
        record = loads(line)
        event, name = record["event"], record["host"]
        if not isinstance(event, str) or not isinstance(name, str):
            raise InvalidFeed
        seq = _number(record["seq"])
        host = self._hosts.get(name)
        if event == "hello":
            if host is None:
                if len(self._hosts) >= MAX_HOSTS:
                    raise InvalidFeed
                host = self._hosts[name] = _HostPosition(snapshots=self._snapshots)
            self._greeted.add(name)
            return host.start(record) + line + b"\n"
        if host is None or name not in self._greeted:
            raise InvalidFeed
        host.advance(event, seq)
        return line + b"\n"


class _HostPosition:
    """The position in the stream of one host."""

    def __init__(self, *, snapshots: bool) -> None:
        self._snapshots = snapshots
        self._epoch: str | None = None
        self._seq = 0
        self._is_complete = False  # Whether the records so far are enough to resume.

    @property
    def resume(self) -> tuple[str, int] | None:
        """The (epoch, seq) after which to resume; None: a new snapshot is needed."""
        return None if self._epoch is None or not self._is_complete else (self._epoch, self._seq)

    def advance(self, event: str, seq: int) -> None:
        """Apply a record other than ``hello``."""
        if event == "snapshot_end":
            self._is_complete = True
        elif event == "lost":
            self._is_complete = not self._snapshots
        self._seq = seq

    def start(self, hello: dict[str, object]) -> bytes:
        """Apply a ``hello`` record; return a ``lost`` record if earlier records are missing. Later
        in a connection, it means that the filters of the agent have changed, or that the agent
        behind a relay was restarted."""
        epoch, seq = str(hello["epoch"]), _number(hello["seq"])
        lost = b""
        if not hello["resumed"]:
            is_same = epoch == self._epoch
            if self._epoch is not None and not (is_same and seq == self._seq):
                lost = dumps(
                    {
                        "event": "lost",
                        "seq": seq,
                        "time": hello["time"],
                        "host": hello["host"],
                        "from": self._seq + 1,
                        # The last number of an epoch that has ended is unknown.
                        "to": seq if is_same else None,
                    },
                    option=OPT_APPEND_NEWLINE,
                )
            self._is_complete = not self._snapshots
            self._seq = seq
        self._epoch = epoch
        return lost


def _number(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError
    return value
