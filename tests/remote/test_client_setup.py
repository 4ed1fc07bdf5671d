"""The remote agents that the settings name."""

import pytest

from agent.remote import client
from agent.remote.client import remote_agents
from agent.stream.filters import Filter

TOKEN = "0123456789abcdef"


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The lines on stderr."""
    lines: list[str] = []
    monkeypatch.setattr(client, "log", lines.append)
    return lines


def test_each_url_is_asked_for_the_filtered_records(logged: list[str]) -> None:
    chosen = Filter({"port": ["443", "80"], "proto!": ["udp"]})
    one, two = remote_agents(("ws://127.0.0.1:1", "unix:/x"), chosen, TOKEN, None)
    assert (one.url, one.token, one.tls, one.snapshots) == ("ws://127.0.0.1:1", TOKEN, None, True)
    assert sorted(one.query) == [("port", "443"), ("port", "80"), ("proto!", "udp")]
    assert "proto%21=udp" in one.request_url(())
    assert two.unix_path == "/x"
    assert logged == []


def test_a_filter_may_exclude_snapshots() -> None:
    (one,) = remote_agents(("ws://127.0.0.1:1",), Filter({"event": ["open"]}), None, None)
    assert not one.snapshots


def test_a_token_without_encryption_is_warned_of(logged: list[str]) -> None:
    urls = ("ws://192.0.2.1:1", "wss://192.0.2.1:1", "ws://localhost:1")
    remote_agents(urls, Filter(), TOKEN, None)
    (line,) = logged
    assert line.startswith("warning: the token is sent to ws://192.0.2.1:1 without encryption")
    assert TOKEN not in line
