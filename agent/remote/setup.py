"""The remote agents that the settings name."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from urllib.parse import urlsplit

from ..address import ListenAddress
from ..log import log
from ..stream.filters import Filter
from .client import RemoteAgent


def remote_agents(
    urls: Sequence[str], chosen: Filter, token: str | None, tls: ssl.SSLContext | None
) -> list[RemoteAgent]:
    """Return the agents at ``urls``, each asked for the records that pass a filter."""
    query = tuple((name, value) for name, values in chosen.values for value in sorted(values))
    has_snapshots = "snapshot" in chosen.events
    for url in urls:
        if token is not None and url.startswith("ws:") and not _is_local(url):
            log(f"warning: the token is sent to {url} without encryption; use wss://")
    return [RemoteAgent(url, query, token, tls, has_snapshots) for url in urls]


def _is_local(url: str) -> bool:
    """Return whether the host of a URL is this machine."""
    return ListenAddress(urlsplit(url).hostname or "", 0).is_local
