"""The wire format of a fleet."""

from __future__ import annotations

import zlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agent.stream.fleet import (
    HEADER,
    Broker,
    InvalidFleetMessage,
    Link,
    decode_body,
    encode_body,
    format_link,
    host_of,
    is_broker_url,
    no_stream,
    parse_broker,
    parse_link,
    subject,
)

NUMBERS = st.integers(0, 10**18 - 1)
IDS = st.builds(lambda run, n: f"{run:08x}.{n}", st.integers(0, 2**32 - 1), NUMBERS)
LINKS = st.builds(
    lambda epoch, changes, previous, snapshot, begins, whole, identity: Link(
        epoch, min(changes), max(changes), previous, snapshot, begins, whole, identity
    ),
    st.from_regex(r"[0-9a-f]{16}", fullmatch=True),
    st.tuples(NUMBERS, NUMBERS),
    st.none() | IDS,
    NUMBERS,
    st.booleans(),
    st.booleans(),
    IDS,
)
# Texts that a host name can be: anything that can be encoded.
HOSTS = st.text(min_size=1, max_size=64)


@given(LINKS)
def test_headers_round_trip(link: Link) -> None:
    value = format_link(link)
    assert parse_link(value) == link
    assert value.isascii()
    assert len(value.split(" ")) == 8
    assert link.id.startswith(f"{link.run}.")


def test_the_header_of_a_message_as_documented() -> None:
    link = Link("00c0ffee00c0ffee", 40, 42, "0badcafe.7", 31, False, True, "0badcafe.8")
    assert format_link(link) == "1 00c0ffee00c0ffee 40 42 0badcafe.7 31 w 0badcafe.8"
    first = Link("00c0ffee00c0ffee", 40, 40, None, 0, True, False, "0badcafe.0")
    assert format_link(first) == "1 00c0ffee00c0ffee 40 40 - 0 b 0badcafe.0"
    assert HEADER == "Sockagent"


VALID = "1 00c0ffee00c0ffee 40 42 0badcafe.7 31 w 0badcafe.8"


@pytest.mark.parametrize(
    "value",
    [
        "",
        VALID.replace("1 ", "2 ", 1),
        VALID + " ",
        VALID + "\n",
        VALID.replace(" w ", " wb "),
        VALID.replace(" w ", " x "),
        VALID.replace(" 40 42 ", " 42 40 "),
        VALID.replace(" 40 ", " 040 "),
        VALID.replace(" 40 ", " \u0664 "),
        VALID.replace(" 40 ", " -1 "),
        VALID.replace(" 40 ", f" {10**18} "),
        VALID.replace("0badcafe.8", "-"),
        VALID.replace("0badcafe.8", "0BADCAFE.8"),
        VALID.replace("00c0ffee00c0ffee", "x" * 65),
    ],
)
def test_other_headers_are_refused(value: str) -> None:
    with pytest.raises(InvalidFleetMessage):
        parse_link(value)


@given(st.text() | st.text("1 0bw-.a", max_size=60))
def test_any_header_is_parsed_or_refused(value: str) -> None:
    try:
        link = parse_link(value)
    except InvalidFleetMessage:
        return
    assert format_link(link) == value


@given(HOSTS)
@example("a.example")
@example("two words")
@example("*")
@example(">")
@example("100%")
@example("%41")
@example("mañana.例え")
@example("\0")
def test_host_names_are_one_token_and_round_trip(host: str) -> None:
    name = subject("sockagent.eu.prod", host)
    assert host_of(name) == host
    *prefix, token = name.split(".")
    assert prefix == ["sockagent", "eu", "prod"]
    assert not set(token) - set("%-_") - set(map(chr, range(128))) - {"."}
    assert not set(" *>\t\r\n.") & set(token)


def test_subjects_as_documented() -> None:
    assert subject("sockagent", "a.example") == "sockagent.a%2Eexample"
    assert subject("sockagent", "db-1_x") == "sockagent.db-1_x"


@pytest.mark.parametrize("host", ["", "\udc80"])
def test_names_that_no_host_can_have_are_refused(host: str) -> None:
    with pytest.raises(InvalidFleetMessage):
        subject("sockagent", host)


@pytest.mark.parametrize(
    "name",
    ["", "host", ".host", "sockagent.", "sockagent.%41", "sockagent.%2e", "sockagent.%FF",
     "sockagent.%", "sockagent.a b", "sockagent.é"],
)  # fmt: skip
def test_other_subjects_are_refused(name: str) -> None:
    with pytest.raises(InvalidFleetMessage):
        host_of(name)


