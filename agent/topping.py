"""What ``sockagent top`` shows: this machine, remote agents, or a recording, on the screen."""

from __future__ import annotations

import os
import re
import shlex
from datetime import UTC, tzinfo
from functools import partial

from .config import Config
from .output import view_options
from .publish.top.publisher import ScreenPublisher
from .publish.top.screen import Settings, TopApp
from .publish.top.sources import FeedSource, Queues, RecordingSource, Source
from .services import read_services, with_numbers
from .snapshot.poller import Poller
from .sources import host_name
from .stream.feed import Feed
from .stream.filters import Filter
from .stream.targets import parse_targets
from .stream.times import Span, parse_time

# What shlex.split interprets.
_SPECIAL = re.compile(r"[\s'\"\\#]")


def feed_screen(config: Config, feed: Feed, poller: Poller) -> ScreenPublisher:
    """Return what shows the feed of this machine."""
    host = host_name()
    source = FeedSource(feed, host, partial(_queues, host, poller))
    return ScreenPublisher(source, _app(config, source))


def screen(config: Config) -> ScreenPublisher:
    """Return what shows remote agents or a recording. Raises ConfigFailure."""
    view = config.view
    source: Source
    if view.read is None:
        from .remote_screen import remote_source

        source = remote_source(config)
    else:
        find = None if view.at is None else partial(_start, view.at, UTC if view.utc else None)
        source = RecordingSource(view.read, find)
    return ScreenPublisher(source, _app(config, source))


def _app(config: Config, source: Source) -> TopApp:
    view = config.view
    settings = Settings(
        view_options(config, "log", os.environ),
        no_signals=_why_no_signals(config, source),
        names=view.resolve,
        services=read_services(),
        parse=parse_filter,
    )
    return TopApp(source, filter_text(config.filter), settings)


def _why_no_signals(config: Config, source: Source) -> str | None:
    """Return why processes get no signals; None if they may."""
    if not source.is_local:
        return "only for processes of this machine"
    if config.view.read_only:
        return "--read-only"
    return None if config.proc == "/proc" else "--proc"


def _start(text: str, zone: tzinfo | None, span: Span) -> float:
    return parse_time(text, lambda: span, zone)


def _queues(host: str, poller: Poller) -> Queues:
    """Return the accept queues as the poller has read them."""
    return {
        (host, socket.inode): (socket.recv_q, socket.backlog)
        for socket in poller.tables.sockets.values()
        if socket.state == "LISTEN" and socket.recv_q is not None and socket.backlog is not None
    }


# The filter.


def parse_filter(text: str) -> Filter:
    """Return the filter that a line of targets means. Raises UsageError."""
    try:
        words = shlex.split(text)
    except ValueError:
        words = text.split()
    return Filter(parse_targets(with_numbers(words)))


def filter_text(chosen: Filter) -> str:
    """Return a line that ``parse_filter`` makes a filter of."""
    words = (f"{name}={','.join(sorted(values))}" for name, values in sorted(chosen.values))
    return " ".join(shlex.quote(word) if _SPECIAL.search(word) else word for word in words)
