"""The modules of the page, tested in Node.js: what needs neither a document nor a network."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
NODE = shutil.which("node")
# Since this version an option makes modules of .js files; since version 22 they are by themselves.
MIN_NODE = (18, 19)


def node_version() -> tuple[int, ...]:
    if NODE is None:
        return (0,)
    output = subprocess.run([NODE, "--version"], capture_output=True, text=True, check=True).stdout
    return tuple(map(int, re.findall(r"\d+", output)))


VERSION = node_version()


@pytest.mark.skipif(VERSION < MIN_NODE, reason="Node.js 18.19 or newer is not installed")
@pytest.mark.parametrize("path", sorted(HERE.glob("*.test.js")), ids=lambda path: path.name)
def test_module(path: Path) -> None:
    assert NODE is not None
    flags = ["--experimental-default-type=module", "--no-warnings"] if VERSION < (22,) else []
    command = [NODE, *flags, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
