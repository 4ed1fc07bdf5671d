"""What a request asks for: a page, a subscription, or nothing that is served. Pure."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import parse_qsl

from websockets.http11 import Request

from ...errors import TargetError, UsageError
from ...stream.filters import Filter, is_filter
from ...stream.publication import Positions
from ...stream.targets import parse_targets
from ..http.assets import ASSETS
from ..http.pages import Page, Reply, packed, unless_known
from .access import Access, Peer
from .rejections import Refusal

EVENTS_PATH = "/events"
# A client of a relay sends two for each host.
MAX_PARAMETERS = 500
# Values of all filters together: each one costs a little time per record.
MAX_VALUES = 100
# More often than each poll would be of no use.
MIN_CHECKPOINT_SECONDS, MAX_CHECKPOINT_SECONDS = 1.0, 86_400.0
_TARGET = "target"
_OTHER_PARAMETERS = (_TARGET, "epoch", "since", "snapshot", "checkpoint")
_SECONDS = re.compile(r"[0-9]{1,5}(\.[0-9]{1,6})?", re.ASCII)


class SubscriptionQuery(NamedTuple):
    """A requested subscription. ``positions`` are the (epoch, seq) that the client has of each
    stream that it knows; ``snapshot`` is whether a snapshot is sent where the stream cannot
    resume, ``checkpoint`` after how many seconds it is repeated, None: never."""

    filter: Filter
    positions: Positions = ()
    snapshot: bool = True
    checkpoint: float | None = None


def route(
    request: Request, peer: Peer, access: Access, pages: Mapping[str, Page]
) -> Reply | SubscriptionQuery | Refusal:
    """Return the reply of a page, the subscription that is requested, or why there is neither."""
    path, _, parameters = request.path.partition("?")
    page = pages.get(path)
    is_feed = page is None and path == EVENTS_PATH
    methods = ("GET",) if is_feed else ("GET", "HEAD")
    if request.method not in methods:
        message = f"method not allowed; use {' or '.join(methods)}"
        return Refusal(405, message, headers=(("Allow", ", ".join(methods)),))
    refusal = access.check(
        request.headers,
        is_local=peer.uid is not None,
        is_trusted=peer.uid in (0, os.geteuid()),
        # That a path leads nowhere is no secret.
        is_public=not is_feed if page is None else page.is_public,
        has_tls=peer.has_tls,
    )
    if refusal is not None:
        return refusal
    if page is not None:
        reply = packed(page.reply(), request.headers.get_all("Accept-Encoding"))
        return unless_known(reply, request.headers.get_all("If-None-Match"))
    if not is_feed:
        paths = sorted({EVENTS_PATH, *(path for path in pages if not path.startswith(ASSETS))})
        return Refusal(404, f"not found; available are {', '.join(paths)}")
    try:
        return parse_query(parameters)
    except TargetError as error:
        return Refusal(400, f"{error.argument!r}: {error}")
    except UsageError as error:
        return Refusal(400, f"{error.argument}: {error}")


def parse_query(query: str) -> SubscriptionQuery:
    """Parse the query string of ``/events``. Raises UsageError, which names the parameter or
    target.

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
        if not is_filter(name) and name not in _OTHER_PARAMETERS:
            raise UsageError(name, "unknown parameter")
        values.setdefault(name, []).append(value)
    repeated = values.pop("checkpoint", [])
    snapshot, *others = values.pop("snapshot", ["1"])
    if others:
        raise UsageError("snapshot", "given more than once")
    if snapshot not in ("0", "1"):
        raise UsageError("snapshot", "expected 0 or 1")
    positions = _parse_positions(values.pop("epoch", []), values.pop("since", []))
    if sum(value.count(",") + 1 for given in values.values() for value in given) > MAX_VALUES:
        raise UsageError("query", f"too many filter values; the limit is {MAX_VALUES}")
    for name, given in parse_targets(values.pop(_TARGET, [])).items():
        values.setdefault(name, []).extend(given)
    chosen = Filter(values)
    checkpoint = _parse_checkpoint(repeated)
    if checkpoint is not None and (snapshot == "0" or "snapshot" not in chosen.events):
        raise UsageError("checkpoint", "repeats the snapshot, which snapshot or event excludes")
    return SubscriptionQuery(chosen, positions, snapshot == "1", checkpoint)


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


def _parse_positions(epochs: list[str], seqs: list[str]) -> Positions:
    """Return the pairs of the parameters ``epoch`` and ``since``. Raises UsageError."""
    if len(epochs) != len(seqs):
        missing, given = ("epoch", "since") if len(epochs) < len(seqs) else ("since", "epoch")
        raise UsageError(missing, f"required together with each {given}")
    if len(set(epochs)) < len(epochs):
        raise UsageError("epoch", "the same one is given twice")
    for seq in seqs:
        if not (seq.isascii() and seq.isdigit() and len(seq) <= 18):
            raise UsageError("since", f"invalid number {seq!r}; expected the seq of a record")
    return tuple(zip(epochs, map(int, seqs), strict=True))
