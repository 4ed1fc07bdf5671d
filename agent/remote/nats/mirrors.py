"""Mirrors of the hosts of a fleet: what a relay serves again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from ...log import LineLimit, log
from ...stream.decoder import Began, Decoded, Dropped, Present, SnapshotEnd, decode
from ...stream.feed import Feed
from ...stream.fields import DecodeError
from ...stream.merged import MergedFeed
from ...stream.mirror import InvalidStream, Mirror
from ..relay import Link, keep_following
from ..resume import MAX_HOSTS
from .consumer import Fleet, FleetConsumer, HostRecords


class FleetMirrors:
    """Follows a fleet, and keeps a mirror of each host in ``merged``. ``owners`` has the URL of
    each host name: of two agents with one name the first is kept."""

    def __init__(self, fleet: Fleet, merged: MergedFeed, owners: dict[str, str]) -> None:
        self._fleet = fleet
        self._merged = merged
        self._owners = owners
        self._mirrors: dict[str, Mirror] = {}
        self._refused: set[str] = set()  # Hosts that another URL has, and those beyond the limit.
        # Hosts whose snapshot is repeated, and hosts whose records do not fit: their next snapshot
        # is awaited.
        self._repeated: set[str] = set()
        self._broken: set[str] = set()
        self._silent: set[str] = set()
        self._limit = LineLimit(f"about records of {fleet.url}")
        now = asyncio.get_running_loop().time()
        self._link = Link(fleet.url, False, now, now, "not connected yet")

    async def run(self) -> None:
        """Follow the fleet until cancelled."""
        consumer = FleetConsumer(self._fleet, self)
        await keep_following(consumer.run, consumer.attempts)

    def link(self) -> Link:
        """Return the state of the connection."""
        return self._link._replace(
            hosts=tuple(self._mirrors),
            refused=tuple(sorted(self._refused)),
            silent=tuple(sorted(self._silent)),
        )

    def connect(self) -> None:
        """Note that there is a connection."""
        now = asyncio.get_running_loop().time()
        self._link = self._link._replace(connected=True, since=now, heard_at=now)

    def disconnect(self, reason: str) -> None:
        """Note that the fleet is cut off."""
        now = asyncio.get_running_loop().time()
        since = now if self._link.connected else self._link.since
        self._link = self._link._replace(connected=False, since=since, reason=reason)
        for host in self._mirrors:
            self._merged.set_connected(host, connected=False)

    def set_silent(self, host: str, *, silent: bool) -> None:
        """Note that a host is silent: its subscribers get no heartbeats. It is connected when its
        next records come."""
        if silent:
            self._silent.add(host)
            self._merged.set_connected(host, connected=False)
        else:
            self._silent.discard(host)

    async def receive(self, found: HostRecords) -> None:
        """Apply records."""
        host = found.host
        self._link = self._link._replace(heard_at=asyncio.get_running_loop().time())
        mirror = self._mirrors.get(host) or self._add(host)
        if mirror is None:
            return
        try:
            records = [decode(line) for line in found.records.split(b"\n") if line]
            self._apply(mirror, host, records)
        except (DecodeError, InvalidStream) as error:
            self._broken.add(host)
            self._limit.log(
                f"{self._fleet.url}: the records of {host} are left out until its next snapshot: "
                f"{error}",
                time.monotonic(),
            )
            return
        if mirror.feed is not None:
            self._merged.set_connected(host, connected=True)

    def _apply(self, mirror: Mirror, host: str, records: Sequence[Decoded]) -> None:
        """Apply records of a host. Raises InvalidStream."""
        if any(isinstance(record.value, Began) for record in records):
            # A mirror finds out by itself what is lost.
            while isinstance(records[0].value, Dropped):
                records = records[1:]
            if host not in self._broken and _repeats(mirror, records[0]):
                self._repeated.add(host)
                return
            self._broken.discard(host)
            self._repeated.discard(host)
            mirror.apply(records, is_first=True)
        elif host in self._repeated and not isinstance(records[0].value, Dropped):
            rest = [one for one in records if not isinstance(one.value, Present | SnapshotEnd)]
            if any(isinstance(record.value, SnapshotEnd) for record in records):
                self._repeated.discard(host)
            mirror.apply(rest, is_first=False)
        elif host not in self._broken:
            self._repeated.discard(host)
            mirror.apply(records, is_first=False)

    def _add(self, host: str) -> Mirror | None:
        """Return the mirror of a new host; None if another URL has this name."""
        url, owner = self._fleet.url, self._owners.setdefault(host, self._fleet.url)
        if owner == url and len(self._mirrors) < MAX_HOSTS:

            def put(feed: Feed) -> None:
                self._merged.put(host, feed)

            self._broken.add(host)  # Its first snapshot may begin with ``lost``.
            mirror = self._mirrors[host] = Mirror(host, put, self._merged.wake)
            return mirror
        if host not in self._refused:
            reason = f"{owner} has the same host name"
            if owner == url:
                reason = f"there are more than {MAX_HOSTS} hosts"
            log(f"{url}: {host} is refused: {reason}")
        self._refused.add(host)
        return None


def _repeats(mirror: Mirror, record: Decoded) -> bool:
    """Return whether a snapshot begins that the mirror has."""
    began = record.value
    return (
        isinstance(began, Began)
        and not began.resumed
        and mirror.position == (began.epoch, record.seq)
    )
