"""The command ``sockagent fleet``."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from agent import fleet_command
from agent.cli import main
from agent.errors import CommandError, ConfigFailure, SockagentError, UsageError
from agent.fleet_command import HELP, run_fleet, stream_settings
from agent.fleet_settings import EVERYTHING, Keep
from agent.stream.fleet import parse_broker

STREAM = Path(__file__).parents[1] / "systemd/nats/stream.json"


@pytest.fixture(autouse=True)
def logged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.chdir(tmp_path)
    messages: list[str] = []
    monkeypatch.setattr(fleet_command, "log", messages.append)
    return messages


def test_the_configuration_has_a_user_for_each_host(tmp_path: Path, logged: list[str]) -> None:
    text = run_fleet(["config", "web1", "db1.example"])
    passwords = {}
    for name in ("admin", "reader", "web1", "db1%2Eexample"):
        path = tmp_path / f"{name}.creds"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        passwords[name] = path.read_text().strip()
    assert len(set(passwords.values())) == 4
    assert min(map(len, passwords.values())) >= 32
    assert logged == [f"passwords: 4, of which 4 are new, in files USER.creds in {tmp_path}"]
    assert (
        text
        == f"""\
listen: "127.0.0.1:4222"
jetstream {{ store_dir: "/var/lib/nats" }}
authorization {{ users: [
  {{ user: "admin", password: "{passwords["admin"]}" }}
  {{ user: "reader", password: "{passwords["reader"]}", permissions: {{ publish: \
["$JS.API.STREAM.INFO.SOCKAGENT", "$JS.API.CONSUMER.CREATE.SOCKAGENT.>", \
"$JS.API.CONSUMER.MSG.NEXT.SOCKAGENT.>", "$JS.API.CONSUMER.DELETE.SOCKAGENT.>"], subscribe: \
["_INBOX.reader.>"] }} }}
  {{ user: "web1", password: "{passwords["web1"]}", permissions: {{ publish: ["sockagent.web1", \
"$JS.API.DIRECT.GET.SOCKAGENT.sockagent.web1"], subscribe: ["_INBOX.web1.>"] }} }}
  {{ user: "db1%2Eexample", password: "{passwords["db1%2Eexample"]}", permissions: {{ publish: \
["sockagent.db1%2Eexample", "$JS.API.DIRECT.GET.SOCKAGENT.sockagent.db1%2Eexample"], subscribe: \
["_INBOX.db1%2Eexample.>"] }} }}
] }}
"""
    )


def test_hosts_can_be_added_later(tmp_path: Path, logged: list[str]) -> None:
    before = run_fleet(["config", "web1"]).splitlines()
    logged.clear()
    after = run_fleet(["config", "web1", "db1"]).splitlines()
    assert [line for line in after if "db1" not in line] == before
    assert logged == [f"passwords: 4, of which 1 are new, in files USER.creds in {tmp_path}"]


def test_with_a_certificate_the_broker_is_reached_from_elsewhere(tmp_path: Path) -> None:
    key = tmp_path / "a.key"
    for path in (tmp_path / "a.crt", key):
        path.touch()
    text = run_fleet(["config", "--tls-cert", "a.crt", "--tls-key", str(key), "web1"])
    assert text.startswith('listen: "0.0.0.0:4222"\n')
    assert f'\ntls {{ cert_file: "{tmp_path}/a.crt", key_file: "{key}" }}\n' in text


def test_a_certificate_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "a.crt").touch()
    with pytest.raises(ConfigFailure, match=r"^a\.key: No such file"):
        run_fleet(["config", "--tls-cert", "a.crt", "--tls-key", "a.key", "web1"])
    assert not list(tmp_path.glob("*.creds"))


@pytest.mark.parametrize(
    ("host", "advice"),
    [
        ("db1,app1", "; write the names as separate words: db1 app1"),
        ("web 1", "; write the names as separate words: web 1"),
        ("web1,", "; write the names as separate words: web1"),
        (" , ", ""),
    ],
)
def test_several_names_in_one_word(host: str, advice: str, tmp_path: Path) -> None:
    with pytest.raises(CommandError) as raised:
        run_fleet(["config", host])
    assert str(raised.value) == f"fleet config: {host!r} is not the name of a host{advice}"
    assert not list(tmp_path.glob("*.creds"))


@pytest.mark.parametrize("content", [b"", b'a"b\n', b"\xff\n", b"a b\n"])
def test_a_file_that_has_no_password_is_kept(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "web1.creds").write_bytes(content)
    with pytest.raises(ConfigFailure, match=r"^web1\.creds: not a password"):
        run_fleet(["config", "web1"])
    assert (tmp_path / "web1.creds").read_bytes() == content


def test_a_directory_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "admin.creds").mkdir()
    with pytest.raises(ConfigFailure, match=r"^admin\.creds: Is a directory"):
        run_fleet(["config", "web1"])


@pytest.mark.parametrize(
    ("line", "error", "reason"),
    [
        ("", CommandError, "expected config or init, not ''"),
        ("make", CommandError, "expected config or init, not 'make'"),
        ("config", CommandError, "name the hosts"),
        ("config admin", CommandError, "the name of another user"),
        ("config web1 --follow", CommandError, "--follow does not apply"),
        ("config web1 --no-page", CommandError, "--no-page does not apply"),
        ("config web1 --tls-cert a", CommandError, "belong together"),
        ("init", CommandError, "give one URL with --connect"),
        ("init web1 --connect nats://127.0.0.1", CommandError, "a target does not apply"),
        ("init --connect ws://127.0.0.1:1", UsageError, "expected nats://HOST:PORT"),
        ("init --connect nats://broker.example", UsageError, "requires tls://"),
        ("init --connect nats://127.0.0.1 --keep 1x", UsageError, "not an age or a size"),
        ("init --connect nats://127.0.0.1 --record d", CommandError, "--record does not apply"),
        ("init --connect nats://a@127.0.0.1 --nats-creds none", ConfigFailure, "No such file"),
    ],
)
def test_wrong_usage(line: str, error: type[SockagentError], reason: str) -> None:
    with pytest.raises(error, match=reason):
        run_fleet(line.split())


@pytest.mark.parametrize("line", ["fleet --help", "help fleet", "fleet init -h"])
def test_help(
    line: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.log.capture_libraries", lambda: None)
    assert main(line.split()) == 0
    assert capsys.readouterr().out == HELP


def test_the_stream_is_the_one_of_the_file_for_other_clients() -> None:
    made = stream_settings(parse_broker("nats://127.0.0.1"), EVERYTHING)
    assert made == json.loads(STREAM.read_text())


def test_the_limits_and_the_prefix_of_a_stream() -> None:
    made = stream_settings(parse_broker("nats://127.0.0.1/eu.prod"), Keep(3600, 10**9))
    assert (made["name"], made["subjects"]) == ("EU", ["eu.prod.>"])
    assert (made["max_age"], made["max_bytes"]) == (3600 * 10**9, 10**9)
