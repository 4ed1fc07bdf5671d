"""A recording of a small feed, and what is printed of it."""

from __future__ import annotations

import asyncio

from agent.model import Closed, Opened, Updated
from agent.moments import Output
from agent.publish.terminal.options import Options
from agent.stream.encoder import Encoder

from .feeding import AGENT, ONE, THREE, TWO
from .make import FULL_COVERAGE

START = 1_700_000_000.0  # 22:13:20 UTC
UTC = Options(utc=True)


def churn(host: str = "host", start: float = START) -> bytes:
    """The recording of two sockets, of which one changes, and of one that opens and closes."""
    made = Encoder(AGENT._replace(host=host))
    head = made.head("snapshot", 1, start)
    lines = [
        made.hello(1, start, FULL_COVERAGE, resumed=False),
        *made.holdings(head, (ONE, TWO)),
        made.snapshot_end(1, start, 2),
        made.delta(Opened(THREE), 2, start + 1),
        made.delta(Updated(ONE._replace(fds=(3, 4)), ONE), 3, start + 2),
        made.delta(Closed(THREE, "closed", 2.0), 4, start + 3),
        made.delta(FULL_COVERAGE, 5, start + 4),
    ]
    return b"".join(lines)


DATA = churn()


def printed(output: Output) -> tuple[bool, bytes]:
    """Whether something matched, and what is printed."""

    async def run() -> bytes:
        return b"".join([chunk async for chunk in output])

    data = asyncio.run(run())
    return output.matched, data


def words(data: bytes) -> list[str]:
    """The second word of each line of a log: what happened."""
    return [line.split()[1] for line in data.decode().splitlines()]