@given(st.text() | st.text("a.%2EFe", max_size=20))
def test_any_subject_is_of_one_host_or_refused(name: str) -> None:
    try:
        host = host_of(name)
    except InvalidFleetMessage:
        return
    assert subject(name.rpartition(".")[0], host) == name


@given(st.lists(st.binary(max_size=300)), st.sampled_from(["deflate", "none"]))
def test_bodies_round_trip(records: list[bytes], encoding: str) -> None:
    raw = b"".join(b'{"x":"' + record.hex().encode() + b'"}\n' for record in [b"", *records])
    assert decode_body(encode_body(raw, encoding)) == raw
    assert encode_body(raw, encoding).startswith(b"{") == (encoding == "none")


@given(st.binary() | st.binary().map(zlib.compress).map(lambda body: body[:-1] + b"x"))
def test_any_body_is_decoded_or_refused(body: bytes) -> None:
    try:
        records = decode_body(body, 1000)
    except InvalidFleetMessage:
        return
    assert len(records) <= 1000
    assert body.startswith(b"{") or zlib.decompress(body) == records


@given(st.integers(0, 40))
def test_bodies_are_inflated_up_to_a_limit(size: int) -> None:
    raw = b"{" * size
    for body in (zlib.compress(raw), raw) if raw else (zlib.compress(raw),):
        if size <= 20:
            assert decode_body(body, 20) == raw
        else:
            with pytest.raises(InvalidFleetMessage, match="more than 20"):
                decode_body(body, 20)


@pytest.mark.parametrize(
    "body",
    [b"", b"x", zlib.compress(b"{}\n")[:-1], zlib.compress(b"{}\n") + b"x", zlib.compress(b"")[:2]],
)
def test_cut_and_extended_bodies_are_refused(body: bytes) -> None:
    with pytest.raises(InvalidFleetMessage):
        decode_body(body)


@pytest.mark.parametrize(
    ("url", "broker"),
    [
        ("nats://b", Broker(("nats://b:4222",), "sockagent", None, ("b",))),
        ("nats://b:1/", Broker(("nats://b:1",), "sockagent", None, ("b",))),
        (
            "tls://me@b:1,[::1],c:2/sockagent.eu.prod",
            Broker(
                ("tls://b:1", "tls://[::1]:4222", "tls://c:2"),
                "sockagent.eu.prod",
                "me",
                ("b", "::1", "c"),
            ),
        ),
    ],
)
def test_urls_of_brokers(url: str, broker: Broker) -> None:
    assert parse_broker(url) == broker
    assert is_broker_url(url)
    assert broker.is_encrypted == url.startswith("tls:")


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("ws://b", "invalid URL"),
        ("nats:b", "invalid URL"),
        ("nats://", "invalid URL"),
        ("nats://@b", "invalid URL"),
        ("nats://b,", "invalid URL"),
        ("nats://b:0", "invalid URL"),
        ("nats://b:x", "invalid URL"),
        ("nats://b:99999", "invalid URL"),
        ("nats://[::1", "invalid URL"),
        ("nats://b/x?y", "invalid URL"),
        ("nats://b/x#y", "invalid URL"),
        ("nats://me:secret@b", "ps"),
        ("nats://b/a..b", "invalid prefix"),
        ("nats://b/a/b", "invalid prefix"),
        ("nats://b/*", "invalid prefix"),
    ],
)
def test_other_urls_are_refused_with_a_reason(url: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_broker(url)


def test_the_stream_of_a_prefix() -> None:
    assert parse_broker("nats://b").stream == "SOCKAGENT"
    assert parse_broker("nats://b/sockagent-eu.prod").stream == "SOCKAGENT-EU"


def test_a_missing_stream_is_named_and_a_prefix_of_the_url() -> None:
    assert no_stream(parse_broker("nats://b")) == (
        "there is no stream SOCKAGENT with the subjects sockagent.> and allow_direct; "
        "sockagent fleet init makes it"
    )
    assert no_stream(parse_broker("nats://b/eu.x")) == (
        "there is no stream EU with the subjects eu.x.> and allow_direct "
        "(the prefix in the URL: eu.x); sockagent fleet init makes it"
    )


def test_urls_of_agents_are_not_of_brokers() -> None:
    assert not is_broker_url("ws://b")
    assert not is_broker_url("unix:nats")
