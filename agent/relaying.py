"""The relay: the streams of remote agents, served as one."""

from __future__ import annotations

import asyncio
import gc
import math
import os
from functools import partial

from .config import Config
from .output import view_options
from .outputs import RemoteOutput
from .publish import Publisher
from .publish.http.pages import AgentStatus, Page, Reply, relay_health
from .publish.stdout import STDOUT, ChunkPublisher
from .publish.websocket.registry import Registry
from .remote.client import SILENT_SECONDS
from .remote.nats.inventory import named
from .remote.nats.mirrors import FleetMirrors
from .remote.relay import Link, Relay
from .remotes import configured_fleets, configured_remotes
from .running import run_publishers, service_of
from .service.handover import FD_NAME
from .service.sd_notify import listen_fds
from .service.status import ServiceStatus
from .serving import ConfiguredServer, relay_metrics
from .stream.filters import Filter
from .stream.merged import MergedFeed

# Time between two reports to systemd.
_REPORT_SECONDS = 1.0
# Decoded records that stay, such as those of the history, are no garbage: see GC_THRESHOLD.
_GC_THRESHOLD = 100_000


async def relay(config: Config, output: str, stop: asyncio.Event) -> bool:
    """Serve the streams of the remote agents until ``stop`` is set; return whether a socket passed
    the filter, as far as that was asked. Raises RuntimeFailure and ConfigFailure."""
    gc.set_threshold(_GC_THRESHOLD)
    gc.enable()
    passed = listen_fds(os.environ)
    for descriptor in passed.pop(FD_NAME, ()):  # The state of an agent.
        os.close(descriptor)
    merged = MergedFeed()
    # Agents send everything: filters apply to subscribers, and the history is whole.
    fleets = configured_fleets(config, Filter())

    def mirrors(owners: dict[str, str]) -> list[FleetMirrors]:
        return [FleetMirrors(fleet, merged, owners) for fleet in fleets]

    followed = Relay(configured_remotes(config.network, Filter()), merged, mirrors)
    server = ConfiguredServer(config, merged, passed, partial(_pages, followed))
    publishers: list[Publisher] = [server.server]
    printed = None
    if config.follow:
        records = merged.subscribe(config.filter, checkpoint=config.checkpoint)
        if output != "ndjson" or config.view.answers:
            options = view_options(config, output, os.environ)
            printed = RemoteOutput(aiter(records), config, output, options)
        publishers.append(ChunkPublisher(printed or records, STDOUT))
    service = service_of(partial(_describe, followed, server.registry), config, server)
    work = [followed.run(), _report(service)]
    await run_publishers(publishers, work, merged, service, stop)
    return printed is None or printed.matched


async def _report(service: ServiceStatus) -> None:
    """Report to systemd, until cancelled."""
    while True:
        service.report_poll()
        await asyncio.sleep(_REPORT_SECONDS)


def _describe(relay: Relay, registry: Registry) -> str:
    links = relay.links()
    connected = sum(link.connected for link in links)
    hosts = len(relay.merged.feeds)
    return (
        f"{connected} of {len(links)} agents connected, {hosts} hosts, "
        f"{registry.subscriber_count} subscribers"
    )


def _pages(relay: Relay, registry: Registry) -> dict[str, Page]:
    metrics = relay_metrics(relay.merged, registry)
    return {"/healthz": Page(partial(_health, relay), is_public=True), "/metrics": metrics}


def _health(relay: Relay) -> Reply:
    now = asyncio.get_running_loop().time()
    return relay_health([_status(link, now) for link in relay.links()], SILENT_SECONDS)


def _status(link: Link, now: float) -> AgentStatus:
    problem = None
    # Without its query, which may have what is not for everyone.
    url = link.url.partition("?")[0]
    if link.refused:
        problem = f"{url}: another agent has the same host name {', '.join(link.refused)}"
    if link.silent:
        problem = f"{url}: no message for {SILENT_SECONDS:.0f} s from {named(link.silent)}"
    if not link.connected:
        problem = f"{url}: not connected for {now - link.since:.0f} s: {link.reason}"
    silent = math.inf if link.silent else now - link.heard_at
    return AgentStatus(link.connected, silent, problem)
