"""Shell globs, many at once. Pure.

Neither compiling nor matching backtracks: reading a character of a text costs a few operations on
integers, whatever the patterns are, because every token of every pattern is one bit (Shift-And,
Baeza-Yates and Gonnet 1992). Whoever may send a pattern cannot make matching take long.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

# Characters whose masks are kept: more than the names of a machine are made of.
_MAX_MASKS = 512


class _CharClass(NamedTuple):
    """``[...]``: the characters and the ranges in it."""

    negated: bool
    chars: frozenset[str]
    ranges: tuple[tuple[str, str], ...]

    def accepts(self, char: str) -> bool:
        """Return whether a character is one of the class."""
        found = char in self.chars or any(low <= char <= high for low, high in self.ranges)
        return found != self.negated


# What a pattern is made of: a character, a class, ``?`` (True) and ``*`` (None).
_Token = str | _CharClass | bool | None


class Globs:
    """A set of patterns with ``*``, ``?``, ``[...]`` and ``[!...]``, as in Python's ``fnmatch``.

    Each bit of a state means: the text read so far matches a pattern up to this token.
    """

    __slots__ = ("_ends", "_loops", "_masks", "_starts")

    def __init__(self, patterns: Iterable[str]) -> None:
        self._starts = self._ends = self._loops = 0
        self._masks = _Masks()
        bit = 1
        for pattern in patterns:
            self._starts |= bit
            for token in _tokens(pattern):
                if token is None:
                    self._loops |= bit
                else:
                    bit <<= 1
                    self._masks.add(token, bit)
            self._ends |= bit
            bit <<= 1

    def match(self, text: str) -> bool:
        """Return whether any of the patterns matches the whole text."""
        masks, loops, state = self._masks, self._loops, self._starts
        for char in text:
            state = ((state << 1) & masks[char]) | (state & loops)
            if not state:
                return False
        return state & self._ends != 0


class _Masks(dict[str, int]):
    """The bits that a character leads to, computed when the character is first asked for."""

    def __init__(self) -> None:
        self._literals: dict[str, int] = {}
        self._classes: dict[_CharClass, int] = {}
        self._any = 0

    def add(self, token: str | _CharClass | bool, bit: int) -> None:
        """Let the characters that a token accepts lead to a bit."""
        if isinstance(token, str):
            self._literals[token] = self._literals.get(token, 0) | bit
        elif isinstance(token, _CharClass):
            self._classes[token] = self._classes.get(token, 0) | bit
        else:
            self._any |= bit

    def __missing__(self, char: str) -> int:
        mask = self._any | self._literals.get(char, 0)
        for one, bits in self._classes.items():
            if one.accepts(char):
                mask |= bits
        if len(self) < _MAX_MASKS:
            self[char] = mask
        return mask


def _tokens(pattern: str) -> Iterator[_Token]:
    at = 0
    while at < len(pattern):
        char = pattern[at]
        at += 1
        if char == "*":
            yield None
        elif char == "?":
            yield True
        elif char == "[" and (end := _class_end(pattern, at)) > 0:
            yield _char_class(pattern[at:end])
            at = end + 1
        else:
            yield char


def _class_end(pattern: str, at: int) -> int:
    """Return where the ``]`` is of the class whose content begins at ``at``; -1 without any."""
    if pattern.startswith("!", at):
        at += 1
    # A ] that comes first is one of the characters.
    return pattern.find("]", at + 1)


def _char_class(content: str) -> _CharClass:
    negated = content.startswith("!")
    at = int(negated)
    chars: set[str] = set()
    ranges: list[tuple[str, str]] = []
    while at < len(content):
        if content[at + 1 : at + 2] == "-" and at + 2 < len(content):
            ranges.append((content[at], content[at + 2]))
            at += 3
        else:
            chars.add(content[at])
            at += 1
    return _CharClass(negated, frozenset(chars), tuple(ranges))
