from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.datastructures import Headers

from agent.publish.websocket.access import (
    Access,
    Origin,
    parse_host,
    parse_origin,
    parse_tokens,
    request_tokens,
)
from agent.publish.websocket.rejections import Refusal


class RawHeaders(Headers):
    """Headers as a client may send them, undecodable bytes included."""

    def __init__(self, pairs: Iterable[tuple[str, str]]) -> None:
        super().__init__()
        self._pairs = tuple(pairs)

    def get_all(self, key: str) -> list[str]:
        return [value for name, value in self._pairs if name == key]


TOKEN = "0123456789abcdef"
LOCAL = ("Host", "localhost:8765")


def check(access: Access, *headers: tuple[str, str], **facts: bool) -> Refusal | None:
    facts = {"is_local": False, "is_trusted": False, "is_public": False, **facts}
    return access.check(RawHeaders(headers), **facts)


def status(access: Access, *headers: tuple[str, str], **facts: bool) -> int | None:
    refusal = check(access, *headers, **facts)
    return refusal.status if refusal else None


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", None),
        ("localhost:8765", None),
        ("LOCALHOST.:8765", None),
        ("127.0.0.1:8765", None),
        ("[::1]:8765", None),
        ("192.0.2.7", None),  # DNS cannot redirect an address.
        ("agent.example:8765", None),
        ("evil.example:8765", 403),
        ("localhost.evil.example", 403),
        ("127.0.0.1.evil.example", 403),
        ("", 403),
        ("[", 403),
        ("localhost:", None),  # RFC 3986 allows an empty port.
        ("[::1]", None),
        ("127.0.0.1:abc", 400),
        ("127.0.0.1:80abc", 400),
        ("127.0.0.1:-1", 400),
        ("127.0.0.1:80:80", 400),
        ("127.0.0.1:\u0661", 400),  # A digit that is not ASCII.
        ("localhost: 80", 400),
        ("[::1]:abc", 400),
        ("[::1]evil.example", 400),
        ("[::1", 400),
        ("::1", 400),
        ("evil.example:abc", 400),
    ],
)
def test_unknown_host_names_are_refused(host: str, expected: int | None) -> None:
    access = Access(hosts=frozenset({"localhost", "agent.example"}))
    assert status(access, ("Host", host)) == expected


def test_exactly_one_host_header_is_required() -> None:
    assert status(Access()) == 400
    assert status(Access(), LOCAL, LOCAL) == 400


def test_the_host_is_not_checked_for_unix_sockets() -> None:
    assert status(Access(), ("Host", "whatever"), is_local=True) is None


@pytest.mark.parametrize("is_local", [False, True])
@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        ("https://dash.example", None),
        ("HTTPS://dash.example", None),
        ("http://dash.example", 403),
        ("https://evil.example", 403),
        ("https://dash.example.evil.example", 403),
        ("null", 403),
        ("http://localhost:8766", 403),
    ],
)
def test_origins_that_are_not_allowed_are_refused(
    origin: str, expected: int | None, is_local: bool
) -> None:
    access = Access(origins=frozenset({"https://dash.example"}))
    assert status(access, LOCAL, ("Origin", origin), is_local=is_local) == expected


