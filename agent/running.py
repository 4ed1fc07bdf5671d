"""What agents and relays have in common while they run: publishers, and the service manager."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import TYPE_CHECKING

from .config import Config
from .errors import ConfigFailure
from .log import log
from .publish import Publisher
from .service.sd_notify import Notifier
from .service.status import ServiceStatus
from .signals import handle_reload
from .stream.publication import Publication

if TYPE_CHECKING:  # Following alone does not load the server.
    from .serving import ConfiguredServer


async def run_publishers(
    publishers: Sequence[Publisher],
    work: Sequence[Coroutine[object, object, None]],
    feed: Publication,
    service: ServiceStatus,
    stop: asyncio.Event,
) -> None:
    """Do the work that fills a feed, and run every publisher of it, until ``stop`` is set or one of
    them ends. Raises what they raise, in an exception group."""
    async with asyncio.TaskGroup() as group:
        running = [group.create_task(publisher.run()) for publisher in publishers]
        working = [group.create_task(coroutine) for coroutine in work]
        stopping = group.create_task(stop.wait())
        await asyncio.wait((*running, stopping), return_when=asyncio.FIRST_COMPLETED)
        for task in (*working, stopping):
            task.cancel()
        feed.stop()
        service.report_stopping()
        for publisher in publishers:
            await publisher.stop()
        for task in running:
            task.cancel()


def subscribers_of(server: ConfiguredServer | None) -> Callable[[], int]:
    """Return what returns the number of subscribers."""
    return lambda: 0 if server is None else server.registry.subscriber_count


def service_of(
    describe: Callable[[], str], config: Config, server: ConfiguredServer | None
) -> ServiceStatus:
    """Return the connection to systemd, which a server has; let SIGHUP reload the server."""
    service = ServiceStatus(
        Notifier({} if server is None else os.environ), describe, config.interval
    )
    if server is not None and config.network.local_page is None:
        handle_reload(asyncio.get_running_loop(), partial(_reload, server, service))
    return service


def _reload(server: ConfiguredServer, service: ServiceStatus) -> None:
    """Read the server's files again, and report the outcome on stderr and to systemd."""
    service.report_reloading()
    try:
        server.reload()
    except ConfigFailure as error:
        log(f"reload failed, the configuration is unchanged: {error}")
        service.report_reloaded(str(error))
    else:
        log("tokens, certificates and filters reloaded")
        service.report_reloaded()
