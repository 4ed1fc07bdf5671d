"""Starts the rooms, connects them, and ends them: signals, shutdown, and the one TaskGroup.

It knows no formats: what a poll shows goes through tracker and feed to the publishers.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import sys
import time
from collections.abc import AsyncIterable, AsyncIterator

from .cadence import snapshots
from .config import Config
from .errors import RuntimeFailure
from .feed import Feed, chunks, snapshot_lines
from .model import Coverage, Snapshot
from .netlink.reader import NetlinkReader
from .poller import Poller
from .procfs.forked import ForkedWalk
from .procfs.reader import ProcFS
from .procfs.walker import Walker
from .publish import stdout
from .records import Agent, Encoder
from .tracker import Tracker
from .vitals import Vitals, sentence

STDOUT = 1
# How long an end waits for a reader that is there to take what is under way.
GRACE_SECONDS = 0.5
# Allocations between two looks for cyclic garbage: there is little, and each look is a pause.
GC_THRESHOLD = 100_000

_PRIVILEGE = "run it as root, or with CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH, to see everything"


def run(config: Config, walk: ForkedWalk | None = None) -> None:
    """Do what is configured until it is done, or SIGINT, SIGTERM or a closed pipe ends it.

    ``walk`` is the walk of a one-shot snapshot, if it was started already. Raises RuntimeFailure.
    """
    # Collecting while the first snapshot is built would walk all of it, again and again.
    gc.disable()
    try:
        asyncio.run(_main(config, walk))
    except* RuntimeFailure as group:
        failure: BaseException = group
        while isinstance(failure, BaseExceptionGroup):
            failure = failure.exceptions[0]
        raise failure from None


async def _main(config: Config, walk: ForkedWalk | None) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    procfs = ProcFS(config.proc)
    agent = Agent(os.uname().nodename, procfs.boot_id(), os.urandom(8).hex(), config.interval)
    walker = Walker(procfs, cmdline=config.cmdline)
    poller = Poller(walker, netlink=_netlink(config, procfs), sweep=config.sweep)
    feed: Feed | None
    polling: asyncio.Task[None] | None
    telling: asyncio.Task[None] | None = None
    async with asyncio.TaskGroup() as group:
        if config.follow:
            vitals = Vitals()
            feed = Feed(agent, vitals=vitals)
            if config.stats is not None:
                telling = group.create_task(_tell(vitals, config.stats))
            polling = group.create_task(_poll(snapshots(poller, config.interval, vitals), feed))
            printing = group.create_task(_print(feed.subscribe(config.filter)))
        else:
            feed, polling = None, None
            printing = group.create_task(_print(_snapshot(poller, walk, config, Encoder(agent))))
        stopping = group.create_task(stop.wait())
        await asyncio.wait((printing, stopping), return_when=asyncio.FIRST_COMPLETED)
        if polling and feed:
            polling.cancel()
            feed.stop()
            await asyncio.wait((printing,), timeout=GRACE_SECONDS)
        printing.cancel()
        stopping.cancel()
        if telling:
            telling.cancel()


def _netlink(config: Config, procfs: ProcFS) -> NetlinkReader | None:
    """The netlink source, where it is wanted and works. Raises RuntimeFailure."""
    if config.source == "procfs":
        return None
    reader = (
        None
        if procfs.own is None
        else NetlinkReader(
            procfs.own[0], unheld=config.all, cgroups=os.geteuid() != 0, hear=config.follow
        )
    )
    if reader is not None and (config.source == "auto" or reader.works()):
        return reader
    if config.source == "netlink":
        raise RuntimeFailure("sock_diag over netlink does not work here; try --source procfs")
    return None


async def _snapshot(
    poller: Poller, walk: ForkedWalk | None, config: Config, encoder: Encoder
) -> AsyncIterator[bytes]:
    """The one-shot snapshot."""
    now = time.time()
    try:
        async for holdings in poller.once(walk, unheld=config.all):
            for chunk in chunks(snapshot_lines(encoder, holdings, config.filter, 0, now)):
                yield chunk
    except OSError as error:
        raise RuntimeFailure(f"there is no procfs: {error.strerror}") from error
    finally:
        if walk:
            walk.stop()
    warn(poller.coverage)


async def _poll(polls: AsyncIterator[Snapshot], feed: Feed) -> None:
    """Feed the feed, for ever."""
    tracker = Tracker()
    first = True
    try:
        async for snapshot in polls:
            feed.publish(snapshot, tracker.advance(snapshot))
            if first:
                first = False
                warn(snapshot.coverage)
                gc.freeze()
                gc.set_threshold(GC_THRESHOLD)
                gc.enable()
    except OSError as error:
        raise RuntimeFailure(f"there is no procfs: {error.strerror}") from error


async def _tell(vitals: Vitals, seconds: float) -> None:
    """Say on stderr what the polls cost, for ever."""
    while True:
        await asyncio.sleep(seconds)
        say(sentence(vitals.figures()))


async def _print(chunks: AsyncIterable[bytes]) -> None:
    try:
        await stdout.publish(chunks, STDOUT)
    except OSError as error:
        raise RuntimeFailure(f"standard output: {error.strerror}") from error


def warn(coverage: Coverage) -> None:
    """Say once on stderr what cannot be seen."""
    if coverage.complete:
        return
    missing = "; ".join(coverage.missing)
    if coverage.unreadable:
        missing += f" ({coverage.unreadable} of {coverage.processes} processes)"
        if os.geteuid():
            missing += f"; {_PRIVILEGE}"
    say(f"warning: {missing}")


def say(message: str) -> None:
    """One line on stderr, if there is one to write to."""
    with contextlib.suppress(OSError):
        print(f"sockagent: {message}", file=sys.stderr, flush=True)
