"""The fields of a decoded JSON object, and the types that they must have."""

from __future__ import annotations

from functools import lru_cache
from operator import itemgetter
from typing import Any

Json = dict[str, Any]
Types = tuple[type, ...]

_NULL = type(None)
TEXT, NUMBER, FLAG, LIST, OBJECT = (str,), (int,), (bool,), (list,), (dict,)
AMOUNT: Types = (int, float)
TEXT_OR_NULL, NUMBER_OR_NULL, AMOUNT_OR_NULL = (str, _NULL), (int, _NULL), (int, float, _NULL)
_NAMES = {
    str: "text", int: "a number", float: "a number", bool: "true or false", list: "a list",
    dict: "an object", _NULL: "null",
}  # fmt: skip
# Combinations of types that are remembered for a group of fields: records of sockets have few.
_MAX_COMBINATIONS = 1024


class DecodeError(ValueError):
    """A line that is not a record; the message is a clause that says why."""


class Fields:
    """A group of fields that records have, each with the types that it may have."""

    __slots__ = ("get", "mistyped", "types")

    def __init__(self, **types: Types) -> None:
        self.types = types
        names = list(types)
        # Returns the values of the fields; itemgetter returns a tuple of two or more.
        self.get = itemgetter(*names) if len(names) > 1 else lambda record: (record[names[0]],)
        # Returns the name of the first field of a wrong type, from the types of all: to look them
        # up together takes half the time of a comparison for each field.
        self.mistyped = lru_cache(_MAX_COMBINATIONS)(self._mistyped)

    def _mistyped(self, found: Types) -> str | None:
        for (name, types), kind in zip(self.types.items(), found, strict=True):
            if kind not in types:
                return name
        return None


def typed(fields: Fields, record: Json) -> tuple[Any, ...]:
    """Return the values of these fields. Raises DecodeError."""
    try:
        values: tuple[Any, ...] = fields.get(record)
    except KeyError as error:
        raise DecodeError(f"the field {error} is missing") from None
    name = fields.mistyped(tuple(map(type, values)))
    if name is not None:
        raise wrong(name, " or ".join(dict.fromkeys(_NAMES[one] for one in fields.types[name])))
    return values


def wrong(name: str, expected: str) -> DecodeError:
    """Return the error of a field that is not what is expected."""
    return DecodeError(f"the field '{name}' is not {expected}")


def list_of(kind: type, name: str, values: list[Any]) -> tuple[Any, ...]:
    """Return the values of a list of texts or of numbers. Raises DecodeError."""
    for value in values:
        if type(value) is not kind:
            raise wrong(name, "a list of " + ("texts" if kind is str else "numbers"))
    return tuple(values)
