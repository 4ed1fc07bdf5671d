"""Requests, over real connections."""

from pathlib import Path

import pytest
from websockets.typing import Subprotocol

from agent.publish.websocket.access import Access
from agent.publish.websocket.protocol import frame
from agent.publish.websocket.server import PAGE_BYTES
from agent.stream.filters import Filter

from ...feeding import ONE, events
from .serving import TOKEN, message, serving, status_of


@pytest.mark.parametrize(
    ("query", "message_"),
    [("?what=1", "what: unknown parameter\n"), ("?port=x", "port: 'x' is not a port or ")],
)
async def test_an_invalid_query_is_refused_with_the_reason(query: str, message_: str) -> None:
    async with serving() as running:
        status, body = await status_of(running.client(query))
        assert (status, body[: len(message_)]) == (400, message_)
        assert running.registry.rejections.refusals == {"400": 1}


@pytest.mark.parametrize(
    ("path", "method", "expected"),
    [
        ("/", "GET", 404),
        ("/Events", "GET", 404),
        ("/events", "GET", 426),
        ("/events", "POST", 405),
        ("/events", "HEAD", 405),
        ("/healthz", "DELETE", 405),
    ],
)
async def test_other_requests_are_refused(path: str, method: str, expected: int) -> None:
    async with serving() as running:
        running.poll(ONE)
        view = running.feed.views.get(Filter(), frame, PAGE_BYTES)
        status, body = await running.get(path, method=method)
        assert status == expected
        assert body.endswith("\n")
        assert running.registry.rejections.refusals == {str(expected): 1}
        assert view.readers == 0


async def test_a_token_is_read_from_the_header_or_the_subprotocols() -> None:
    async with serving(access=Access(tokens=(TOKEN,))) as running:
        running.poll(ONE)
        assert await status_of(running.client()) == (401, "token required\n")
        bearer = {"Authorization": f"Bearer {TOKEN}"}
        async with running.client(additional_headers=bearer) as connection:
            assert connection.subprotocol is None
            assert events(await message(connection)) == ["hello"]
        offered = [Subprotocol("sockagent.v1"), Subprotocol(f"sockagent.token.{TOKEN}")]
        async with running.client(subprotocols=offered) as connection:
            assert connection.subprotocol == "sockagent.v1"
            assert connection.response
            assert TOKEN not in str(connection.response.headers)
        assert (await running.get("/healthz"))[0] == 404  # Public, but there is no such page.


async def test_foreign_origins_and_unknown_hosts_are_refused() -> None:
    async with serving(access=Access(origins=frozenset({"https://dash.example"}))) as running:
        running.poll(ONE)
        status, _ = await status_of(running.client(origin="https://evil.example"))
        assert status == 403
        async with running.client(origin="https://dash.example") as connection:
            assert events(await message(connection)) == ["hello"]
        for path in ("/events", "/healthz"):
            assert (await running.get(path, "Host: evil.example"))[0] == 403


async def test_the_user_of_the_agent_needs_no_token_over_a_unix_socket(tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/feed.sock"
    async with serving(address, access=Access(tokens=(TOKEN,))) as running:
        running.poll(ONE)
        async with running.unix() as connection:
            assert events(await message(connection)) == ["hello"]
