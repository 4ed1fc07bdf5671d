"""Pages over plain HTTP beside the feed; and /healthz: whether polls complete on time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from ...stream.feed import Feed

PLAIN = "text/plain; charset=utf-8"
# A poll is late when it takes longer than this many intervals and this many seconds together.
LATE_INTERVALS, LATE_SECONDS = 2.0, 1.0
_TAG = "ETag"


class Reply(NamedTuple):
    """The content of a page, with further headers."""

    status: int
    content_type: str
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()


class Page(NamedTuple):
    """A page: what makes its reply, and whether a request for it needs no token."""

    reply: Callable[[], Reply]
    is_public: bool = False


def fixed(reply: Reply, *, is_public: bool = False) -> Page:
    """Return a page whose reply is always the same."""
    return Page(lambda: reply, is_public)


def unless_known(reply: Reply, known: Iterable[str]) -> Reply:
    """Return the reply, or one with status 304 if the client has its content already. ``known`` are
    the values of If-None-Match: lists of tags."""
    own = dict(reply.headers).get(_TAG)
    tags = (tag.strip().removeprefix("W/") for value in known for tag in value.split(","))
    if own is None or not any(tag in (own, "*") for tag in tags):
        return reply
    return reply._replace(status=304, body=b"")


class AgentStatus(NamedTuple):
    """A remote agent: whether it is connected, for how many seconds it has sent nothing, and what
    is wrong with it, None if nothing is."""

    connected: bool
    silent: float
    problem: str | None


def relay_health(agents: Iterable[AgentStatus], max_silent: float) -> Reply:
    """Return status 200 while a remote agent is connected and none has been silent for longer than
    ``max_silent`` seconds, else 503; and a line for each agent with a problem."""
    agents = list(agents)
    lines = [agent.problem for agent in agents if agent.problem is not None]
    is_well = any(agent.connected for agent in agents)
    is_well = is_well and all(agent.silent <= max_silent for agent in agents)
    text = "".join(f"{line}\n" for line in (*(["ok"] if is_well else []), *lines))
    return Reply(200 if is_well else 503, PLAIN, text.encode(errors="backslashreplace"))


def health(feed: Feed, interval: float) -> Reply:
    """Return status 200 while polls, one every ``interval`` seconds, complete on time, else 503."""
    if feed.snapshot is None:
        return Reply(503, PLAIN, b"the first poll has not completed\n")
    age = feed.age()
    if age > LATE_INTERVALS * interval + LATE_SECONDS:
        return Reply(503, PLAIN, f"the last poll completed {age:.1f} s ago\n".encode())
    return Reply(200, PLAIN, b"ok\n")