@pytest.mark.parametrize(
    ("host", "origin", "has_tls", "expected"),
    [
        ("localhost:8765", "http://localhost:8765", False, None),
        ("LOCALHOST:8765", "HTTP://Localhost:8765", False, None),
        ("127.0.0.1:8765", "http://127.0.0.1:8765", False, None),
        ("[::1]:8765", "http://[::1]:8765", False, None),
        ("[2001:DB8::1]:8765", "http://[2001:db8::1]:8765", False, None),
        ("agent.example:8765", "https://agent.example:8765", True, None),
        ("[::1]", "https://[::1]", True, None),
        # The default port may be written or not.
        ("localhost", "http://localhost", False, None),
        ("localhost:80", "http://localhost", False, None),
        ("localhost", "http://localhost:80", False, None),
        ("localhost:443", "https://localhost", True, None),
        ("localhost", "https://localhost:443", True, None),
        ("localhost", "http://localhost:443", False, 403),
        ("localhost:443", "http://localhost", False, 403),
        ("localhost:80", "https://localhost", True, 403),
        # Another port or scheme is another origin.
        ("localhost:8765", "http://localhost:8766", False, 403),
        ("localhost:8765", "http://localhost", False, 403),
        ("localhost", "http://localhost:8765", False, 403),
        ("localhost:8765", "https://localhost:8765", False, 403),
        ("localhost:8765", "http://localhost:8765", True, 403),
        ("localhost:8765", "ws://localhost:8765", False, 403),
        # Another name of this machine, too.
        ("localhost:8765", "http://127.0.0.1:8765", False, 403),
        ("localhost:8765", "http://agent.example:8765", False, 403),
        ("localhost.:8765", "http://localhost:8765", False, 403),
        ("[::1]:8765", "http://[::2]:8765", False, 403),
        # DNS rebinding: Host and Origin agree, and the name is not known.
        ("evil.example:8765", "http://evil.example:8765", False, 403),
        ("evil.example", "https://evil.example", True, 403),
        ("localhost.evil.example", "http://localhost.evil.example", False, 403),
        ("", "http://", False, 403),
        # No origins.
        ("localhost:8765", "null", False, 403),
        ("localhost:8765", "", False, 403),
        ("localhost:8765", "localhost:8765", False, 403),
        ("localhost:8765", "http://localhost:8765/", False, 403),
        ("localhost:8765", "http://localhost:8765/page", False, 403),
        ("localhost:8765", "http://user@localhost:8765", False, 403),
        ("localhost:8765", "http://evil.example http://localhost:8765", False, 403),
        ("[::1", "http://[::1", False, 400),
        ("localhost:port", "http://localhost:port", False, 400),
    ],
)
def test_the_pages_of_this_server_may_make_requests_and_those_of_no_other(
    host: str, origin: str, has_tls: bool, expected: int | None
) -> None:
    access = Access(hosts=frozenset({"localhost", "agent.example"}))
    headers = (("Host", host), ("Origin", origin))
    assert status(access, *headers, has_tls=has_tls) == expected


def test_over_a_unix_socket_no_origin_is_that_of_this_server() -> None:
    # Host is not checked there: a proxy may pass on that of the attacker.
    headers = (LOCAL, ("Origin", "http://localhost:8765"))
    assert status(Access(), *headers) is None
    assert status(Access(), *headers, is_local=True) == 403


def test_each_of_several_origins_must_be_allowed() -> None:
    own, allowed = ("Origin", "http://localhost:8765"), ("Origin", "https://dash.example")
    access = Access(origins=frozenset({"https://dash.example"}))
    assert status(access, LOCAL, own, allowed) is None
    assert status(access, LOCAL, own, own) is None
    assert status(access, LOCAL, own, ("Origin", "http://evil.example")) == 403
    assert status(access, LOCAL, ("Origin", "null"), own) == 403


def test_one_origin_that_is_not_allowed_refuses_the_request() -> None:
    access = Access(origins=frozenset({"https://a.example"}))
    both = (("Origin", "https://a.example"), ("Origin", "https://b.example"))
    assert status(access, LOCAL, *both) == 403


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (("Authorization", f"Bearer {TOKEN}"), None),
        (("Authorization", f"bearer  {TOKEN} "), None),
        (("Sec-WebSocket-Protocol", f"sockagent.v1, sockagent.token.{TOKEN}"), None),
        (("Sec-WebSocket-Protocol", f"sockagent.token.{TOKEN}"), None),
        (("Authorization", "Bearer ffffffffffffffff"), 401),
        (("Authorization", f"Bearer {TOKEN}0"), 401),
        (("Authorization", f"Bearer {TOKEN[:-1]}"), 401),
        (("Authorization", "Bearer "), 401),
        (("Authorization", f"Basic {TOKEN}"), 401),
        (("Authorization", "Bearer \udcff"), 401),
        (("Sec-WebSocket-Protocol", "sockagent.v1, sockagent.token."), 401),
        (("X-Token", TOKEN), 401),
    ],
)
def test_tokens_are_checked(header: tuple[str, str], expected: int | None) -> None:
    assert status(Access(tokens=(TOKEN, "another-token-of-16")), LOCAL, header) == expected


