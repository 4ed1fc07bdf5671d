"""From arguments to settings, and the exit statuses of the command."""

from typing import Any

import pytest

from agent import __version__
from agent.cli import main
from agent.config import Config, View
from agent.errors import ConfigFailure, RuntimeFailure
from agent.events_command import HELP as EVENTS_HELP
from agent.grammar import HELP
from agent.services import ports_of
from agent.stream.filters import Filter


class Run:
    """Stands for the agent: records its settings, and fails if it is told to."""

    def __init__(self) -> None:
        self.config: Config | None = None
        self.failure: Exception | None = None
        self.matched = True

    def __call__(self, config: Config, _scan: object) -> bool:
        self.config = config
        if self.failure is not None:
            raise self.failure
        return self.matched


@pytest.fixture
def agent(monkeypatch: pytest.MonkeyPatch) -> Run:
    run = Run()
    monkeypatch.setattr("agent.app.run", run)
    monkeypatch.setattr("agent.cli._start_scan", lambda _config: None)
    return run


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr("agent.log.log", lines.append)
    monkeypatch.setattr("agent.log.finish", lambda: None)
    return lines


def settings(agent: Run, line: str) -> Config:
    assert main(line.split()) == 0
    assert agent.config is not None
    return agent.config


@pytest.mark.parametrize(
    ("line", "values"),
    [
        ("", {}),
        ("-tulpn", {"proto": ["tcp", "udp"], "direction": ["listen,bound"]}),
        ("-tuxw", {"proto": ["tcp,udp,unix,raw"]}),
        ("-t --proto udp proto=unix", {"proto": ["tcp,udp,unix"]}),
        ("-46", {"family": ["inet", "inet6"]}),
        ("--external", {"scope": ["external"]}),
        (":8080 -t nginx --pid 7 10.0.0.7", {
            "port": ["8080"], "proto": ["tcp"], "name": ["nginx"], "pid": ["7"],
            "addr": ["10.0.0.7"],
        }),
        ("8080 --pid 1", {"pid": ["1", "8080"]}),
        ("-l port!=22", {"direction": ["listen", "bound"], "port!": ["22"]}),
        ("-- -x", {"name": ["-x"]}),
        ("nginx -- --all", {"name": ["nginx", "--all"]}),
    ],
)  # fmt: skip
def test_targets_and_short_options_are_filters(
    line: str, values: dict[str, list[str]], agent: Run
) -> None:
    config = settings(agent, line)
    assert config.filter == Filter(values)
    assert config.view.targets is bool(values)


@pytest.mark.parametrize(
    ("line", "view"),
    [
        ("-n -p", View()),
        ("-o json", View(output="json")),
        ("-ojson", View(output="json")),
        ("--output=wide --no-header", View(output="wide", header=False)),
        ("--columns comm,pid", View(output="table", columns=("comm", "pid"))),
        ("--sort -recv_q", View(output="table", sort="-recv_q")),
        ("--sort pid -o csv", View(output="csv", sort="pid")),
        ("--color never --utc --resolve --services",
         View(color="never", utc=True, resolve=True, services=True)),
        ("-q", View(quiet=True, answers=True)),
        ("nginx", View(targets=True, answers=True)),
        ("-t --port 1", View(targets=True)),
        ("-fq --timeout 30 :1", View(quiet=True, timeout=30.0, targets=True, answers=True)),
        ("--read x --utc --at 03:12:04", View(read="x", utc=True, at="03:12:04")),
        ("--read x --at -5m", View(read="x", at="-5m")),
        ("--read -", View(read="-")),
    ],
)  # fmt: skip
def test_options_of_the_output(line: str, view: View, agent: Run) -> None:
    assert settings(agent, line).view == view


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("help", HELP),
        ("help nginx", HELP),
        ("help events", EVENTS_HELP),
        ("help events status", EVENTS_HELP),
        ("-V", f"sockagent {__version__}\n"),
        ("--version", f"sockagent {__version__}\n"),
    ],
)
def test_help_and_version_are_printed(
    line: str, expected: str, agent: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(line.split()) == 0
    assert capsys.readouterr().out == expected
    assert agent.config is None


def test_help_all_prints_every_option(agent: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["help", "all"]) == 0
    assert "--max-handshakes" in capsys.readouterr().out
    assert agent.config is None


@pytest.mark.skipif(not ports_of("http"), reason="there is no services database")
def test_a_port_may_be_typed_as_a_name(agent: Run) -> None:
    assert settings(agent, ":http").filter == Filter({"port": ["80"]})
    assert settings(agent, "[::1]:http").filter == Filter({"endpoint": ["[::1]:80"]})


@pytest.mark.parametrize("line", ["name=help", "-t help", "-- help"])
def test_a_process_can_be_named_help(line: str, agent: Run) -> None:
    assert ("name", frozenset({"help"})) in settings(agent, line).filter.values


def test_short_names_of_options(agent: Run) -> None:
    assert settings(agent, "-a").all
    assert settings(agent, "-f").follow


@pytest.mark.parametrize(
    ("line", "failure", "status"),
    [
        ("", RuntimeFailure("x"), 1),
        ("-t", RuntimeFailure("x"), 1),
        ("nginx", RuntimeFailure("x"), 3),
        ("-q", RuntimeFailure("x"), 3),
        ("-q", OSError("x"), 3),
        ("nginx", ConfigFailure("x"), 78),
    ],
)
def test_a_failure_of_a_command_that_answers_has_a_status_of_its_own(
    line: str, failure: Exception, status: int, agent: Run, logged: list[str]
) -> None:
    agent.failure = failure
    assert main(line.split()) == status
    assert len(logged) == 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (":no-such", ("':no-such': 'no-such' is not a port or range of ports; expected for example "
         "443 or 8000-8100; see sockagent --help")),
        ("--port x", ("argument --port: 'x' is not a port or range of ports; expected for example "
         "443 or 8000-8100; see sockagent --help")),
        ("--at 2023-11-14", ("argument --at: shows a recording; add --read FILE; see sockagent "
         "--help")),
        ("-i :8080", "there is no option -i; type sockagent :8080"),
        ("prot=tcp", "'prot=tcp': there is no filter 'prot'; did you mean 'proto'?"),
        ("-o tabel", "argument -o/--output: there is no format 'tabel'; did you mean table?"),
    ],
)  # fmt: skip
def test_wrong_usage_is_one_sentence(
    line: str, message: str, agent: Run, logged: list[str]
) -> None:
    assert main(line.split()) == 2
    assert logged == [message]
    assert agent.config is None


def test_a_recording_is_read_without_a_scan(agent: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Any] = []
    monkeypatch.setattr("agent.cli._start_scan", started.append)
    settings(agent, "--read x")
    assert started == []
    settings(agent, "nginx")
    assert len(started) == 1


@pytest.mark.parametrize(
    ("line", "matched", "status"),
    [
        ("", False, 0),
        ("--port 80", False, 0),
        (":80", True, 0),
        (":80", False, 1),
        ("-q", True, 0),
        ("-q", False, 1),
    ],
)
def test_with_a_target_or_quiet_the_status_says_whether_something_matched(
    agent: Run, line: str, matched: bool, status: int
) -> None:
    agent.matched = matched
    assert main(line.split()) == status
