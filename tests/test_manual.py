"""The committed man page and completions match the argument parser."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def contents(directory: Path) -> dict[str, str]:
    """Return the text of each file below a directory by its relative path."""
    return {
        str(path.relative_to(directory)): path.read_text(encoding="utf-8")
        for path in directory.rglob("*")
        if path.is_file()
    }


def test_the_man_page_and_the_completions_are_current(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "systemd/manual.py", tmp_path], cwd=ROOT, check=True)
    assert contents(ROOT / "share") == contents(tmp_path), "run make man"
