"""Pages over plain HTTP beside the feed; and /healthz: whether polls complete on time."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import NamedTuple

from ...stream.feed import Feed

PLAIN = "text/plain; charset=utf-8"
# A poll is late when it takes longer than this many intervals and this many seconds together.
LATE_INTERVALS, LATE_SECONDS = 2.0, 1.0
_TAG = "ETag"
_GZIP = "gzip"
# Makes zlib write the format of gzip.
_GZIP_BITS = 31


class Reply(NamedTuple):
    """The content of a page, with further headers. ``packs``: it is compressed for clients that
    accept it, which a body that holds secrets must not be."""

    status: int
    content_type: str
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()
    packs: bool = False


class Page(NamedTuple):
    """A page: what makes its reply, and whether a request for it needs no token."""

    reply: Callable[[], Reply]
    is_public: bool = False


def fixed(reply: Reply, *, is_public: bool = False) -> Page:
    """Return a page whose reply is always the same."""
    return Page(lambda: reply, is_public)


def packed(reply: Reply, accepted: Iterable[str]) -> Reply:
    """Return the reply compressed, if it may be. ``accepted`` are the values of Accept-Encoding."""
    if not reply.packs or not any(map(_is_gzip, ",".join(accepted).split(","))):
        return reply
    # The two forms of the content have different tags.
    headers = tuple(
        (name, f'{value[:-1]}-{_GZIP}"' if name == _TAG else value) for name, value in reply.headers
    )
    return reply._replace(
        body=_compressed(reply.body), headers=(*headers, ("Content-Encoding", _GZIP)), packs=False
    )


def _is_gzip(encoding: str) -> bool:
    """Return whether a part of Accept-Encoding, such as ``gzip;q=0.5``, accepts gzip."""
    name, _, weight = encoding.replace(" ", "").lower().partition(";q=")
    return name == _GZIP and (not weight or weight.strip("0.") != "")


@lru_cache(maxsize=64)  # The files of the page.
def _compressed(body: bytes) -> bytes:
    return zlib.compress(body, wbits=_GZIP_BITS)


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
