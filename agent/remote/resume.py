"""Position in the stream of a remote agent: where to resume, and which records were lost."""

from __future__ import annotations

from orjson import OPT_APPEND_NEWLINE, JSONDecodeError, dumps, loads

from ..text import safe_lines


class InvalidFeed(ValueError):
    """A message that is not of a sockagent stream."""


class ResumePosition:
    """The position in a remote stream, over all connections to its agent. ``snapshots``: whether
    the stream includes snapshots, and is complete only after one."""

    def __init__(self, *, snapshots: bool = True) -> None:
        self.host = ""  # Of the agent, from its first message.
        self._snapshots = snapshots
        self._epoch: str | None = None
        self._seq = 0
        self._is_complete = False  # Whether the records so far are enough to resume.

    @property
    def resume(self) -> tuple[str, int] | None:
        """The (epoch, seq) after which to resume; None: a new snapshot is needed."""
        return None if self._epoch is None or not self._is_complete else (self._epoch, self._seq)

    def pass_on(self, message: bytes, *, is_first: bool) -> bytes:
        """Return the records of a message, ``lost`` added before them if there is a gap.
        ``is_first``: the message is the first one of a connection. Raises InvalidFeed."""
        try:
            records = [loads(line) for line in message.split(b"\n") if line]
            for record in records:
                if not isinstance(record["event"], str):
                    raise InvalidFeed
                _number(record["seq"])
            first, last = records[0], records[-1]
            message = safe_lines(message)  # The agent may be of any version.
            # Later in a connection, hello means that the filters of the agent have changed.
            if is_first or first["event"] == "hello":
                return self._start(first) + message
            if last["event"] == "snapshot_end":
                self._is_complete = True
            elif first["event"] == "lost":
                self._is_complete = not self._snapshots
            self._seq = _number(last["seq"])
        except (JSONDecodeError, LookupError, TypeError) as error:
            raise InvalidFeed from error
        return message

    def _start(self, hello: dict[str, object]) -> bytes:
        """Apply a ``hello`` record; return a ``lost`` record if earlier records are missing."""
        if hello["event"] != "hello":
            raise InvalidFeed
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
        self.host = str(hello["host"])
        self._epoch = epoch
        return lost


def _number(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError
    return value
