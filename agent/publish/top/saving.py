"""Writes what the screen shows into a file that ``--read`` shows again."""

from __future__ import annotations

import os
from collections.abc import Iterable
from datetime import UTC, datetime
from itertools import groupby
from operator import attrgetter

from ...model import HostHolding
from ...stream.encoder import AgentInfo, Encoder, snapshot_chunks
from ...stream.filters import Filter

# Records may have what other users must not read, such as command lines.
_MODE = 0o600


def save(
    holdings: Iterable[HostHolding], chosen: Filter, time: float, directory: str
) -> tuple[str, int]:
    """Write the holdings that pass a filter, those of one host together, into a new file; return
    its name and their number. Raises OSError; there is no new file then."""
    moment = datetime.fromtimestamp(time, UTC)
    name = f"sockagent-{moment:%Y%m%dT%H%M%SZ}.ndjson"
    path = os.path.join(directory, name)
    count = 0
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _MODE)
    try:
        with open(descriptor, "wb") as file:
            for host, of_host in groupby(holdings, attrgetter("host")):
                encoder = Encoder(AgentInfo(host, None, "", 0.0), is_kernels=False)
                values = (one.holding for one in of_host)
                for chunk in snapshot_chunks(encoder, values, chosen, time):
                    count += chunk.count(b"\n")
                    file.write(chunk)
    except OSError:
        os.unlink(path)
        raise
    return name, count
