"""The keys that the terminal sends."""

from __future__ import annotations

import pytest
from textual._xterm_parser import XTermParser
from textual.events import Key

from agent.publish.top.setup import keys_of


def pressed(data: str) -> list[tuple[str, str | None]]:
    parser = XTermParser()
    events = [*parser.feed(data), *parser.tick(), *parser.feed("")]
    keys = [key for event in events if isinstance(event, Key) for key in keys_of(event)]
    return [(key.key, key.character) for key in keys]


@pytest.mark.parametrize("char", ["q", "S", "g"])
def test_a_key_right_after_escape_is_two_keys(char: str) -> None:
    assert pressed(f"\x1b{char}") == [("escape", "\x1b"), (char, char)]


@pytest.mark.parametrize(
    ("data", "key"), [("q", "q"), ("\x1b[A", "up"), ("\x1b[1;2D", "shift+left"), ("\x03", "ctrl+c")]
)
def test_other_keys_are_themselves(data: str, key: str) -> None:
    assert [name for name, _character in pressed(data)] == [key]
