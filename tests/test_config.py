import dataclasses
import math
from typing import Any

import pytest

from agent.address import parse_address
from agent.config import Config, Network
from agent.errors import UsageError
from agent.stream.filters import Filter


def test_by_default_it_is_one_snapshot_of_everything() -> None:
    config = Config()
    assert (config.follow, config.all, config.cmdline) == (False, False, False)
    assert (config.interval, config.proc, config.filter) == (1.0, "/proc", Filter())


@pytest.mark.parametrize("interval", [0.05, 1, 3600.5])
def test_intervals(interval: float) -> None:
    assert Config(interval=interval).interval == interval


@pytest.mark.parametrize("interval", [0.049, 0, -1, math.nan, math.inf, -math.inf])
def test_an_interval_too_short_or_no_number_is_refused(interval: float) -> None:
    with pytest.raises(UsageError) as caught:
        Config(interval=interval)
    assert caught.value.argument == "interval"


@pytest.mark.parametrize("name", ["sweep", "stats"])
@pytest.mark.parametrize("seconds", [0, -1, math.nan, math.inf])
def test_seconds_that_are_none_are_refused(name: str, seconds: float) -> None:
    with pytest.raises(UsageError) as caught:
        Config(**{name: seconds})  # type: ignore[arg-type]
    assert caught.value.argument == name


def test_lines_about_itself_come_not_too_often() -> None:
    assert Config(follow=True, stats=0.1).stats == 0.1
    with pytest.raises(UsageError) as caught:
        Config(follow=True, stats=0.09)
    assert caught.value.argument == "stats"


def test_all_is_for_one_snapshot() -> None:
    assert Config(all=True).all
    with pytest.raises(UsageError) as caught:
        Config(all=True, follow=True)
    assert caught.value.argument == "all"


def test_it_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().follow = True  # type: ignore[misc]


# The network.

LOCAL = (parse_address("127.0.0.1:1"),)
FOREIGN = (parse_address("0.0.0.0:1"),)


@pytest.mark.parametrize(
    "settings",
    [
        {"listen": LOCAL},
        {"listen": (*LOCAL, parse_address("unix:x")), "socket_mode": 0o660},
        {"listen": LOCAL, "token_file": "t", "allow_origin": ("https://a",), "allow_host": ("a",)},
        {"listen": FOREIGN, "token_file": "t", "tls_cert": "c", "tls_key": "k"},
        {"listen": FOREIGN, "insecure": True},
        {"connect": ("ws://h:1", "wss://h", "ws://[::1]:1/path?proto=tcp", "unix:/x")},
        {"connect": ("wss://h",), "token_file": "t", "tls_ca": "a", "tls_cert": "c",
         "tls_key": "k"},
    ],
)  # fmt: skip
def test_networks(settings: dict[str, Any]) -> None:
    assert Config(network=Network(**settings)).polls


@pytest.mark.parametrize(
    ("settings", "argument"),
    [
        ({"listen": FOREIGN}, "listen"),
        ({"listen": FOREIGN, "token_file": "t"}, "listen"),
        ({"listen": FOREIGN, "tls_cert": "c", "tls_key": "k"}, "listen"),
        ({"listen": (*LOCAL, *FOREIGN)}, "listen"),
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
def test_networks_that_are_wrong(settings: dict[str, Any], argument: str) -> None:
    with pytest.raises(UsageError) as raised:
        Config(network=Network(**settings))
    assert raised.value.argument == argument
    assert "secret" not in str(raised.value)


def test_what_is_missing_to_be_exposed_is_said() -> None:
    with pytest.raises(UsageError, match=r"takes --token-file and --tls-cert and --tls-key; "):
        Network(listen=FOREIGN)


@pytest.mark.parametrize(
    "settings", [{"interval": 2.0}, {"sweep": 5.0}, {"stats": 1.0}, {"all": True},
                 {"cmdline": True}, {"proc": "/x"}, {"source": "procfs"}]
)  # fmt: skip
def test_what_is_read_elsewhere_is_not_set_here(settings: dict[str, Any]) -> None:
    with pytest.raises(UsageError) as raised:
        Config(network=Network(connect=("ws://h",)), **settings)
    assert raised.value.argument == next(iter(settings))
