"""The views as a person sees them: 80, 120 and 200 columns, with and without colour, UTF-8 and
ASCII. ``python -m tests.publish.terminal.golden`` writes the files anew."""

from __future__ import annotations

import re

import pytest

from .golden import FOLDER, README, WIDTHS, files, with_screens

FILES = dict(files())


@pytest.mark.parametrize("name", FILES)
def test_the_view_is_as_recorded(name: str) -> None:
    assert FILES[name] == (FOLDER / name).read_text(encoding="utf-8")


def test_no_other_file_is_recorded() -> None:
    assert {path.name for path in FOLDER.iterdir()} == FILES.keys()


@pytest.mark.parametrize("width", WIDTHS)
def test_colours_repeat_what_words_say(width: int) -> None:
    for ascii in ("", "-ascii"):
        colored = FILES[f"{width}-color{ascii}.txt"]
        assert re.sub(r"\x1b\[\d+m", "", colored) == FILES[f"{width}{ascii}.txt"]
        assert set(re.findall(r"\x1b\[(\d+)m", colored)) == {"0", "1", "2", "31", "32", "33"}


@pytest.mark.parametrize("name", [name for name in FILES if "ascii" in name])
def test_ascii_is_ascii(name: str) -> None:
    assert FILES[name].isascii()


def test_the_screens_of_the_readme_are_what_the_views_print() -> None:
    document = README.read_text(encoding="utf-8")
    assert with_screens(document) == document
