"""Matching of shell globs, many at once. Pure.

Neither compiling nor matching backtracks: each character of a text takes a few operations on
integers, whatever the patterns are, because every token of every pattern is one bit (Shift-And,
Baeza-Yates and Gonnet 1992). So a client cannot send a pattern that takes long to match.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

# Characters whose masks are cached: more than occur in the names of a machine.
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


# A token of a pattern: a character, a class, ``?`` (True) and ``*`` (None).
_Token = str | _CharClass | bool | None


class Globs:
    """Patterns with ``*``, ``?``, ``[...]`` and ``[!...]``, as in Python's ``fnmatch``. A bit of a
    state is set when the text read so far matches a pattern up to the token of the bit."""

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
    """The bits of the tokens that accept a character; computed when it is first looked up."""

    def __init__(self) -> None:
        self._literals: dict[str, int] = {}
        self._classes: dict[_CharClass, int] = {}
        self._any = 0

    def add(self, token: str | _CharClass | bool, bit: int) -> None:
        """Set the bit of a token for the characters that it accepts."""
        if isinstance(token, str):
            self._literals[token] = self._literals.get(token, 0) | bit
        elif isinstance(token, _CharClass):
            self._classes[token] = self._classes.get(token, 0) | bit
        else:
            self._any |= bit

    def __missing__(self, char: str) -> int:
        mask = self._any | self._literals.get(char, 0)
        for char_class, bits in self._classes.items():
            if char_class.accepts(char):
                mask |= bits
        if len(self) < _MAX_MASKS:
            self[char] = mask
        return mask


def _tokens(pattern: str) -> Iterator[_Token]:
    index = 0
    while index < len(pattern):
        char = pattern[index]
        index += 1
        if char == "*":
            yield None
        elif char == "?":
            yield True
        elif char == "[" and (end := _class_end(pattern, index)) > 0:
            yield _char_class(pattern[index:end])
            index = end + 1
        else:
            yield char


def _class_end(pattern: str, begin: int) -> int:
    """Return the index of the ``]`` of a class whose content begins at ``begin``; -1 if none."""
    if pattern.startswith("!", begin):
        begin += 1
    # A ] that comes first is a character of the class.
    return pattern.find("]", begin + 1)


def _char_class(content: str) -> _CharClass:
    negated = content.startswith("!")
    index = int(negated)
    chars: set[str] = set()
    ranges: list[tuple[str, str]] = []
    while index < len(content):
        if content[index + 1 : index + 2] == "-" and index + 2 < len(content):
            ranges.append((content[index], content[index + 2]))
            index += 3
        else:
            chars.add(content[index])
            index += 1
    return _CharClass(negated, frozenset(chars), tuple(ranges))
