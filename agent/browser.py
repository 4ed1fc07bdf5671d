"""Opens a page in the browser of the user who runs the agent, if there is one."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from threading import Thread

from .log import log

# Any of these variables says that this user has a graphical session.
_DISPLAYS = ("DISPLAY", "WAYLAND_DISPLAY")
_OPENER = "xdg-open"


def open_page(url: str, redirect: str, environment: Mapping[str, str]) -> None:
    """Open a URL in a browser, if there is one; do not wait for it. Raises OSError.

    Every user can see the arguments of a process, but not the token in the URL: the browser gets
    the path of a file that leads to it. The file ``redirect`` is created for this user alone.
    """
    command = browser_command(environment, Path(redirect).as_uri())
    if command is None:
        return
    with open(os.open(redirect, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(
            f'<!doctype html>\n<meta http-equiv="refresh" content="0; url={url}">\n'
            f'<title>sockagent</title>\n<a href="{url}">sockagent</a>\n'
        )
    Thread(target=_run, args=(command,), name="browser", daemon=True).start()


def browser_command(environment: Mapping[str, str], uri: str) -> list[str] | None:
    """Return the command that opens a URI: of the variable BROWSER, or in a graphical session
    xdg-open; None where there is neither. With sudo(8) there is none: most browsers refuse to run
    as root."""
    if "SUDO_USER" in environment:
        return None
    for words in _browsers(environment):
        if words and shutil.which(words[0], path=environment.get("PATH")):
            if any("%s" in word for word in words):
                return [word.replace("%s", uri) for word in words]
            return [*words, uri]
    return None


def _browsers(environment: Mapping[str, str]) -> Iterator[list[str]]:
    """Yield commands; those of BROWSER are separated by colons."""
    for entry in environment.get("BROWSER", "").split(":"):
        try:
            yield shlex.split(entry)
        except ValueError:  # A quote without its end.
            continue
    if any(environment.get(name) for name in _DISPLAYS):
        yield [_OPENER]


def _run(command: list[str]) -> None:
    """Run a browser in a session of its own, so that it neither uses this terminal nor ends with
    ^C."""
    try:
        subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            check=False,
        )
    except OSError as error:
        log(f"warning: cannot run {command[0]}: {error.strerror}")
