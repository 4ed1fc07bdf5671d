"""What a NATS broker with JetStream answers. It may be any program: nothing is taken for granted.
Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from orjson import JSONDecodeError, loads

NOT_UNDERSTOOD = "the broker's answer is not understood"
# Numbers of a broker have 63 bits.
_DIGITS = re.compile("[0-9]{1,19}", re.ASCII)
_MAX_NUMBER = 2**63
# Of a text of the broker, which is shown.
_MAX_TEXT = 200


class InvalidAnswer(ValueError):
    """An answer that JetStream does not give."""

    def __init__(self) -> None:
        super().__init__(NOT_UNDERSTOOD)


class UnusableCredentials(Exception):
    """A file of credentials that the library cannot use."""


class Refusal(NamedTuple):
    """An error of JetStream; the code is 0 where it has none."""

    code: int
    text: str


def parse_answer(data: bytes) -> Mapping[str, object]:
    """Return an answer. Raises InvalidAnswer."""
    try:
        answer = loads(data)
    except JSONDecodeError as error:
        raise InvalidAnswer from error
    return field_of(answer)


def field_of(answer: object, name: str = "") -> Mapping[str, object]:
    """Return an object, or the one that is a field of it. Raises InvalidAnswer."""
    found = field_of(answer).get(name) if name else answer
    if not isinstance(found, dict):
        raise InvalidAnswer
    return found


def refusal(answer: Mapping[str, object]) -> Refusal | None:
    """Return the error of an answer; None: it is none. Raises InvalidAnswer."""
    if answer.get("error") is None:
        return None
    error = field_of(answer, "error")
    code, text = error.get("err_code", 0), error.get("description", "")
    if not isinstance(text, str):
        raise InvalidAnswer
    return Refusal(whole(code), text[:_MAX_TEXT])


def whole(value: object) -> int:
    """Return a number of an answer. Raises InvalidAnswer."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < _MAX_NUMBER:
        raise InvalidAnswer
    return value


def digits(text: str) -> int:
    """Return a number that is a text, such as the value of a header. Raises InvalidAnswer."""
    if not _DIGITS.fullmatch(text):
        raise InvalidAnswer
    return int(text)
