"""Who may load the page of a real agent, and read its feed: other sites may not."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..browser import Tab
from .live import Agent
from .site import Site

TOKEN = "0123456789abcdef"
UPGRADE = {
    "Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}  # fmt: skip
POLICY = {
    "default-src 'none'", "script-src 'self'", "style-src 'self'", "img-src 'self'",
    "connect-src 'self'", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'",
    "require-trusted-types-for 'script'",
}  # fmt: skip
HEADERS = {
    "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}  # fmt: skip


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    tokens = tmp_path_factory.mktemp("tokens") / "tokens"
    tokens.write_text(f"{TOKEN}\n")
    tokens.chmod(0o600)
    with Agent("--token-file", str(tokens), "--interval", "1") as agent:
        yield agent


@pytest.fixture(scope="module")
def open_agent() -> Iterator[Agent]:
    """An agent that requires no token."""
    with Agent("--interval", "1") as agent:
        yield agent


def ask(
    agent: Agent, path: str, headers: dict[str, str] | None = None, method: str = "GET"
) -> tuple[int, http.client.HTTPMessage, bytes]:
    """Return status, headers and body of the answer to a request."""
    connection = http.client.HTTPConnection(agent.address, timeout=20)
    connection.request(method, path, headers=headers or {})
    answer = connection.getresponse()
    body = b"" if answer.status == 101 else answer.read()
    connection.close()
    return answer.status, answer.headers, body


def status(agent: Agent, path: str, headers: dict[str, str], method: str = "GET") -> int:
    return ask(agent, path, headers, method)[0]


def assets(agent: Agent) -> list[str]:
    """Return the paths of the page and of its scripts and styles."""
    folder = Path(__file__).parents[2] / "agent" / "publish" / "page"
    paths = {"index.html": "/", "favicon.svg": "/favicon.svg"}
    found = [paths.get(path.name, f"/assets/{path.name}") for path in folder.iterdir()]
    assert len(found) > 2
    return found


def test_the_page_needs_no_token_and_holds_no_data(agent: Agent) -> None:
    for path in assets(agent):
        answered, headers, body = ask(agent, path)
        assert answered == 200
        assert set(headers["Content-Security-Policy"].split("; ")) == POLICY
        assert {name: headers[name] for name in HEADERS} == HEADERS
        assert "Access-Control-Allow-Origin" not in headers
        assert "Server" not in headers
        known = {"If-None-Match": headers["ETag"]}
        assert ask(agent, path, known)[::2] == (304, b"")
        assert ask(agent, path, method="HEAD")[::2] == (200, b"")
        assert status(agent, path, {}, "POST") == 405
        assert TOKEN.encode() not in body
    assert status(agent, "/events", {}) == 401


@pytest.mark.parametrize(
    "path",
    [
        "/assets/", "/assets", "/assets/../index.html", "/assets/%2e%2e/secrets.py",
        "/assets/..%2f..%2f..%2fsecrets.py", "/assets/%00", "//assets/style.css",
        "/assets/assets.py", "/../agent/secrets.py", "/assets/\\..\\..\\secrets.py",
    ],
)  # fmt: skip
def test_other_files_are_not_served(agent: Agent, path: str) -> None:
    answered, _headers, body = ask(agent, path)
    assert answered == 404
    assert b"import" not in body


def test_the_page_can_be_switched_off() -> None:
    with Agent("--no-page") as agent:
        for path in (*assets(agent), "/assets/app.js"):
            assert status(agent, path, {}) == 404
        assert status(agent, "/events", UPGRADE) == 101


def test_only_the_page_itself_may_read_the_feed(open_agent: Agent) -> None:
    """The origin must be that of Host, and Host an address or a known name."""
    port = open_agent.address.rpartition(":")[2]
    own, local = f"127.0.0.1:{port}", f"localhost:{port}"
    for host, origin, expected in (
        (own, None, 101),
        (own, f"http://{own}", 101),
        (local, f"http://{local}", 101),
        (own, f"http://{local}", 403),
        (own, f"https://{own}", 403),
        (own, "http://127.0.0.1", 403),
        (own, f"http://127.0.0.1:{int(port) + 1}", 403),
        (own, "http://evil.example", 403),
        (own, f"http://evil.example:{port}", 403),
        (own, f"http://{own}.evil.example", 403),
        (own, f"http://{own}@evil.example", 403),
        (own, f"http://evil.example#{own}", 403),
        (own, "null", 403),
        (own, "", 403),
        (own, "file://", 403),
        (own, f"chrome-extension://{own}", 403),
        (f"evil.example:{port}", f"http://evil.example:{port}", 403),
        (f"evil.example:{port}", None, 403),
        ("127.0.0.1.evil.example", None, 403),
    ):
        headers = {"Host": host} | ({} if origin is None else {"Origin": origin})
        assert status(open_agent, "/events", headers | UPGRADE) == expected, (host, origin)
        if expected == 403:
            assert status(open_agent, "/events", headers) == 403, (host, origin)


def test_a_wrong_token_is_refused(agent: Agent) -> None:
    for headers, expected in (
        ({}, 401),
        ({"Authorization": "Bearer wrong"}, 401),
        ({"Authorization": f"Bearer {TOKEN}x"}, 401),
        ({"Authorization": f"Basic {TOKEN}"}, 401),
        ({"Cookie": f"token={TOKEN}"}, 401),
        ({"Sec-WebSocket-Protocol": "sockagent.v1, sockagent.token.wrong"}, 401),
        ({"Sec-WebSocket-Protocol": f"sockagent.v1, sockagent.token.{TOKEN}"}, 101),
        ({"Authorization": f"Bearer {TOKEN}"}, 101),
    ):
        assert status(agent, "/events", headers | UPGRADE) == expected, headers
    assert status(agent, f"/events?token={TOKEN}", UPGRADE) == 401
    assert status(agent, "/events", {"Authorization": f"Bearer {TOKEN}"}) == 426
    assert TOKEN not in agent.stderr()


def test_another_site_cannot_load_or_read_it(tab: Tab, open_agent: Agent) -> None:
    url = f"http://{open_agent.address}"
    with Site({"/": "<!doctype html><title>other</title>"}) as site:
        for origin in (site.url, f"http://evil.example:{site.port}"):
            tab.navigate(f"{origin}/")
            outcome = tab.evaluate(f"""(async () => {{
                const load = (element, attribute, path) => new Promise((done) => {{
                    element.onload = () => done("loaded");
                    element.onerror = () => done("refused");
                    element[attribute] = "{url}" + path;
                    document.head.append(element);
                }});
                const read = new Promise((done) => {{
                    const feed = new WebSocket("ws://{open_agent.address}/events");
                    feed.onmessage = (message) => done(message.data);
                    feed.onclose = () => done("refused");
                }});
                return [
                    await read,
                    await load(new Image(), "src", "/favicon.svg"),
                    await fetch("{url}/").then((a) => a.text(), () => "refused"),
                    await fetch("{url}/events", {{headers: {{Authorization: "Bearer x"}}}})
                        .then((a) => a.text(), () => "refused"),
                ];
            }})()""")
            assert outcome == ["refused"] * 4, origin


def test_another_site_cannot_frame_or_control_it(tab: Tab, open_agent: Agent) -> None:
    url = f"http://{open_agent.address}/"
    with Site({"/": f"<!doctype html><title>other</title><iframe src='{url}'></iframe>"}) as site:
        tab.navigate(f"{site.url}/")
        frame = tab.call("Page.getFrameTree")["frameTree"]["childFrames"][0]["frame"]
        assert frame["unreachableUrl"] == url
        assert any("frame-ancestors" in one for one in (*tab.log, *tab.errors))
        assert not [one for one in tab.requests if one.url.startswith(f"{url}assets/")]
        # The opener has no hold of a window with the page.
        tab.evaluate(f"window.opened = window.open('{url}'); opened.closed")
        tab.wait_for("opened.closed")


def test_a_name_bound_to_this_machine_shows_no_page(tab: Tab, open_agent: Agent) -> None:
    port = open_agent.address.rpartition(":")[2]
    tab.navigate(f"http://evil.example:{port}/")
    assert "unknown host name" in tab.evaluate("document.body.innerText")
    assert tab.evaluate("document.scripts.length") == 0
