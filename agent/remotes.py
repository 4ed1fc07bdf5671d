"""The remote agents and fleets as they are configured."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial

from .broker_login import require_library
from .config import Config, Network
from .log import log
from .remote.client import RemoteAgent, follow_all, remote_agents
from .remote.nats.consumer import Fleet, Start
from .remote.nats.printing import follow_fleet
from .secrets import client_tls, client_token
from .stream.filters import Filter
from .stream.fleet import is_broker_url, parse_broker


def configured_remotes(
    network: Network, chosen: Filter, checkpoint: float | None = None
) -> list[RemoteAgent]:
    """Return the remote agents, each asked for the records that pass a filter, with
    the snapshot repeated after ``checkpoint`` seconds. Raises ConfigFailure."""
    urls = [url for url in network.connect if not is_broker_url(url)]
    token = client_token(network)
    has_tls = any(url.startswith("wss:") for url in urls)
    agents = remote_agents(urls, chosen, token, client_tls(network) if has_tls else None)
    if checkpoint is None:
        return agents
    return [
        agent._replace(query=(*agent.query, ("checkpoint", f"{checkpoint:g}"))) for agent in agents
    ]


def configured_fleets(config: Config, chosen: Filter) -> list[Fleet]:
    """Return the fleets, of each the records that pass a filter. Raises ConfigFailure, and
    RuntimeFailure without the library that reads them."""
    network, since = config.network, config.fleet.since
    start = Start(oldest=since == "start", time=since if isinstance(since, float) else None)
    fleets = []
    if network.has_fleet:
        require_library()
    for url in filter(is_broker_url, network.connect):
        broker = parse_broker(url)
        if not network.is_safe_broker(broker):
            log(f"warning: {url} is not encrypted; use tls://")
        tls = client_tls(network) if broker.is_encrypted else None
        fleets.append(Fleet(url, broker, chosen, network.nats_creds, tls, start))
    return fleets


def remote_records(config: Config, *, checkpoints: bool) -> AsyncIterator[bytes]:
    """Return the merged records of the remote agents and fleets. ``checkpoints``: with snapshots
    that repeat what was printed. Raises ConfigFailure."""
    fleets = configured_fleets(config, config.filter)
    others = [partial(follow_fleet, fleet, checkpoints) for fleet in fleets]
    return follow_all(configured_remotes(config.network, config.filter, config.checkpoint), others)
