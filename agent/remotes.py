"""The remote agents as they are configured."""

from __future__ import annotations

from .config import Network
from .remote.client import RemoteAgent, remote_agents
from .secrets import client_tls, client_token
from .stream.filters import Filter


def configured_remotes(
    network: Network, chosen: Filter, checkpoint: float | None = None
) -> list[RemoteAgent]:
    """Return the remote agents, each asked for the records that pass a filter, with
    the snapshot repeated after ``checkpoint`` seconds. Raises ConfigFailure."""
    urls = network.connect
    token = client_token(network)
    has_tls = any(url.startswith("wss:") for url in urls)
    agents = remote_agents(urls, chosen, token, client_tls(network) if has_tls else None)
    if checkpoint is None:
        return agents
    return [
        agent._replace(query=(*agent.query, ("checkpoint", f"{checkpoint:g}"))) for agent in agents
    ]
