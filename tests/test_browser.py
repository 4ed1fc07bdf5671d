"""Which browser opens a page, and how the page's token stays out of its arguments."""

from __future__ import annotations

import stat
import subprocess
from pathlib import Path

import pytest

from agent.browser import browser_command, open_page

URI = "file:///run/user/1000/sockagent.html"
URL = "http://127.0.0.1:41234/#token=secret"
# Ends when the browser was run: the test then has its arguments.
HANGS_SECONDS = 20.0


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A PATH with the programs xdg-open and firefox."""
    for name in ("xdg-open", "firefox"):
        program = tmp_path / name
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
    return str(tmp_path)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        ({"DISPLAY": ""}, None),
        ({"DISPLAY": ":0"}, ["xdg-open", URI]),
        ({"WAYLAND_DISPLAY": "wayland-0"}, ["xdg-open", URI]),
        ({"BROWSER": "firefox"}, ["firefox", URI]),
        ({"BROWSER": "firefox --new-tab"}, ["firefox", "--new-tab", URI]),
        ({"BROWSER": "firefox '%s' &"}, ["firefox", URI, "&"]),
        ({"BROWSER": "lynx:firefox"}, ["firefox", URI]),
        ({"BROWSER": "firefox", "DISPLAY": ":0"}, ["firefox", URI]),
        ({"BROWSER": "lynx"}, None),
        ({"BROWSER": "lynx", "DISPLAY": ":0"}, ["xdg-open", URI]),
        ({"BROWSER": "'firefox: ", "DISPLAY": ":0"}, ["xdg-open", URI]),
        ({"BROWSER": "firefox", "DISPLAY": ":0", "SUDO_USER": "alice"}, None),
    ],
)
def test_the_browser(environment: dict[str, str], expected: list[str] | None, path: str) -> None:
    assert browser_command({**environment, "PATH": path}, URI) == expected


def test_where_xdg_open_is_not_installed_there_is_no_browser(tmp_path: Path) -> None:
    assert browser_command({"DISPLAY": ":0", "PATH": str(tmp_path)}, URI) is None


def test_the_browser_gets_a_file_that_only_this_user_can_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    redirect = tmp_path / "redirect.html"
    calls: list[tuple[list[str], dict[str, object]]] = []

    class Now:
        """A thread that runs at once."""

        def __init__(self, *, target, args, **_options) -> None:  # type: ignore[no-untyped-def]
            self.start = lambda: target(*args)

    monkeypatch.setattr("agent.browser.Thread", Now)
    monkeypatch.setattr(
        subprocess, "run", lambda command, **options: calls.append((command, options))
    )
    environment = {"BROWSER": "cat", "PATH": "/usr/bin:/bin"}
    open_page(URL, str(redirect), environment)
    ((command, options),) = calls
    assert command == ["cat", redirect.as_uri()]
    assert options["start_new_session"]
    assert {options[name] for name in ("stdin", "stdout", "stderr")} == {subprocess.DEVNULL}
    assert stat.S_IMODE(redirect.stat().st_mode) == 0o600
    assert f'content="0; url={URL}"' in redirect.read_text()
    with pytest.raises(FileExistsError):  # It may belong to somebody else.
        open_page(URL, str(redirect), environment)


def test_without_a_browser_no_file_is_written(tmp_path: Path) -> None:
    open_page(URL, str(tmp_path / "redirect.html"), {"PATH": str(tmp_path)})
    assert not list(tmp_path.iterdir())
