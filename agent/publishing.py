"""Publish the stream of this agent, or of a remote one, at a NATS broker."""

from __future__ import annotations

import asyncio
import math
from contextlib import suppress

from .broker_login import require_library
from .config import Config
from .log import log
from .publish.nats.broker import Access
from .publish.nats.position import InvalidStream
from .publish.nats.publisher import (
    MAX_HELD_SECONDS,
    FeedPublisher,
    HostPublisher,
    PositionMoved,
)
from .remote.client import BeginAgain, follow
from .remote.resume import InvalidFeed
from .remotes import configured_remotes
from .secrets import client_tls
from .stream.feed import Feed
from .stream.fleet import parse_broker
from .stream.publication import Positions

# Seconds from one snapshot in the stream to the next, without --checkpoint.
CHECKPOINT_SECONDS = 300.0


def feed_publisher(config: Config, feed: Feed) -> FeedPublisher:
    """Return what publishes a feed of this process. Raises ConfigFailure and RuntimeFailure."""
    publisher = _publisher(config, max_held=math.inf)
    return FeedPublisher(feed, config.filter, publisher, _checkpoint(config))


async def publish_remote(config: Config, stop: asyncio.Event) -> None:
    """Publish the stream of the remote agent until ``stop`` is set. Raises ConfigFailure and
    RuntimeFailure."""
    publisher = _publisher(config)
    (remote,) = configured_remotes(config.network, config.filter, _checkpoint(config))
    following = asyncio.create_task(follow(remote, _Receiver(publisher)))
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait((following, stopping), return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    await publisher.stop()
    following.cancel()
    with suppress(asyncio.CancelledError):
        await following


def _checkpoint(config: Config) -> float:
    return CHECKPOINT_SECONDS if config.checkpoint is None else config.checkpoint


def _publisher(config: Config, max_held: float = MAX_HELD_SECONDS) -> HostPublisher:
    network = config.network
    url = network.publish
    assert url is not None
    require_library()
    broker = parse_broker(url)
    if not network.is_safe_broker(broker):
        log(f"warning: {url} is not encrypted; use tls://")
    tls = client_tls(network) if broker.is_encrypted else None
    access = Access(url, broker, tls, network.nats_creds)
    return HostPublisher(access, encoding=network.publish_encoding, max_held=max_held)


class _Receiver:
    """Passes the messages of a remote agent to a publisher."""

    def __init__(self, publisher: HostPublisher) -> None:
        self._publisher = publisher

    @property
    def resume(self) -> Positions:
        """Where the next connection is to resume."""
        return self._publisher.resume

    async def receive(self, message: bytes, *, is_first: bool) -> None:  # noqa: ARG002
        """Publish a message. Raises InvalidFeed and BeginAgain."""
        try:
            await self._publisher.receive(message)
        except PositionMoved as moved:
            raise BeginAgain from moved
        except InvalidStream as error:
            raise InvalidFeed(str(error)) from error

    def disconnect(self, reason: str) -> None:
        """Do nothing: the next connection resumes."""
