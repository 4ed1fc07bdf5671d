"""A host of a fleet: ``python -m bench.fleet.host NAME DIRECTORY RATE``.

It serves a feed of synthetic sockets at DIRECTORY/socket and changes RATE of them a second. Before
anyone else can have the records of a poll they are in DIRECTORY/truth, one file for each run, so
that the truth is exact over ``kill -9``. SIGTERM ends it as ``systemctl restart`` ends an agent: it
leaves its state for the next run. SIGUSR1 ends the changes.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from pathlib import Path

from agent.address import parse_address
from agent.config import Config, Network
from agent.service.handover import SavedState, load, save
from agent.serving import ConfiguredServer
from agent.stream.diff import DeltaTracker
from agent.stream.encoder import AgentInfo
from agent.stream.feed import HISTORY_BURST_SECONDS, Feed, NdjsonSubscription

from ..page_feed import Sockets

# Snapshots take several messages, so that some are cut short.
ROWS = 600
INTERVAL = 0.1  # Seconds between two polls.
_STATE, _FINAL = "state", "final.ndjson"


def truth_files(directory: Path) -> list[Path]:
    """Return the truth of a host: the records of its runs, the oldest first."""
    return sorted((directory / "truth").iterdir())


def final_file(directory: Path) -> Path:
    """Return the snapshot after the last change, which is there once there are no more."""
    return directory / _FINAL


class Host:
    """The feed of a host, its sockets and its truth."""

    def __init__(self, name: str, directory: Path, saved: SavedState | None) -> None:
        self._machine = (name, None)
        self._directory = directory
        run = len(truth_files(directory)) + 1
        epoch = os.urandom(8).hex() if saved is None else saved.epoch
        self.feed = Feed(
            AgentInfo(*self._machine, epoch, INTERVAL), history_burst=HISTORY_BURST_SECONDS
        )
        self._sockets = Sockets(ROWS if saved is None else 0, seed=int(time.time() * 1000))
        self._tracker = DeltaTracker()
        if saved is not None:
            self.feed.restore(saved.seq, saved.history())
            self._tracker = DeltaTracker(saved.snapshot, saved.opened_at)
            self._sockets.held = dict(saved.snapshot.holdings)
        self._resume = () if saved is None else ((saved.epoch, saved.seq),)
        self._truth = (directory / "truth" / f"{run:04}.ndjson").open("xb", buffering=0)
        self._subscription: NdjsonSubscription | None = None

    def poll(self, changes: int) -> None:
        """Make changes, and publish them."""
        self._sockets.change(changes)
        snapshot = self._sockets.snapshot()
        self.feed.publish(snapshot, self._tracker.advance(snapshot))
        if self._subscription is None:
            self._subscription = self.feed.subscribe(resume=self._resume)
        # No other task has had its turn since: what is killed here was sent to nobody.
        while chunk := self._subscription.take():
            self._truth.write(chunk)

    def finish(self) -> None:
        """Write the snapshot after the last change."""
        new = final_file(self._directory).with_suffix(".new")
        subscription = self.feed.subscribe()
        with new.open("wb") as file:
            while chunk := subscription.take():
                file.write(chunk)
        subscription.close()
        new.rename(final_file(self._directory))

    def save(self) -> None:
        """Leave the state for the next run."""
        feed = self.feed
        assert feed.snapshot
        batches = [(batch.time, batch.deltas, batch.first) for batch in feed.history.batches]
        state = SavedState(
            feed.epoch, feed.seq, feed.snapshot, self._tracker.opened_at, batches
        )  # fmt: skip
        descriptor = save(state, self._machine)
        (self._directory / _STATE).write_bytes(Path(f"/proc/self/fd/{descriptor}").read_bytes())
        os.close(descriptor)


def _saved(name: str, directory: Path) -> SavedState | None:
    """Take the state that the run before left."""
    try:
        descriptor = os.open(directory / _STATE, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    (directory / _STATE).unlink()
    try:
        return load(descriptor, (name, None))
    finally:
        os.close(descriptor)


async def serve(name: str, directory: Path, rate: float) -> None:
    """Serve until SIGTERM."""
    host = Host(name, directory, _saved(name, directory))
    network = Network(listen=(parse_address(f"unix:{directory}/socket"),))
    server = ConfiguredServer(Config(network=network), host.feed, {}).server
    loop = asyncio.get_running_loop()
    stop, quiet = asyncio.Event(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_signal_handler(signal.SIGUSR1, quiet.set)
    running = asyncio.create_task(server.run())
    changes, finished, due = max(1, round(rate * INTERVAL)), False, loop.time()
    host.poll(0)
    while not stop.is_set():
        due = max(due + INTERVAL, loop.time())
        await asyncio.sleep(due - loop.time())
        if quiet.is_set() and not finished:
            finished = True
            host.finish()
        host.poll(0 if finished else changes)
    host.feed.stop()
    await server.stop()
    running.cancel()
    host.save()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], Path(sys.argv[2]), float(sys.argv[3])))