def test_each_known_token_is_accepted() -> None:
    access = Access(tokens=(TOKEN, "another-token-of-16"))
    assert status(access, LOCAL, ("Authorization", "Bearer another-token-of-16")) is None


def test_a_refusal_contains_no_token() -> None:
    refusal = check(Access(tokens=(TOKEN,)), LOCAL, ("Authorization", "Bearer guess"))
    assert refusal
    assert TOKEN not in refusal.message
    assert "guess" not in refusal.message


@pytest.mark.parametrize("fact", ["is_trusted", "is_public"])
def test_trusted_users_and_public_paths_need_no_token(fact: str) -> None:
    access = Access(tokens=(TOKEN,))
    assert status(access, LOCAL, **{fact: True}) is None
    assert status(access, ("Host", "evil.example"), **{fact: True}) == 403
    assert status(access, LOCAL, ("Origin", "https://evil.example"), **{fact: True}) == 403


def test_parse_host() -> None:
    assert parse_host("[2001:DB8::1]:443") == "2001:db8::1"
    assert parse_host("name:") == "name"
    assert parse_host("name:x") is None
    assert parse_host(" Name.Example. ") == "name.example"


@given(
    st.sampled_from(["http", "https"]),
    st.one_of(
        st.from_regex(r"[a-z0-9.-]+", fullmatch=True, alphabet=st.characters(codec="ascii")),
        st.ip_addresses(v=4).map(str),
        st.ip_addresses(v=6).map(lambda address: f"[{address}]"),
    ),
    st.integers(0, 65535),
)
def test_an_origin_is_parsed(scheme: str, host: str, port: int) -> None:
    origin = Origin(scheme, host.lower(), port)
    assert parse_origin(f"{scheme}://{host}:{port}") == origin
    assert parse_origin(f"{scheme}://{host}:{port}".upper()) == origin
    default = {"http": 80, "https": 443}[scheme]
    assert parse_origin(f"{scheme}://{host}") == origin._replace(port=default)


@given(st.text(), st.booleans())
def test_no_text_passes_as_an_origin_unless_it_names_this_server(text: str, has_tls: bool) -> None:
    headers = (LOCAL, ("Origin", text))
    own = f"http{'s' * has_tls}://localhost:8765"
    assert (status(Access(), *headers, has_tls=has_tls) is None) == (text.lower() == own)


@given(st.text())
def test_no_host_passes_because_an_origin_agrees(host: str) -> None:
    alone = status(Access(), ("Host", host))
    both = status(Access(), ("Host", host), ("Origin", f"http://{host}"))
    assert both is not None or alone is None


def test_parse_tokens() -> None:
    assert parse_tokens("# ours\n\n one \ntwo\r\n#three\n") == ("one", "two")


@given(st.lists(st.tuples(st.sampled_from(["Host", "Origin", "Authorization"]), st.text())))
def test_arbitrary_headers_are_refused_without_an_error(headers: list[tuple[str, str]]) -> None:
    request_tokens(RawHeaders(headers))
    assert check(Access(tokens=(TOKEN,)), *headers) is not None


def test_a_request_with_too_many_tokens_is_refused() -> None:
    access = Access(tokens=(TOKEN,))
    headers = [("Authorization", f"Bearer {number}") for number in range(3)]
    assert status(access, LOCAL, *headers, ("Authorization", f"Bearer {TOKEN}")) is None
    headers.append(("Sec-WebSocket-Protocol", f"sockagent.token.x, sockagent.token.{TOKEN}"))
    assert status(access, LOCAL, *headers) == 400
