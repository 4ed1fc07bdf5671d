from collections.abc import Callable
from contextlib import suppress
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import UsageError
from agent.publish.websocket.router import SubscriptionQuery, parse_query
from agent.stream.filters import Filter
from agent.stream.targets import parse_targets


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", SubscriptionQuery(Filter())),
        ("proto=tcp", SubscriptionQuery(Filter({"proto": ["tcp"]}))),
        (
            "proto=tcp,udp&port=80",
            SubscriptionQuery(Filter({"proto": ["udp", "tcp"], "port": ["80"]})),
        ),
        ("proto=tcp&proto=udp", SubscriptionQuery(Filter({"proto": ["tcp", "udp"]}))),
        ("comm=nginx%2A", SubscriptionQuery(Filter({"comm": ["nginx*"]}))),
        ("addr=10.0.0.0%2F8", SubscriptionQuery(Filter({"addr": ["10.0.0.0/8"]}))),
        ("proto!=unix", SubscriptionQuery(Filter({"proto!": ["unix"]}))),
        ("proto%21=unix", SubscriptionQuery(Filter({"proto!": ["unix"]}))),
        ("port!=22&port=20-30", SubscriptionQuery(Filter({"port!": ["22"], "port": ["20-30"]}))),
        ("comm=a+b", SubscriptionQuery(Filter({"comm": ["a b"]}))),
        ("epoch=e&since=12", SubscriptionQuery(Filter(), (("e", 12),))),
        ("epoch=e&since=12&since=7&epoch=f", SubscriptionQuery(Filter(), (("e", 12), ("f", 7)))),
        (
            "epoch=e&epoch=f&since=12&host=a&since=3",
            SubscriptionQuery(Filter({"host": ["a"]}), (("e", 12), ("f", 3))),
        ),
        ("target=:8080", SubscriptionQuery(Filter({"port": ["8080"]}))),
        (
            "target=nginx&target=%3A443",
            SubscriptionQuery(Filter({"name": ["nginx"], "port": ["443"]})),
        ),
        (
            "target=:80&port=443&target=:22",
            SubscriptionQuery(Filter({"port": ["80", "443", "22"]})),
        ),
        ("target=comm!%3Dsshd,cron", SubscriptionQuery(Filter({"comm!": ["sshd", "cron"]}))),
        (
            "target=port=443&target=port!=22",
            SubscriptionQuery(Filter({"port": ["443"], "port!": ["22"]})),
        ),
        ("target=10.0.0.0/8", SubscriptionQuery(Filter({"addr": ["10.0.0.0/8"]}))),
        ("snapshot=0", SubscriptionQuery(Filter(), snapshot=False)),
        ("snapshot=1", SubscriptionQuery(Filter())),
        ("checkpoint=300", SubscriptionQuery(Filter(), checkpoint=300.0)),
        ("checkpoint=1.5&snapshot=1", SubscriptionQuery(Filter(), checkpoint=1.5)),
    ],
)
def test_parse(query: str, expected: SubscriptionQuery) -> None:
    assert parse_query(query) == expected


@pytest.mark.parametrize(
    ("query", "argument"),
    [
        ("what=1", "what"),
        ("what!=1", "what!"),
        ("since!=1", "since!"),
        ("port=x", "port"),
        ("port!=x", "port!"),
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
        ("epoch=a&epoch=b&since=1", "since"),
        ("epoch=a&since=2&since=1", "epoch"),
        ("epoch=a&since=1&epoch=a&since=2", "epoch"),
        ("epoch=a&since=1&epoch=b&since=x", "since"),
        ("target!=nginx", "target!"),
        ("target=", ""),
        ("target=:x", ":x"),
        ("target=colour=red", "colour=red"),
        ("target=nginx&target=web:80", "web:80"),
        ("target=" + "x" * 257 + "*", "x" * 257 + "*"),
        ("&".join(["target=:1"] * 101), "query"),
        ("target=" + ",".join([":1"] * 60) + "&pid=" + ",".join(["1"] * 60), "query"),
        ("snapshot=no", "snapshot"),
        ("snapshot=0&snapshot=1", "snapshot"),
        ("checkpoint=", "checkpoint"),
        ("checkpoint=0.9", "checkpoint"),
        ("checkpoint=86401", "checkpoint"),
        ("checkpoint=nan", "checkpoint"),
        ("checkpoint=1e3", "checkpoint"),
        ("checkpoint=1&checkpoint=2", "checkpoint"),
        ("checkpoint=10&snapshot=0", "checkpoint"),
        ("checkpoint=10&event=open", "checkpoint"),
        ("&".join(["pid=1"] * 101), "query"),
        ("port=" + ",".join(["0-65535"] * 101), "query"),
        ("addr=" + ",".join(["10.0.0.1"] * 60) + "&pid=" + ",".join(["1"] * 60), "query"),
    ],
)
def test_an_error_names_the_parameter(query: str, argument: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse_query(query)
    assert raised.value.argument == argument
    assert str(raised.value)


@given(st.lists(st.text(min_size=1), max_size=5))
def test_a_target_means_what_it_means_on_the_command_line(words: list[str]) -> None:
    def outcome(parse: Callable[[], Filter]) -> Filter | tuple[str, str]:
        try:
            return parse()
        except UsageError as error:
            return error.argument, str(error)

    query = urlencode([("target", word) for word in words])
    expected = outcome(lambda: Filter(parse_targets(words)))
    assert outcome(lambda: parse_query(query).filter) == expected


@given(
    st.lists(st.sampled_from(["epoch=a", "epoch=b", "epoch=", "since=1", "since=x", "target=:1"]))
)
def test_pairs_are_complete_or_refused(parameters: list[str]) -> None:
    try:
        positions = parse_query("&".join(parameters)).positions
    except UsageError:
        return
    named = [one.removeprefix("epoch=") for one in parameters if one.startswith("epoch")]
    assert [epoch for epoch, _seq in positions] == named
    assert parameters.count("since=1") == len(named)


@given(st.text())
def test_arbitrary_text_raises_usage_errors_only(query: str) -> None:
    with suppress(UsageError):
        parse_query(query)
