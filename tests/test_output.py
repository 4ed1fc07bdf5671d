"""Which format is printed, and what the terminal can show."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from agent import output
from agent.config import ENDLESS_FORMATS, FORMATS, Config, Network, View
from agent.errors import UsageError
from agent.output import OUTPUT_VARIABLE, choose_format, is_terminal, view_options

REMOTE = Network(connect=("ws://127.0.0.1:1",))
UTF8 = {"LANG": "C.UTF-8"}


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Standard output is a terminal of 100 columns."""
    monkeypatch.setattr(output, "is_terminal", lambda: True)
    monkeypatch.setenv("COLUMNS", "100")


@pytest.fixture
def no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "is_terminal", lambda: False)


def on_terminal(variable: str | None = None, **more: Any) -> str:
    environment = {} if variable is None else {OUTPUT_VARIABLE: variable}
    return choose_format(Config(**more), environment, is_terminal=True)


# The format.


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, "summary"),
        ({"view": View(targets=True)}, "table"),
        ({"view": View(columns=("pid",))}, "table"),
        ({"view": View(sort="pid")}, "table"),
        ({"follow": True}, "log"),
        ({"follow": True, "view": View(targets=True)}, "log"),
        ({"network": REMOTE}, "log"),
        ({"view": View(output="pid")}, "pid"),
    ],
)
def test_the_format_of_a_terminal(config: dict[str, Any], expected: str) -> None:
    assert on_terminal(**config) == expected


@pytest.mark.parametrize("variable", [None, "", "table", "unknown"])
def test_a_pipe_gets_records(variable: str | None) -> None:
    environment = {} if variable is None else {OUTPUT_VARIABLE: variable}
    for config in (Config(), Config(follow=True), Config(view=View(targets=True))):
        assert choose_format(config, environment, is_terminal=False) == "ndjson"
    chosen = Config(view=View(output="wide"))
    assert choose_format(chosen, environment, is_terminal=False) == "wide"


@pytest.mark.parametrize("name", FORMATS)
def test_the_variable_chooses_the_format_of_a_terminal(name: str) -> None:
    assert on_terminal(name, view=View(targets=True)) == name
    assert on_terminal(name, view=View(output="pid")) == "pid"
    expected = name if name in ENDLESS_FORMATS else "log"
    assert on_terminal(name, follow=True) == expected
    assert on_terminal(name, network=REMOTE) == expected


def test_an_empty_variable_chooses_nothing() -> None:
    assert on_terminal("") == "summary"


def test_an_unknown_format_in_the_variable() -> None:
    with pytest.raises(UsageError, match=r"SOCKAGENT_OUTPUT='xml': expected one of ndjson, json"):
        on_terminal("xml")
    assert on_terminal("xml", view=View(output="pid")) == "pid"


# The terminal.


def test_a_pipe_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    monkeypatch.setattr(output, "STDOUT", writing)
    assert not is_terminal()
    os.close(reading)
    os.close(writing)
    assert not is_terminal()  # A closed descriptor is none either.


def test_a_pseudo_terminal_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    leader, follower = os.openpty()
    monkeypatch.setattr(output, "STDOUT", follower)
    assert is_terminal()
    os.close(leader)
    os.close(follower)


def test_errors_are_seen_where_both_are_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    leader, follower = os.openpty()
    for out in (follower, 10**6):  # The latter is closed.
        for error in (follower, 10**6):
            monkeypatch.setattr(output, "STDOUT", out)
            monkeypatch.setattr(output, "STDERR", error)
            assert output.errors_are_seen() == (out == error == follower)
    os.close(leader)
    os.close(follower)


@pytest.mark.usefixtures("terminal")
def test_the_width_is_that_of_the_terminal() -> None:
    assert view_options(Config(), "table", UTF8).width == 100


@pytest.mark.usefixtures("no_terminal")
def test_nothing_is_shortened_in_a_pipe() -> None:
    options = view_options(Config(), "table", {})
    assert (options.width, options.color, options.ascii) == (None, False, False)


@pytest.mark.usefixtures("terminal")
@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, True),
        ({"TERM": "xterm"}, True),
        ({"NO_COLOR": "1"}, False),
        ({"NO_COLOR": ""}, True),
        ({"TERM": "dumb"}, False),
    ],
)
def test_colour(environment: dict[str, str], expected: bool) -> None:
    assert view_options(Config(), "table", environment).color == expected
    for wanted in ("always", "never"):
        config = Config(view=View(color=wanted))
        assert view_options(config, "table", environment).color == (wanted == "always")


@pytest.mark.usefixtures("no_terminal")
def test_colour_in_a_pipe_must_be_asked_for() -> None:
    assert not view_options(Config(), "table", {"TERM": "xterm"}).color
    assert view_options(Config(view=View(color="always")), "table", {}).color


@pytest.mark.usefixtures("terminal")
@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, True),
        ({"LANG": "C"}, True),
        ({"LANG": "en_US.ISO-8859-1"}, True),
        ({"LANG": "en_US.UTF-8"}, False),
        ({"LANG": "C.utf8"}, False),
        ({"LC_CTYPE": "C.UTF-8", "LANG": "C"}, False),
        ({"LC_ALL": "C", "LC_CTYPE": "C.UTF-8", "LANG": "C.UTF-8"}, True),
        ({"LC_ALL": "", "LC_CTYPE": "", "LANG": "C.UTF-8"}, False),
    ],
)
def test_the_locale_says_what_can_be_shown(environment: dict[str, str], expected: bool) -> None:
    assert view_options(Config(), "table", environment).ascii == expected


# What the user asked for.


@pytest.mark.usefixtures("terminal")
def test_the_options_are_those_of_the_view() -> None:
    view = View(columns=("pid", "LOCAL"), sort="-pid", header=False, utc=True)
    options = view_options(Config(view=view), "table", UTF8)
    assert (options.columns, options.sort) == (("pid", "LOCAL"), "-pid")
    assert (options.header, options.utc, options.wide, options.hosts) == (False, True, False, False)
    assert view_options(Config(), "wide", UTF8).wide


@pytest.mark.usefixtures("terminal")
def test_the_host_is_named_where_there_are_several() -> None:
    two = Network(connect=("ws://127.0.0.1:1", "ws://127.0.0.1:2"))
    assert view_options(Config(network=two), "log", UTF8).hosts
    assert not view_options(Config(network=REMOTE), "log", UTF8).hosts


@pytest.mark.usefixtures("terminal")
def test_the_host_is_named_of_a_directory_of_records(tmp_path: Path) -> None:
    file = tmp_path / "records"
    file.touch()
    assert view_options(Config(view=View(read=str(tmp_path))), "log", UTF8).hosts
    assert not view_options(Config(view=View(read=str(file))), "log", UTF8).hosts


@pytest.mark.parametrize(
    ("view", "message"),
    [
        (View(columns=("pid", "lokal")), "no column 'lokal'; did you mean local"),
        (View(sort="-pit"), "no column 'pit'; did you mean pid"),
        (View(columns=("#",)), "no column '#'; expected one of age, "),
    ],
)
def test_unknown_columns(view: View, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        view_options(Config(view=view), "table", UTF8)
