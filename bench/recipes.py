"""Time the recipes of docs/fleet.md, in DuckDB, over a recording of a million made-up records.

50 hosts call each other; each connection has a record of its opening and of its end at both ends,
and each host has listeners, which snapshots repeat. Exits with 1 if a recipe takes too long.
"""

from __future__ import annotations

import argparse
import random
import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from agent.model import Closed, Holding, Opened, Owner, Process, Socket
from agent.stream.encoder import AgentInfo, Encoder

from .report import log

DOCUMENT = Path(__file__).parent.parent / "docs/fleet.md"
VIEW = "view"
MAX_SECONDS = 3.0
_DIRECTORY = "/var/lib/fleet"  # In the document.
_RECIPE = re.compile(r"^<!-- sql: (\w+) -->\n```sql\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_HOSTS = 50
_SERVICES = ("web", "shop", "jobs", "cache", "postgres")
_START = 1_795_867_200.0  # 2026-11-28 12:00 UTC, near the times in the document.
_SECONDS_PER_CONNECTION = 0.02
_SNAPSHOT_CONNECTIONS = 15_000  # Every 300 s.
_RECORDS_PER_CONNECTION = 4
_RUNS = 3


def recipes(directory: Path) -> dict[str, str]:
    """Return the SQL of the document by name, for the recording in a directory."""
    text = DOCUMENT.read_text(encoding="utf-8")
    return {name: sql.replace(_DIRECTORY, str(directory)) for name, sql in _RECIPE.findall(text)}


class _Fleet:
    """Hosts that call each other, and the encoders of their records."""

    def __init__(self) -> None:
        self._random = random.Random(1)
        self._encoders = [Encoder(AgentInfo(f"db{n}", None, "e", 1.0)) for n in range(_HOSTS)]
        self._processes = [
            Process(
                100 + number, 1, comm=name, ppid=1, start_time=_START, exe=f"/usr/bin/{name}",
                cgroup=f"/system.slice/{name}.service", unit=f"{name}.service",
            )
            for number, name in enumerate(_SERVICES)
        ]  # fmt: skip
        self._inode = 0

    def _end(self, host: int, service: int, local: int, peer: int, remote: int) -> Holding:
        self._inode += 1
        direction = "outbound" if local >= 32768 else "inbound"
        socket = Socket(
            self._inode, "tcp", "inet", None, "ESTABLISHED", f"10.0.0.{host}", local,
            f"10.0.0.{peer}", remote, direction=direction, recv_q=0, send_q=0, uid=0, netns=1,
        )  # fmt: skip
        return Holding(socket, self._processes[service], (9,), Owner(0, "root"))

    def connection(self, number: int) -> tuple[bytes, bytes]:
        """Return the records of the opening of a connection, and of its end."""
        caller, server = self._random.sample(range(_HOSTS), 2)
        port, service = 5430 + self._random.randrange(len(_SERVICES)), self._random.randrange(4)
        local = 32768 + self._random.randrange(28000)
        at, lived = _START + number * _SECONDS_PER_CONNECTION, 2.0
        ends = (
            (caller, self._end(caller, service, local, server, port)),
            (server, self._end(server, 4, port, caller, local)),
        )
        seq = number + 1
        opened = [self._encoders[host].delta(Opened(end), seq, at) for host, end in ends]
        closed = [
            self._encoders[host].delta(Closed(end, "closed", lived), seq, at + lived)
            for host, end in ends
        ]
        return b"".join(opened), b"".join(closed)

    def snapshots(self, number: int) -> bytes:
        """Return a snapshot of each host."""
        at, seq = _START + number * _SECONDS_PER_CONNECTION, number + 1
        lines: list[bytes] = []
        for encoder in self._encoders:
            listeners = [
                Holding(
                    Socket(10**9 + service, "tcp", "inet", None, "LISTEN", "0.0.0.0",
                           5430 + service, direction="listen", recv_q=0, send_q=0, netns=1),
                    process, (3,), Owner(0, "root"),
                )
                for service, process in enumerate(self._processes)
            ]  # fmt: skip
            lines += encoder.holdings(encoder.head("snapshot", seq, at), listeners)
            lines.append(encoder.snapshot_end(seq, at, len(listeners)))
        return b"".join(lines)


def made_up(records: int) -> Iterator[bytes]:
    """Yield about as many records, in parts."""
    fleet, ends = _Fleet(), []
    for number in range(records // _RECORDS_PER_CONNECTION):
        if number % _SNAPSHOT_CONNECTIONS == 0:
            yield fleet.snapshots(number)
        opened, closed = fleet.connection(number)
        ends.append(closed)
        yield opened
        if len(ends) > 100:  # They live two seconds.
            yield ends.pop(0)
    yield from ends


def main() -> None:
    """Print the seconds of each recipe. Raises SystemExit."""
    import duckdb  # noqa: PLC0415 (recipes() does not need it)

    parser = argparse.ArgumentParser(prog="python -m bench recipes", description=__doc__)
    parser.add_argument("--records", type=int, default=1_000_000)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "2026-11-28T12Z.ndjson")
        with path.open("wb") as file:
            file.writelines(made_up(parser.parse_args().records))
        log(f"{path.stat().st_size / 1e6:.0f} MB")
        database = duckdb.connect()
        found = recipes(path.parent)
        database.execute(found.pop(VIEW))
        print("| recipe | rows | wall, s | CPU, s | at most, s |\n|---|---:|---:|---:|---:|")
        slow = False
        for name, sql in found.items():
            times = []
            for _ in range(_RUNS):
                start, cpu = time.perf_counter(), time.process_time()
                rows = database.execute(sql).fetchall()
                times.append((time.perf_counter() - start, time.process_time() - cpu))
            wall, cpu = sorted(times)[_RUNS // 2]
            slow = slow or wall > MAX_SECONDS
            print(f"| {name} | {len(rows):,} | {wall:.2f} | {cpu:.2f} | {MAX_SECONDS:.0f} |")
    if slow:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
