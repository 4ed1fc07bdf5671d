import dataclasses
import math
from dataclasses import replace
from typing import Any

import pytest

from agent.address import parse_address
from agent.config import Config, Network, View
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


@pytest.mark.parametrize(
    "settings",
    [{"follow": True}, {"network": Network(connect=("ws://h",))}],
)
def test_checkpoints_are_of_a_stream(settings: dict[str, Any]) -> None:
    assert Config(checkpoint=1.0, **settings).checkpoint == 1.0
    for more in (
        {"checkpoint": 0.9},
        {"checkpoint": math.nan},
        {"filter": Filter({"event": ["open"]})},
        {"view": View(output="log")},
    ):
        with pytest.raises(UsageError) as caught:
            Config(**({"checkpoint": 5.0} | settings | more))
        assert caught.value.argument == "checkpoint"


@pytest.mark.parametrize("network", [Network(), Network(listen=(parse_address("localhost:1"),))])
def test_checkpoints_require_that_a_stream_is_printed(network: Network) -> None:
    with pytest.raises(UsageError) as caught:
        Config(checkpoint=5.0, network=network)
    assert caught.value.argument == "checkpoint"


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
RELAY = Network(connect=("ws://h",), listen=LOCAL)


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
        {"connect": ("wss://h",), "connect_token_file": "t", "connect_tls_ca": "a"},
        {"connect": ("wss://h",), "listen": LOCAL, "token_file": "t", "connect_token_file": "u",
         "connect_tls_cert": "c", "connect_tls_key": "k"},
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
        (
            {"listen": LOCAL, "connect": ("wss://h",), "tls_ca": "a", "connect_tls_ca": "b"},
            "tls-ca",
        ),
        ({"listen": LOCAL, "max_clients": 0}, "max-clients"),
        ({"listen": LOCAL, "max_handshakes": -1}, "max-handshakes"),
        ({"listen": LOCAL, "socket_mode": 0o1000}, "socket-mode"),
        ({"token_file": "t"}, "token-file"),
        ({"max_clients": 5}, "max-clients"),
        ({"connect": ("ws://h",), "socket_mode": 0o660}, "socket-mode"),
        ({"connect": ("ws://h", "ws://h")}, "connect"),
        ({"page": False}, "no-page"),
        ({"listen": LOCAL, "allow_origin": ("*",)}, "allow-origin"),
        ({"listen": LOCAL, "allow_origin": ("dash.example",)}, "allow-origin"),
        ({"listen": LOCAL, "allow_origin": ("https://dash.example/page",)}, "allow-origin"),
        ({"listen": LOCAL, "allow_host": ("a b",)}, "allow-host"),
        ({"listen": LOCAL, "allow_host": ("a.example:80",)}, "allow-host"),
        ({"insecure": True}, "insecure"),
        ({"allow_host": ("h",), "connect": ("ws://h",)}, "allow-host"),
        ({"connect_token_file": "t", "listen": LOCAL}, "connect-token-file"),
        ({"connect_tls_cert": "c", "connect": ("ws://h",)}, "connect-tls-key"),
        (
            {"token_file": "t", "connect_token_file": "u", "connect": ("ws://h",)},
            "connect-token-file",
        ),
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


def test_beside_a_server_without_a_certificate_the_ca_is_of_the_client() -> None:
    relay = Network(listen=LOCAL, connect=("wss://h",), tls_ca="a")
    assert relay.client.tls_ca == "a"
    server = replace(relay, tls_cert="c", tls_key="k")
    assert server.client.tls_ca is None


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


@pytest.mark.parametrize(
    ("network", "argument"),
    [({"connect": ("ws://h",)}, "read"), ({"listen": LOCAL}, "read")],
)
def test_a_recording_is_not_read_by_a_server_or_client(
    network: dict[str, Any], argument: str
) -> None:
    with pytest.raises(UsageError) as raised:
        Config(network=Network(**network), view=View(read="x"))
    assert raised.value.argument == argument


# What is printed.


@pytest.mark.parametrize(
    ("config", "view"),
    [
        ({}, {"output": "json", "resolve": True}),
        ({}, {"output": "csv", "columns": ("comm",), "sort": "-pid", "header": False}),
        ({}, {"output": "summary", "header": False}),
        ({}, {"quiet": True}),
        ({"follow": True}, {"output": "log", "utc": True}),
        ({"follow": True}, {"output": "ndjson"}),
        ({"follow": True}, {"quiet": True, "timeout": 0.1}),
        ({"network": Network(connect=("ws://h",))}, {"output": "log", "timeout": 5.0}),
        ({"network": Network(listen=LOCAL), "follow": True}, {"output": "log"}),
        ({"network": RELAY, "follow": True}, {"output": "log", "timeout": 5.0}),
        ({"filter": Filter({"event": ["open"]})}, {"read": "x", "output": "log"}),
        ({}, {"read": "x", "at": 0.0, "output": "table", "sort": "pid"}),
        ({"all": True}, {"read": "x", "output": "summary"}),
    ],
)
def test_valid_views(config: dict[str, Any], view: dict[str, Any]) -> None:
    assert Config(**config, view=View(**view)).view == View(**view)


