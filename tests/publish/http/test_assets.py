"""The files of the page, and how they are served."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

import agent.publish
from agent.publish.http.assets import asset_pages
from agent.publish.http.pages import Page
from agent.publish.websocket.access import Access

from ..websocket.serving import HANGS_SECONDS, TOKEN, Serving, serving

FOLDER = Path(agent.publish.__path__[0]) / "page"
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; require-trusted-types-for 'script'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


def pages(*_arguments: object) -> dict[str, Page]:
    return asset_pages()


async def request(
    running: Serving, path: str, *headers: str, method: str = "GET"
) -> tuple[int, dict[str, str], bytes]:
    """Return the status, the headers and the body of a response."""
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", *headers, "", ""]
    writer.write("\r\n".join(lines).encode())
    answer = await asyncio.wait_for(reader.read(), HANGS_SECONDS)
    writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *rest = head.decode().split("\r\n")
    return int(first.split()[1]), dict(line.split(": ", 1) for line in rest), body


def test_every_file_of_the_page_is_served_and_nothing_else() -> None:
    names = {path.name for path in FOLDER.iterdir() if path.suffix in TYPES}
    paths = {f"/assets/{name}" for name in names - {"index.html", "favicon.svg"}}
    assert set(asset_pages()) == {"/", "/favicon.svg", *paths}
    for path, page in asset_pages().items():
        name = {"/": "index.html"}.get(path, path.rpartition("/")[2])
        reply = page.reply()
        assert page.is_public
        assert (reply.status, reply.body) == (200, (FOLDER / name).read_bytes())
        assert reply.content_type == TYPES[Path(name).suffix]


async def test_the_headers_keep_the_page_to_itself() -> None:
    async with serving(pages=pages) as running:
        for path in asset_pages():
            status, headers, body = await request(running, path)
            assert status == 200
            assert body
            assert headers.items() >= HEADERS.items()
            assert int(headers["Content-Length"]) == len(body)


async def test_a_browser_that_has_a_file_gets_no_content() -> None:
    async with serving(pages=pages) as running:
        _, first, _ = await request(running, "/")
        status, headers, body = await request(running, "/", f"If-None-Match: {first['ETag']}")
        assert (status, body) == (304, b"")
        assert headers.items() >= {**HEADERS, "ETag": first["ETag"]}.items()
        assert (await request(running, "/", 'If-None-Match: "0"'))[0] == 200
        _, other, _ = await request(running, "/favicon.svg")
        assert other["ETag"] != first["ETag"]


async def test_head_has_the_headers_of_get() -> None:
    async with serving(pages=pages) as running:
        _, got, content = await request(running, "/")
        status, headers, body = await request(running, "/", method="HEAD")
        assert (status, body) == (200, b"")
        assert {**headers, "Date": ""} == {**got, "Date": ""}
        assert headers["Content-Length"] == str(len(content))


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "get"])
async def test_other_methods_are_refused(method: str) -> None:
    async with serving(pages=pages) as running:
        status, headers, body = await request(running, "/", method=method)
        assert (status, headers["Allow"]) == (405, "GET, HEAD")
        assert body == b"method not allowed; use GET or HEAD\n"


@pytest.mark.parametrize(
    "path",
    [
        "/assets/none.js", "/assets/", "/assets", "/index.html", "/assets/index.html", "//",
        "/assets/../page/index.html", "/assets/%2e%2e/assets.py", "/assets/favicon.svg/",
        "/favicon.ico", "/./",
    ],
)  # fmt: skip
async def test_there_are_no_other_paths(path: str) -> None:
    async with serving(pages=pages, access=Access(tokens=(TOKEN,))) as running:
        status, headers, body = await request(running, path)
        assert (status, headers["Content-Type"]) == (404, "text/plain; charset=utf-8")
        assert body == b"not found; available are /, /events, /favicon.svg\n"


async def test_the_page_needs_no_token_but_a_known_host_and_no_foreign_origin() -> None:
    async with serving(pages=pages, access=Access(tokens=(TOKEN,))) as running:
        for path in asset_pages():
            assert (await running.get(path))[0] == 200
            assert (await running.get(path, "Host: evil.example"))[0] == 403
            foreign = ("Host: localhost", "Origin: http://evil.example")
            assert (await running.get(path, *foreign))[0] == 403
        assert (await running.get("/?port=443&view=events"))[0] == 200
        assert (await running.get("/events"))[0] == 401
