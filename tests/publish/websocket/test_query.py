from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import UsageError
from agent.publish.websocket.query import Wanted, parse
from agent.stream.filters import Filter


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", Wanted(Filter())),
        ("proto=tcp", Wanted(Filter({"proto": ["tcp"]}))),
        ("proto=tcp,udp&port=80", Wanted(Filter({"proto": ["udp", "tcp"], "port": ["80"]}))),
        ("proto=tcp&proto=udp", Wanted(Filter({"proto": ["tcp", "udp"]}))),
        ("comm=nginx%2A", Wanted(Filter({"comm": ["nginx*"]}))),
        ("addr=10.0.0.0%2F8", Wanted(Filter({"addr": ["10.0.0.0/8"]}))),
        ("comm=a+b", Wanted(Filter({"comm": ["a b"]}))),
        ("epoch=e&since=12", Wanted(Filter(), ("e", 12))),
        ("snapshot=0", Wanted(Filter(), None, snapshot=False)),
        ("snapshot=1", Wanted(Filter())),
    ],
)
def test_what_is_wanted(query: str, expected: Wanted) -> None:
    assert parse(query) == expected


@pytest.mark.parametrize(
    ("query", "argument"),
    [
        ("what=1", "what"),
        ("port=x", "port"),
        ("port=", "port"),
        ("state=open", "state"),
        ("proto", "query"),
        ("&&", "query"),
        ("comm=%ff", "query"),
        ("since=5", "epoch"),
        ("epoch=e", "since"),
        ("epoch=e&since=-1", "since"),
        ("epoch=e&since=1e3", "since"),
        ("epoch=e&since=" + "9" * 19, "since"),
        ("epoch=e&since=²", "since"),
        ("epoch=a&epoch=b&since=1", "epoch"),
        ("snapshot=no", "snapshot"),
        ("snapshot=0&snapshot=1", "snapshot"),
        ("&".join(["pid=1"] * 101), "query"),
        ("port=" + ",".join(["0-65535"] * 101), "query"),
        ("addr=" + ",".join(["10.0.0.1"] * 60) + "&pid=" + ",".join(["1"] * 60), "query"),
    ],
)
def test_what_is_not_understood_is_named(query: str, argument: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse(query)
    assert raised.value.argument == argument
    assert str(raised.value)


@given(st.text())
def test_no_query_raises_anything_else(query: str) -> None:
    with suppress(UsageError):
        parse(query)
