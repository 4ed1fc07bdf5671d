"""Where a remote stream is to be resumed, told from what it sent; and what of it is to be said when
it cannot be. Pure: it knows records, and nothing of connections.
"""

from __future__ import annotations

from orjson import OPT_APPEND_NEWLINE, JSONDecodeError, dumps, loads

from ..text import escape_controls


class InvalidFeed(ValueError):
    """What came is not the stream of an agent."""


class ResumePosition:
    """How far one remote stream has come, over all of its connections.

    ``snapshots``: whether the stream begins with one, so that it is whole only with its end.
    """

    def __init__(self, *, snapshots: bool = True) -> None:
        self.host = ""  # Of the agent, once it greeted.
        self._snapshots = snapshots
        self._epoch: str | None = None
        self._seq = 0
        self._whole = False  # Whether what is known adds up: it can be gone on from.
        self._greeted = False

    @property
    def resume(self) -> tuple[str, int] | None:
        """The (epoch, seq) to go on behind; None to begin anew."""
        return (self._epoch, self._seq) if self._whole and self._epoch is not None else None

    def connected(self) -> None:
        """A new connection begins: with ``hello``, if it is one to an agent."""
        self._greeted = False

    def take(self, message: bytes) -> bytes:
        """What is to be passed on of a message. Raises InvalidFeed."""
        try:
            records = [loads(line) for line in message.split(b"\n") if line]
            for record in records:
                if not isinstance(record["event"], str):
                    raise InvalidFeed
                _number(record["seq"])
            first, last = records[0], records[-1]
            if not message.endswith(b"\n"):
                message += b"\n"
            if not message.isascii() or b"\x7f" in message:  # An agent of any version.
                message = escape_controls(message.decode()).encode()
            # In the midst of a stream: the agent's own filters changed.
            if not self._greeted or first["event"] == "hello":
                return self._hello(first) + message
            if last["event"] == "snapshot_end":
                self._whole = True
            elif first["event"] == "lost":
                self._whole = not self._snapshots
            self._seq = _number(last["seq"])
        except (JSONDecodeError, LookupError, TypeError) as error:
            raise InvalidFeed from error
        return message

    def _hello(self, hello: dict[str, object]) -> bytes:
        """Take in how the stream begins; what is to be said of a gap before it."""
        if hello["event"] != "hello":
            raise InvalidFeed
        epoch, seq = str(hello["epoch"]), _number(hello["seq"])
        gap = b""
        if not hello["resumed"]:
            same = epoch == self._epoch
            if self._epoch is not None and not (same and seq == self._seq):
                gap = dumps(
                    {
                        "event": "lost",
                        "seq": seq,
                        "time": hello["time"],
                        "host": hello["host"],
                        "from": self._seq + 1,
                        # How many an agent told that has ended since, nobody knows.
                        "to": seq if same else None,
                    },
                    option=OPT_APPEND_NEWLINE,
                )
            self._whole = not self._snapshots
            self._seq = seq
        self.host = str(hello["host"])
        self._epoch = epoch
        self._greeted = True
        return gap


def _number(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError
    return value
