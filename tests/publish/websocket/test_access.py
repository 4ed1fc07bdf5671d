import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.publish.websocket.access import Access, Refusal, host_of, parse_tokens, tokens


class Headers(list[tuple[str, str]]):
    """Whatever a client may send, undecodable bytes included."""

    def get_all(self, key: str) -> list[str]:
        return [value for name, value in self if name == key]


TOKEN = "0123456789abcdef"
LOCAL = ("Host", "localhost:8765")


def refusal(access: Access, *headers: tuple[str, str], **of: bool) -> Refusal | None:
    facts = {"local": False, "trusted": False, "free": False, **of}
    return access.refusal(Headers(headers), **facts)


def status(access: Access, *headers: tuple[str, str], **of: bool) -> int | None:
    refused = refusal(access, *headers, **of)
    return refused.status if refused else None


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", None),
        ("localhost:8765", None),
        ("LOCALHOST.:8765", None),
        ("127.0.0.1:8765", None),
        ("[::1]:8765", None),
        ("192.0.2.7", None),  # An address cannot be made to lead elsewhere.
        ("agent.example:8765", None),
        ("evil.example:8765", 403),
        ("localhost.evil.example", 403),
        ("127.0.0.1.evil.example", 403),
        ("", 403),
        ("[", 403),
    ],
)
def test_a_name_that_is_not_known_is_refused(host: str, expected: int | None) -> None:
    access = Access(hosts=frozenset({"localhost", "agent.example"}))
    assert status(access, ("Host", host)) == expected


def test_one_host_is_needed() -> None:
    assert status(Access()) == 400
    assert status(Access(), LOCAL, LOCAL) == 400


def test_over_a_unix_socket_any_name_will_do() -> None:
    assert status(Access(), ("Host", "whatever"), local=True) is None


@pytest.mark.parametrize("local", [False, True])
@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        ("https://dash.example", None),
        ("HTTPS://dash.example", None),
        ("http://dash.example", 403),
        ("https://evil.example", 403),
        ("https://dash.example.evil.example", 403),
        ("null", 403),
        ("http://localhost:8765", 403),
    ],
)
def test_a_foreign_page_is_refused(origin: str, expected: int | None, local: bool) -> None:
    access = Access(origins=frozenset({"https://dash.example"}))
    assert status(access, LOCAL, ("Origin", origin), local=local) == expected


def test_one_foreign_origin_among_others_is_enough() -> None:
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
def test_it_takes_the_token(header: tuple[str, str], expected: int | None) -> None:
    assert status(Access(tokens=(TOKEN, "another-token-of-16")), LOCAL, header) == expected


def test_every_token_will_do() -> None:
    access = Access(tokens=(TOKEN, "another-token-of-16"))
    assert status(access, LOCAL, ("Authorization", "Bearer another-token-of-16")) is None


def test_no_refusal_tells_the_token() -> None:
    refused = refusal(Access(tokens=(TOKEN,)), LOCAL, ("Authorization", "Bearer guess"))
    assert refused
    assert TOKEN not in refused.sentence
    assert "guess" not in refused.sentence


@pytest.mark.parametrize("of", ["trusted", "free"])
def test_some_need_no_token(of: str) -> None:
    access = Access(tokens=(TOKEN,))
    assert status(access, LOCAL, **{of: True}) is None
    assert status(access, ("Host", "evil.example"), **{of: True}) == 403
    assert status(access, LOCAL, ("Origin", "https://evil.example"), **{of: True}) == 403


def test_the_host_in_a_header() -> None:
    assert host_of("[2001:DB8::1]:443") == "2001:db8::1"
    assert host_of(" Name.Example. ") == "name.example"


def test_a_file_of_tokens() -> None:
    assert parse_tokens("# ours\n\n one \ntwo\r\n#three\n") == ("one", "two")


@given(st.lists(st.tuples(st.sampled_from(["Host", "Origin", "Authorization"]), st.text())))
def test_no_headers_raise(headers: list[tuple[str, str]]) -> None:
    tokens(Headers(headers))
    assert refusal(Access(tokens=(TOKEN,)), *headers) is not None


def test_a_request_with_many_tokens_is_refused_without_comparing_them() -> None:
    access = Access(tokens=(TOKEN,))
    given = [("Authorization", f"Bearer {number}") for number in range(3)]
    assert status(access, LOCAL, *given, ("Authorization", f"Bearer {TOKEN}")) is None
    given.append(("Sec-WebSocket-Protocol", f"sockagent.token.x, sockagent.token.{TOKEN}"))
    assert status(access, LOCAL, *given) == 400
