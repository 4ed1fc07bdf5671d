"""Requests, over real connections."""

import ssl
import subprocess
from pathlib import Path

import pytest
from websockets.typing import Subprotocol

from agent.publish.websocket.access import Access
from agent.publish.websocket.protocol import frame
from agent.publish.websocket.server import PAGE_BYTES
from agent.stream.filters import Filter

from ...feeding import ONE, events
from .serving import TOKEN, message, serving, status_of

BEARER = f"Authorization: Bearer {TOKEN}"


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
        ("/assets/../router.py", "GET", 404),
    ],
)
async def test_other_requests_are_refused(path: str, method: str, expected: int) -> None:
    async with serving() as running:
        running.poll(ONE)
        view = running.feed.views.get(Filter(), frame, PAGE_BYTES)
        status, body = await running.get(path, method=method)
        assert status == expected
        assert body.endswith("\n") or method == "HEAD"
        assert running.registry.rejections.refusals == {str(expected): 1}
        assert view.readers == 0


@pytest.mark.parametrize(
    ("query", "headers", "expected"),
    [
        ("target=nginx&epoch=e&since=1", (BEARER,), (426, None)),
        ("target=:x", (BEARER,), (400, "':x': 'x' is not a port or range of ports; ")),
        ("target=colour=red", (BEARER,), (400, "'colour=red': there is no filter 'colour'; ")),
        ("port=x", (BEARER,), (400, "port: 'x' is not a port or range of ports; ")),
        ("target=nginx", (), (401, "token required\n")),
        ("target=nginx", ("Authorization: Bearer guess",), (401, "invalid token\n")),
        ("target=nginx", (BEARER, "Origin: http://evil.example"), (403, "origin not allowed; ")),
    ],
)
async def test_a_request_without_websocket_checks_the_query(
    query: str, headers: tuple[str, ...], expected: tuple[int, str | None]
) -> None:
    async with serving(access=Access(tokens=(TOKEN,))) as running:
        running.poll(ONE)
        status, body = await running.get(f"/events?{query}", "Host: localhost", *headers)
        assert status == expected[0]
        assert body.endswith("\n")
        assert expected[1] is None or body.startswith(expected[1])
        assert running.registry.subscriber_count == 0


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
        assert (await running.get("/nowhere"))[0] == 404


async def test_foreign_origins_and_unknown_hosts_are_refused() -> None:
    async with serving(access=Access(origins=frozenset({"https://dash.example"}))) as running:
        running.poll(ONE)
        status, _ = await status_of(running.client(origin="https://evil.example"))
        assert status == 403
        async with running.client(origin="https://dash.example") as connection:
            assert events(await message(connection)) == ["hello"]
        for path in ("/events", "/healthz"):
            assert (await running.get(path, "Host: evil.example"))[0] == 403


async def test_the_pages_of_the_server_may_subscribe() -> None:
    async with serving() as running:
        running.poll(ONE)
        async with running.client(origin=f"http://localhost:{running.port}") as connection:
            assert events(await message(connection)) == ["hello"]
        for origin in (f"https://localhost:{running.port}", "http://localhost:1", "null"):
            assert (await status_of(running.client(origin=origin)))[0] == 403
        rebound = (
            f"Host: evil.example:{running.port}",
            f"Origin: http://evil.example:{running.port}",
        )
        assert (await running.get("/events", *rebound))[0] == 403


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[str, str]:
    certificate, key = str(tmp_path / "cert.pem"), str(tmp_path / "key.pem")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-nodes", "-keyout", key, "-out", certificate, "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost"],
        check=True, capture_output=True,
    )  # fmt: skip
    return certificate, key


async def test_over_tls_the_origin_of_the_pages_is_https(certificate: tuple[str, str]) -> None:
    served = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    served.load_cert_chain(*certificate)
    trusting = ssl.create_default_context(cafile=certificate[0])
    async with serving(tls=served) as running:
        running.poll(ONE)
        origin = f"https://localhost:{running.port}"
        async with running.client(origin=origin, ssl=trusting) as connection:
            assert events(await message(connection)) == ["hello"]
        plain = origin.replace("https", "http")
        assert (await status_of(running.client(origin=plain, ssl=trusting)))[0] == 403


async def test_the_user_of_the_agent_needs_no_token_over_a_unix_socket(tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/feed.sock"
    async with serving(address, access=Access(tokens=(TOKEN,))) as running:
        running.poll(ONE)
        async with running.unix() as connection:
            assert events(await message(connection)) == ["hello"]
