"""What a request asks for: a page, a subscription, or nothing that is served. Pure."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import parse_qsl

from websockets.http11 import Request

from ...errors import UsageError
from ...stream.filters import Filter, is_filter
from ...stream.publication import Positions
from ..http.pages import Page, Reply
from .access import Access, Peer
from .rejections import Refusal

EVENTS_PATH = "/events"
# Pages that are served without a token.
PUBLIC_PATHS = frozenset({"/healthz"})
MAX_PARAMETERS = 500
# Values of all filters together: each one costs a little time per record.
MAX_VALUES = 100
# More often than each poll would be of no use.
MIN_CHECKPOINT_SECONDS, MAX_CHECKPOINT_SECONDS = 1.0, 86_400.0
_STREAM_PARAMETERS = ("epoch", "since", "snapshot", "checkpoint")
_SECONDS = re.compile(r"[0-9]{1,5}(\.[0-9]{1,6})?", re.ASCII)


class SubscriptionQuery(NamedTuple):
    """A requested subscription. ``resume`` has an (epoch, seq) of each host after which to resume;
    ``snapshot`` is whether a snapshot is sent where the stream cannot resume, ``checkpoint`` after
    how many seconds it is repeated, None: never."""

    filter: Filter
    resume: Positions = ()
    snapshot: bool = True
    checkpoint: float | None = None


def route(
    request: Request, peer: Peer, access: Access, pages: Mapping[str, Page]
) -> Reply | SubscriptionQuery | Refusal:
    """Return the reply of a page, the subscription that is requested, or why there is neither."""
    path, _, parameters = request.path.partition("?")
    if request.method != "GET":
        return Refusal(405, "method not allowed; use GET", headers=(("Allow", "GET"),))
    refusal = access.check(
        request.headers,
        is_local=peer.uid is not None,
        is_trusted=peer.uid in (0, os.geteuid()),
        is_public=path in PUBLIC_PATHS,
    )
    if refusal is not None:
        return refusal
    if path in pages:
        return pages[path]()
    if path != EVENTS_PATH:
        return Refusal(404, f"not found; available are {', '.join([EVENTS_PATH, *sorted(pages)])}")
    try:
        return parse_query(parameters)
    except UsageError as error:
        return Refusal(400, f"{error.argument}: {error}")


def parse_query(query: str) -> SubscriptionQuery:
    """Parse the query string of ``/events``. Raises UsageError, which names the parameter.

    In ``proto!=unix`` the name of the parameter is ``proto!``, which is that of the filter.
    """
    try:
        pairs = parse_qsl(
            query,
            keep_blank_values=True,
            strict_parsing=bool(query),
            errors="strict",
            max_num_fields=MAX_PARAMETERS,
        )
    except ValueError as error:  # Its message does not help.
        raise UsageError(
            "query", "malformed query string; expected for example proto=tcp&port=443"
        ) from error
    values: dict[str, list[str]] = {}
    for name, value in pairs:
        if not is_filter(name) and name not in _STREAM_PARAMETERS:
            raise UsageError(name, "unknown parameter")
        values.setdefault(name, []).append(value)
    resume = _parse_resume(values.pop("epoch", []), values.pop("since", []))
    repeated = values.pop("checkpoint", [])
    snapshot, *more = values.pop("snapshot", ["1"])
    if more:
        raise UsageError("snapshot", "given more than once")
    if snapshot not in ("0", "1"):
        raise UsageError("snapshot", "expected 0 or 1")
    if sum(value.count(",") + 1 for given in values.values() for value in given) > MAX_VALUES:
        raise UsageError("query", f"too many filter values; the limit is {MAX_VALUES}")
    chosen = Filter(values)
    checkpoint = _parse_checkpoint(repeated)
    if checkpoint is not None and (snapshot == "0" or "snapshot" not in chosen.events):
        raise UsageError("checkpoint", "repeats the snapshot, which snapshot or event excludes")
    return SubscriptionQuery(chosen, resume, snapshot == "1", checkpoint)


def _parse_checkpoint(given: list[str]) -> float | None:
    """Return the seconds from one snapshot to the next, None: there is only one."""
    if not given:
        return None
    seconds, *more = given
    if more:
        raise UsageError("checkpoint", "given more than once")
    limits = MIN_CHECKPOINT_SECONDS, MAX_CHECKPOINT_SECONDS
    if not _SECONDS.fullmatch(seconds) or not limits[0] <= float(seconds) <= limits[1]:
        raise UsageError("checkpoint", "expected seconds from {:g} to {:g}".format(*limits))
    return float(seconds)


def _parse_resume(epochs: list[str], numbers: list[str]) -> Positions:
    """Return the pairs of the first epoch and the first number, the second ones, and so on."""
    if len(epochs) != len(numbers):
        missing, given = ("epoch", "since") if len(epochs) < len(numbers) else ("since", "epoch")
        raise UsageError(missing, f"required together with each {given}")
    if len(set(epochs)) < len(epochs):
        raise UsageError("epoch", "the same epoch is given twice")
    for since in numbers:
        if not (since.isascii() and since.isdigit() and len(since) <= 18):
            raise UsageError("since", f"invalid number {since!r}; expected the seq of a record")
    return tuple(zip(epochs, map(int, numbers), strict=True))