@pytest.mark.parametrize(
    ("config", "view", "argument", "sentence"),
    [
        ({"network": RELAY}, {"output": "log"}, "output", "--listen prints nothing; add --follow"),
        ({"network": RELAY}, {"timeout": 5.0}, "timeout", "ends --follow; add --follow"),
        ({}, {"timeout": 5.0}, "timeout", "ends --follow; add --follow"),
        ({"follow": True}, {"timeout": 0.0}, "timeout",
         "must be a number of seconds from 0.1 to 86400"),
        ({"follow": True}, {"timeout": math.nan}, "timeout",
         "must be a number of seconds from 0.1 to 86400"),
        ({}, {"quiet": True, "output": "json"}, "quiet", "prints nothing; remove -o json"),
        ({}, {"sort": "-"}, "sort", "empty name; expected for example pid or -recv_q"),
        ({}, {"output": "json", "columns": ("pid",)}, "columns",
         "json has no columns; use -o table or csv"),
        ({}, {"output": "summary", "sort": "pid"}, "sort",
         "summary has no columns; use -o table or csv"),
        ({}, {"output": "pid", "header": False}, "no-header",
         "pid has no header; remove --no-header"),
        ({}, {"at": 1.0}, "at", "shows a recording; add --read FILE"),
        ({}, {"at": 1.0, "read": "x", "output": "log"}, "at", "shows one moment; use -o table"),
        ({}, {"output": "log"}, "output", "log shows changes; add --follow, or use -o table"),
        ({"follow": True}, {"output": "json"}, "output",
         "json shows one snapshot; with --follow use -o ndjson"),
        ({"follow": True}, {"output": "table"}, "output",
         "table shows one snapshot; with --follow use -o log"),
        ({"network": Network(connect=("ws://h",))}, {"output": "table"}, "output",
         ("table shows one snapshot; with --connect use -o log, or pipe what --connect URL "
          "--timeout 3 prints into sockagent --read - -o table")),
        ({"follow": True}, {"columns": ("pid",)}, "columns",
         "cannot be combined with --follow; it is for one snapshot"),
        ({"network": Network(listen=LOCAL)}, {"output": "log"}, "output",
         "--listen prints nothing; add --follow"),
        ({"network": Network(listen=LOCAL)}, {"quiet": True}, "quiet",
         "--listen prints nothing; add --follow"),
        ({"follow": True}, {"read": "x"}, "read", "cannot be combined with --follow; use -o log"),
        ({"proc": "/x"}, {"read": "x"}, "proc",
         "cannot be combined with --read; a recording shows what it has"),
    ],
)  # fmt: skip
def test_an_invalid_view_names_the_option(
    config: dict[str, Any], view: dict[str, Any], argument: str, sentence: str
) -> None:
    with pytest.raises(UsageError) as raised:
        Config(**config, view=View(**view))
    assert (raised.value.argument, str(raised.value)) == (argument, sentence)


# The files of the client.


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        (Network(connect=("ws://h",), token_file="t", tls_ca="a"), ("t", None, None, "a")),
        (Network(connect=("ws://h",), connect_token_file="t"), ("t", None, None, None)),
        (Network(connect=("ws://h",), listen=LOCAL, token_file="t"), (None, None, None, None)),
        (
            Network(
                connect=("ws://h",), listen=LOCAL, token_file="t", connect_token_file="u",
                connect_tls_cert="c", connect_tls_key="k", connect_tls_ca="a",
            ),
            ("u", "c", "k", "a"),
        ),
    ],
)  # fmt: skip
def test_a_relay_has_files_of_its_own_for_the_agents(
    network: Network, expected: tuple[str | None, ...]
) -> None:
    assert network.client == expected


def test_a_fleet_is_read_with_credentials() -> None:
    network = Network(connect=("nats://127.0.0.1:4222",), nats_creds="/creds")
    assert network.has_fleet
    with pytest.raises(UsageError, match="requires --publish, or --connect nats://HOST:PORT"):
        Network(connect=("ws://127.0.0.1:1",), nats_creds="/creds")


def test_a_fleet_at_another_host_is_read_over_tls_only() -> None:
    with pytest.raises(UsageError, match="requires tls:// "):
        Network(connect=("nats://192.0.2.1:4222",))
    for network in (
        Network(connect=("tls://192.0.2.1:4222",)),
        Network(connect=("nats://192.0.2.1:4222",), insecure=True),
    ):
        assert network.has_fleet
