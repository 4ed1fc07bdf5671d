"""The remote agents and fleets as they are configured."""

from __future__ import annotations

import sys

import pytest

from agent import remotes
from agent.config import Config, Network
from agent.errors import RuntimeFailure
from agent.remotes import configured_fleets
from agent.stream.filters import Filter


@pytest.mark.parametrize(
    ("url", "warns"), [("nats://192.0.2.1:4222", True), ("nats://127.0.0.1:4222", False)]
)
def test_a_fleet_that_is_read_without_encryption_is_warned_of(
    monkeypatch: pytest.MonkeyPatch, url: str, warns: bool
) -> None:
    said: list[str] = []
    monkeypatch.setattr(remotes, "log", said.append)
    config = Config(network=Network(connect=(url,), insecure=warns))
    (fleet,) = configured_fleets(config, Filter())
    assert fleet.url == url
    assert said == ([f"warning: {url} is not encrypted; use tls://"] if warns else [])


def test_without_the_library_no_fleet_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nats.aio.client", None)
    config = Config(network=Network(connect=("nats://127.0.0.1:4222",)))
    with pytest.raises(RuntimeFailure, match="pip install"):
        configured_fleets(config, Filter())
    agents = Config(network=Network(connect=("ws://127.0.0.1:1",)))
    assert configured_fleets(agents, Filter()) == []
