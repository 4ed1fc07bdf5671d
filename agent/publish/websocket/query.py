"""What a subscriber asks for: the query string of ``/events``. Pure."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import parse_qsl

from ...errors import UsageError
from ...stream.filters import FILTERS, Filter

MOST_PARAMETERS = 100
# Values of all filters together: each costs a little of every record.
MOST_VALUES = 100
_OWN = ("epoch", "since", "snapshot")


class Wanted(NamedTuple):
    """A subscription. ``resume`` is the (epoch, seq) to go on behind; ``snapshot`` whether one is
    wanted where that cannot be."""

    filter: Filter
    resume: tuple[str, int] | None = None
    snapshot: bool = True


def parse(query: str) -> Wanted:
    """What a query string asks for. Raises UsageError, naming the parameter."""
    try:
        pairs = parse_qsl(
            query,
            keep_blank_values=True,
            strict_parsing=bool(query),
            errors="strict",
            max_num_fields=MOST_PARAMETERS,
        )
    except ValueError as error:  # Of what it says nothing that helps.
        raise UsageError("query", "it is no query string") from error
    given: dict[str, list[str]] = {}
    for name, value in pairs:
        if name not in FILTERS and name not in _OWN:
            raise UsageError(name, "there is no such parameter")
        given.setdefault(name, []).append(value)
    for name in _OWN:
        if len(given.get(name, [])) > 1:
            raise UsageError(name, "it may be given once")
    resume = _resume(*(given.pop(name, [None])[0] for name in ("epoch", "since")))
    snapshot = given.pop("snapshot", ["1"])[0]
    if snapshot not in ("0", "1"):
        raise UsageError("snapshot", "it is 0 or 1")
    if sum(value.count(",") + 1 for values in given.values() for value in values) > MOST_VALUES:
        raise UsageError("query", f"there are more than {MOST_VALUES} values in it")
    return Wanted(Filter(given), resume, snapshot == "1")


def _resume(epoch: str | None, since: str | None) -> tuple[str, int] | None:
    if epoch is None and since is None:
        return None
    if epoch is None or since is None:
        missing = "epoch" if epoch is None else "since"
        raise UsageError(missing, "epoch and since are given together")
    if not (since.isascii() and since.isdigit() and len(since) <= 18):
        raise UsageError("since", f"{since!r} is no number")
    return epoch, int(since)
