import dataclasses
import math
from typing import Any

import pytest

from agent.address import parse_address
from agent.config import Config, Network
from agent.errors import UsageError
from agent.stream.filters import Filter


def test_the_default_is_one_snapshot_of_everything() -> None:
    config = Config()
    assert (config.follow, config.all, config.cmdline) == (False, False, False)
    assert (config.interval, config.proc, config.filter) == (1.0, "/proc", Filter())


@pytest.mark.parametrize("interval", [0.05, 1, 3600.5])
def test_intervals(interval: float) -> None:
    assert Config(interval=interval).interval == interval


@pytest.mark.parametrize("interval", [0.049, 0, -1, math.nan, math.inf, -math.inf])
def test_an_interval_that_is_too_short_or_not_finite_is_rejected(interval: float) -> None:
    with pytest.raises(UsageError) as caught:
        Config(interval=interval)
    assert caught.value.argument == "interval"


@pytest.mark.parametrize("name", ["sweep", "stats"])
@pytest.mark.parametrize("seconds", [0, -1, math.nan, math.inf])
def test_seconds_that_are_not_positive_and_finite_are_rejected(name: str, seconds: float) -> None:
    with pytest.raises(UsageError) as caught:
        Config(**{name: seconds})  # type: ignore[arg-type]
    assert caught.value.argument == name


def test_stats_have_a_minimum() -> None:
    assert Config(follow=True, stats=0.1).stats == 0.1
    with pytest.raises(UsageError) as caught:
        Config(follow=True, stats=0.09)
    assert caught.value.argument == "stats"


def test_all_requires_a_one_shot_snapshot() -> None:
    assert Config(all=True).all
    with pytest.raises(UsageError) as caught:
        Config(all=True, follow=True)
    assert caught.value.argument == "all"


def test_udp_events_require_that_events_are_read() -> None:
    assert Config(follow=True, events_udp=True).events_udp
    for settings in ({}, {"follow": True, "events": "off"}):
        with pytest.raises(UsageError) as caught:
            Config(events_udp=True, **settings)  # type: ignore[arg-type]
        assert caught.value.argument == "events-udp"


def test_a_config_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().follow = True  # type: ignore[misc]


# The network.

LOCAL = (parse_address("127.0.0.1:1"),)
REMOTE = (parse_address("0.0.0.0:1"),)


@pytest.mark.parametrize(
    "settings",
    [
        {"listen": LOCAL},
        {"listen": (*LOCAL, parse_address("unix:x")), "socket_mode": 0o660},
        {"listen": LOCAL, "token_file": "t", "allow_origin": ("https://a",), "allow_host": ("a",)},
        {"listen": REMOTE, "token_file": "t", "tls_cert": "c", "tls_key": "k"},
        {"listen": REMOTE, "insecure": True},
        {"connect": ("ws://h:1", "wss://h", "ws://[::1]:1/path?proto=tcp", "unix:/x")},
        {"connect": ("wss://h",), "token_file": "t", "tls_ca": "a", "tls_cert": "c",
         "tls_key": "k"},
    ],
)  # fmt: skip
def test_valid_networks(settings: dict[str, Any]) -> None:
    assert Config(network=Network(**settings)).is_continuous


@pytest.mark.parametrize(
    ("settings", "argument"),
    [
        ({"listen": REMOTE}, "listen"),
        ({"listen": REMOTE, "token_file": "t"}, "listen"),
        ({"listen": REMOTE, "tls_cert": "c", "tls_key": "k"}, "listen"),
        ({"listen": (*LOCAL, *REMOTE)}, "listen"),
        ({"listen": (parse_address("name.example:1"),)}, "listen"),
        ({"listen": LOCAL, "tls_cert": "c"}, "tls-key"),
        ({"listen": LOCAL, "tls_key": "k"}, "tls-cert"),
        ({"listen": LOCAL, "tls_ca": "a"}, "tls-ca"),
        ({"listen": LOCAL, "max_clients": 0}, "max-clients"),
        ({"listen": LOCAL, "max_handshakes": -1}, "max-handshakes"),
        ({"listen": LOCAL, "socket_mode": 0o1000}, "socket-mode"),
        ({"token_file": "t"}, "token-file"),
        ({"max_clients": 5}, "max-clients"),
        ({"connect": ("ws://h",), "socket_mode": 0o660}, "socket-mode"),
        ({"connect": ("ws://h", "ws://h")}, "connect"),
        ({"listen": LOCAL, "allow_origin": ("*",)}, "allow-origin"),
        ({"listen": LOCAL, "allow_origin": ("dash.example",)}, "allow-origin"),
        ({"listen": LOCAL, "allow_origin": ("https://dash.example/page",)}, "allow-origin"),
        ({"listen": LOCAL, "allow_host": ("a b",)}, "allow-host"),
        ({"listen": LOCAL, "allow_host": ("a.example:80",)}, "allow-host"),
        ({"insecure": True}, "insecure"),
        ({"allow_host": ("h",), "connect": ("ws://h",)}, "allow-host"),
        ({"listen": LOCAL, "connect": ("ws://h",)}, "connect"),
        ({"connect": ("http://h",)}, "connect"),
        ({"connect": ("h:1",)}, "connect"),
        ({"connect": ("ws://",)}, "connect"),
        ({"connect": ("ws://h:0",)}, "connect"),
        ({"connect": ("ws://h:99999",)}, "connect"),
        ({"connect": ("ws://h/#x",)}, "connect"),
        ({"connect": ("ws://user:secret@h",)}, "connect"),
        ({"connect": ("unix:",)}, "connect"),
    ],
)
def test_an_invalid_network_names_the_option(settings: dict[str, Any], argument: str) -> None:
    with pytest.raises(UsageError) as raised:
        Config(network=Network(**settings))
    assert raised.value.argument == argument
    assert "secret" not in str(raised.value)


def test_a_non_loopback_address_names_what_it_requires() -> None:
    with pytest.raises(UsageError) as raised:
        Network(listen=REMOTE)
    assert str(raised.value) == (
        "0.0.0.0:1: listening on a non-loopback address requires "
        "--token-file, --tls-cert and --tls-key (or --insecure)"
    )


@pytest.mark.parametrize(
    "settings", [{"interval": 2.0}, {"sweep": 5.0}, {"stats": 1.0}, {"all": True},
    {"events_udp": True},
                 {"cmdline": True}, {"proc": "/x"}, {"source": "procfs"}]
)  # fmt: skip
def test_settings_of_reading_are_rejected_with_connect(settings: dict[str, Any]) -> None:
    with pytest.raises(UsageError) as raised:
        Config(network=Network(connect=("ws://h",)), **settings)
    assert raised.value.argument == next(iter(settings)).replace("_", "-")
