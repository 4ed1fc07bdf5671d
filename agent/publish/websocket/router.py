"""What a request asks for: a page, a subscription, or nothing that is served. Pure."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import parse_qsl

from websockets.http11 import Request

from ...errors import UsageError
from ...stream.filters import Filter, is_filter
from ..http.assets import ASSETS
from ..http.pages import Page, Reply, unless_known
from .access import Access, Peer
from .rejections import Refusal

EVENTS_PATH = "/events"
MAX_PARAMETERS = 100
# Values of all filters together: each one costs a little time per record.
MAX_VALUES = 100
_STREAM_PARAMETERS = ("epoch", "since", "snapshot")


class SubscriptionQuery(NamedTuple):
    """A requested subscription. ``resume`` is the (epoch, seq) after which to resume; ``snapshot``
    is whether a snapshot is sent where the stream cannot resume."""

    filter: Filter
    resume: tuple[str, int] | None = None
    snapshot: bool = True


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
    )
    if refusal is not None:
        return refusal
    if page is not None:
        return unless_known(page.reply(), request.headers.get_all("If-None-Match"))
    if not is_feed:
        paths = sorted({EVENTS_PATH, *(path for path in pages if not path.startswith(ASSETS))})
        return Refusal(404, f"not found; available are {', '.join(paths)}")
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
    for name in _STREAM_PARAMETERS:
        if len(values.get(name, [])) > 1:
            raise UsageError(name, "given more than once")
    resume = _parse_resume(*(values.pop(name, [None])[0] for name in ("epoch", "since")))
    snapshot = values.pop("snapshot", ["1"])[0]
    if snapshot not in ("0", "1"):
        raise UsageError("snapshot", "expected 0 or 1")
    if sum(value.count(",") + 1 for given in values.values() for value in given) > MAX_VALUES:
        raise UsageError("query", f"too many filter values; the limit is {MAX_VALUES}")
    return SubscriptionQuery(Filter(values), resume, snapshot == "1")


def _parse_resume(epoch: str | None, since: str | None) -> tuple[str, int] | None:
    if epoch is None and since is None:
        return None
    if epoch is None or since is None:
        missing, given = ("epoch", "since") if epoch is None else ("since", "epoch")
        raise UsageError(missing, f"required together with {given}")
    if not (since.isascii() and since.isdigit() and len(since) <= 18):
        raise UsageError("since", f"invalid number {since!r}; expected the seq of a record")
    return epoch, int(since)
