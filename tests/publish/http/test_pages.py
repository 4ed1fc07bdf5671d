from functools import partial

import pytest

from agent.publish.http.pages import PLAIN, Page, Reply, health, unless_known
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
        pages=lambda feed, _registry: {"/healthz": Page(partial(health, feed, INTERVAL))}
    ) as running:
        running.poll(ONE)
        assert await running.get("/healthz") == (200, "ok\n")
        assert await running.get("/healthz", method="HEAD") == (200, "")


def test_status_503_when_the_last_poll_is_old(monkeypatch: pytest.MonkeyPatch) -> None:
    feed = Feed(AGENT)
    feed.publish(snapshot(), [])
    monkeypatch.setattr(feed, "age", lambda: 7.25)
    reply = health(feed, 1.0)
    assert (reply.status, reply.body) == (503, b"the last poll completed 7.2 s ago\n")
    assert health(feed, 5.0).status == 200


TAGGED = Reply(200, PLAIN, b"text\n", (("ETag", '"1f"'), ("Cache-Control", "no-cache")))


@pytest.mark.parametrize(
    "known", [['"1f"'], ['W/"1f"'], ['"2e", "1f"'], ['"2e"', '"1f"'], ["*"], [' "2e" ,W/"1f" ']]
)
def test_status_304_if_the_client_has_the_content(known: list[str]) -> None:
    assert unless_known(TAGGED, known) == Reply(304, PLAIN, b"", TAGGED.headers)


@pytest.mark.parametrize("known", [[], [""], ["1f"], ['"1F"'], ['"1f'], ['W/W/"1f"'], ['"1f""']])
def test_the_content_if_the_client_has_another_one(known: list[str]) -> None:
    assert unless_known(TAGGED, known) is TAGGED


def test_a_reply_without_a_tag_is_never_known() -> None:
    reply = Reply(200, PLAIN, b"text\n")
    assert unless_known(reply, ["*"]) is reply
