"""The remote agents as they are configured."""

from __future__ import annotations

from .config import Network
from .remote.client import RemoteAgent, remote_agents
from .secrets import client_tls, client_token
from .stream.filters import Filter


def configured_remotes(network: Network, chosen: Filter) -> list[RemoteAgent]:
    """Return the remote agents, each asked for the records that pass a filter. Raises
    ConfigFailure."""
    urls = network.connect
    token = client_token(network)
    has_tls = any(url.startswith("wss:") for url in urls)
    return remote_agents(urls, chosen, token, client_tls(network) if has_tls else None)
