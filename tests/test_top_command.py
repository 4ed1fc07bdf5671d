"""The command ``sockagent top``."""

from __future__ import annotations

import pytest

from agent import top_command
from agent.cli import main
from agent.config import Config, Network, View
from agent.errors import CommandError, RuntimeFailure
from agent.stream.filters import FILTERS, Filter
from agent.top_command import HELP, parse_top, require_screen


class Run:
    """Stands for the agent: records its settings."""

    def __init__(self) -> None:
        self.configs: list[Config] = []

    def __call__(self, config: Config) -> bool:
        self.configs.append(config)
        return False


@pytest.fixture
def agent(monkeypatch: pytest.MonkeyPatch) -> Run:
    run = Run()
    monkeypatch.setattr("agent.app.run", run)
    monkeypatch.setattr("agent.top_command._is_terminal", lambda _descriptor: True)
    monkeypatch.setenv("TERM", "xterm")
    return run


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr("agent.log.log", lines.append)
    return lines


def settings(agent: Run, line: str) -> Config:
    assert main(["top", *line.split()]) == 0
    return agent.configs.pop()


@pytest.mark.parametrize("words", ["top -h", "top --help", "top --read-only --help", "help top"])
def test_help(words: str, agent: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words.split()) == 0
    assert capsys.readouterr().out == HELP
    assert agent.configs == []
    assert all(len(text) <= 100 for text in HELP.splitlines())


def test_it_follows_this_machine(agent: Run) -> None:
    config = settings(agent, "")
    assert config == Config(follow=True, view=View(top=True))
    assert settings(agent, "--read-only").view == View(top=True, read_only=True)


def test_it_takes_the_options_that_say_what_is_read(agent: Run) -> None:
    line = (
        "--interval 0.5 --sweep 9 --cmdline --proc /p --source procfs --events on --events-udp "
        "--max-user-holdings 5 --utc --resolve -t --comm sshd :80 port!=22"
    )
    config = settings(agent, line)
    assert config.filter == Filter(
        {"proto": ["tcp"], "comm": ["sshd"], "port": ["80"], "port!": ["22"]}
    )
    assert config == Config(
        follow=True, interval=0.5, sweep=9, cmdline=True, proc="/p", source="procfs", events="on",
        events_udp=True, max_user_holdings=5, filter=config.filter,
        view=View(top=True, targets=True, utc=True, resolve=True),
    )  # fmt: skip


def test_it_shows_remote_agents(agent: Run) -> None:
    config = settings(agent, "--connect ws://a --connect unix:/s --token-file t :80")
    assert config.network == Network(connect=("ws://a", "unix:/s"), token_file="t")
    assert not config.follow


def test_it_shows_a_recording(agent: Run) -> None:
    config = settings(agent, "--read x.ndjson --at -5m nginx")
    assert config.view == View(top=True, targets=True, read="x.ndjson", at="-5m")
    assert not config.is_continuous


@pytest.mark.parametrize("name", [name for name in FILTERS if name != "event"])
def test_it_takes_every_filter_of_sockets(name: str) -> None:
    assert parse_top([f"--{name}", "x"])[name] == ["x"]


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("--listen unix:/s", "top: --listen does not apply"),
        ("--publish nats://h", "top: --publish does not apply"),
        ("--no-page", "top: --no-page does not apply"),
        ("--no-header", "top: --no-header does not apply"),
        ("--follow", "top: --follow does not apply"),
        ("--stats 5", "top: --stats does not apply"),
        ("--event open", "top: --event does not apply"),
        ("-a", "top: --all does not apply"),
        ("-o json", "top: --output does not apply"),
        ("--read -", "top: --read - does not apply: the keys come from standard input"),
        ("--read-onyl", "there is no option --read-onyl; did you mean --read-only?"),
        ("--publis x", "there is no option --publis; see sockagent top --help"),
    ],
)
def test_other_options_are_wrong_usage(
    line: str, sentence: str, agent: Run, logged: list[str]
) -> None:
    with pytest.raises(CommandError):
        parse_top(line.split())
    assert main(["top", *line.split()]) == 2
    assert logged[0].startswith(sentence)
    assert agent.configs == []


@pytest.mark.parametrize(
    "line",
    ["--interval 0", "--port x", ":x", "--read x --connect ws://a", "--connect ws://a --interval 2",
     "--at -5m", "--token-file t"],
)  # fmt: skip
def test_wrong_values_are_wrong_usage(line: str, agent: Run, logged: list[str]) -> None:
    assert main(["top", *line.split()]) == 2
    assert agent.configs == []
    assert len(logged) == 1


@pytest.mark.parametrize(("missing", "name"), [(0, "input"), (1, "output")])
def test_without_a_terminal_one_sentence_names_follow(
    missing: int, name: str, agent: Run, logged: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(top_command, "_is_terminal", lambda descriptor: descriptor != missing)
    assert main(["top"]) == 2
    assert logged == [
        f"top: standard {name} is not a terminal; use sockagent --follow for a pipe or file"
    ]
    assert agent.configs == []


def test_a_dumb_terminal_is_refused_in_one_sentence(
    agent: Run, logged: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "dumb")
    assert main(["top"]) == 2
    assert logged == [
        "top: the terminal cannot move its cursor (TERM=dumb); use sockagent --follow"
    ]
    assert agent.configs == []


@pytest.mark.parametrize("word", ["--group", "--bogus", "--publish-encodin", "--no-pag", "--lisen"])
def test_a_mistyped_option_is_said_to_mean_one_that_applies(word: str) -> None:
    with pytest.raises(CommandError) as raised:
        parse_top([word])
    near = str(raised.value).partition("did you mean --")[2].rstrip("?").replace("-", "_")
    assert near in {"", "read_only", *top_command._ACCEPTED}


def test_without_the_extra_one_sentence_says_what_to_install(
    agent: Run, logged: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(top_command, "find_spec", lambda _name: None)
    with pytest.raises(RuntimeFailure):
        require_screen()
    assert main(["top"]) == 1
    assert logged == [
        "top needs an extra: pip install 'sockagent[top]'; sockagent --follow does without"
    ]
    assert agent.configs == []
