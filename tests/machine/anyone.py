"""The command as run by an unprivileged user, from files which that user may read."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from .helpers import HOLDER, must_have, need_root, need_tool

NOBODY = 65534
_PACKAGES = ("agent", "aiofiles", "orjson", "websockets")
_NEEDLESS = ("__pycache__", "site-packages", "test", "tests", "idlelib", "config-*", "*.a")


class Anyone(NamedTuple):
    """Commands of an unprivileged user; ``become`` goes before any command."""

    become: tuple[str, ...]
    python: tuple[str, ...]
    sockagent: tuple[str, ...]
    holder: Path


@contextmanager
def unprivileged() -> Iterator[Anyone]:
    """Find or make an interpreter that every user may run, with a copy of the agent."""
    need_root()
    become = (need_tool("setpriv"), f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
    with tempfile.TemporaryDirectory(prefix="sockagent-tests-") as name:
        place = Path(name)
        place.chmod(0o755)
        holder = Path(shutil.copy(HOLDER, place))
        modules = place / "modules"
        for package in _PACKAGES:
            found = importlib.util.find_spec(package)
            assert found
            assert found.submodule_search_locations
            shutil.copytree(
                next(iter(found.submodule_search_locations)),
                modules / package,
                ignore=shutil.ignore_patterns("__pycache__"),
            )
        _open_up(place)
        for python in _interpreters(place):
            command = (*become, "env", f"PYTHONPATH={modules}", *python, "-P", "-B")
            if _works(command):
                yield Anyone(become, command, (*command, "-m", "agent"), holder)
                return
        must_have(False, "no interpreter that every user may run")


def _works(command: tuple[str, ...]) -> bool:
    tried = subprocess.run(
        (*command, "-c", f"import {', '.join(_PACKAGES)}, ctypes"),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        cwd="/",
    )
    return tried.returncode == 0


def _interpreters(place: Path) -> Iterator[tuple[str, ...]]:
    yield (sys.executable,)
    yield ("/usr/bin/python3",)
    # A copy, if the interpreter is in a directory that only its owner may enter.
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    source, copy = Path(sys.base_prefix), place / "python"
    (copy / "bin").mkdir(parents=True)
    shutil.copy(source / "bin" / version, copy / "bin")
    for library in (source / "lib").glob("libpython*.so*"):
        (copy / "lib").mkdir(exist_ok=True)
        shutil.copy(library, copy / "lib")
    shutil.copytree(
        source / "lib" / version,
        copy / "lib" / version,
        ignore=shutil.ignore_patterns(*_NEEDLESS),
    )
    _open_up(copy)
    settings = (f"PYTHONHOME={copy}", f"LD_LIBRARY_PATH={copy / 'lib'}")
    yield ("env", *settings, str(copy / "bin" / version))


def _open_up(place: Path) -> None:
    for directory, _names, files in os.walk(place):
        Path(directory).chmod(0o755)
        for file in files:
            path = Path(directory, file)
            path.chmod(path.stat().st_mode | 0o444)
