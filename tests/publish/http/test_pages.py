from functools import partial

import pytest

from agent.publish.http.pages import health
from agent.stream.feed import Feed

from ...feeding import AGENT, ONE
from ...make import snapshot
from ..websocket.serving import serving

INTERVAL = 0.05


def test_status_503_before_the_first_poll() -> None:
    reply = health(Feed(AGENT), INTERVAL)
    assert (reply.status, reply.body) == (503, b"the first poll has not completed\n")


async def test_status_200_while_polls_complete() -> None:
    async with serving(
        pages=lambda feed, _registry: {"/healthz": partial(health, feed, INTERVAL)}
    ) as running:
        running.poll(ONE)
        assert await running.get("/healthz") == (200, "ok\n")


def test_status_503_when_the_last_poll_is_old(monkeypatch: pytest.MonkeyPatch) -> None:
    feed = Feed(AGENT)
    feed.publish(snapshot(), [])
    monkeypatch.setattr(feed, "age", lambda: 7.25)
    reply = health(feed, 1.0)
    assert (reply.status, reply.body) == (503, b"the last poll completed 7.2 s ago\n")
    assert health(feed, 5.0).status == 200
