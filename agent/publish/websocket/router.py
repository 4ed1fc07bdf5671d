"""What a request asks for: a page, a subscription, or nothing that is served. Pure."""

from __future__ import annotations

import os
from collections.abc import Mapping

from websockets.http11 import Request

from ...errors import UsageError
from ..http.page import Page, Reply
from . import query
from .access import Access
from .peers import Peer
from .rejections import Refusal

EVENTS_PATH = "/events"
# Pages that are served without a token.
PUBLIC_PATHS = frozenset({"/healthz"})


def route(
    request: Request, peer: Peer, access: Access, pages: Mapping[str, Page]
) -> Reply | query.SubscriptionQuery | Refusal:
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
        return query.parse(parameters)
    except UsageError as error:
        return Refusal(400, f"{error.argument}: {error}")
