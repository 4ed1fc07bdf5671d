"""A fleet of three hosts that publish at one broker: connections of known life, and who has them.

The hosts have a site of nginx, gunicorn and PostgreSQL, servers with several processes, and clients
that keep connections to all of these open for known times.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from ..broker import needs_broker
from .fleet_site import (
    CLASSES,
    LONG,
    TCP,
    Address,
    End,
    Fleet,
    Holders,
    Truth,
    end_of,
    need_tracefs,
    of_namespace,
)
from .helpers import need_root, run
from .hosts import ADDRESSES, NAMES
from .pages import Connected, comparable, wait_until

pytestmark = needs_broker

# Moments of which the table is printed, in seconds since the first connection.
MOMENTS = (4.0, 8.0, 12.0)
# Of the log: "12:45:42  db  open  postgres[17]  in  10.77.0.2:35546 → 10.77.0.4:5432".
_OPENED = re.compile(
    r"\S+ +(?P<host>\S+) +open +(?P<comm>\S+)\[(?P<pid>\d+)\] +(?P<direction>in|out) +"
    r"(?P<client>\S+:\d+) → (?P<server>\S+:\d+)"
)
COLUMNS = "host,pid,comm,local_addr,local_port,remote_addr,remote_port"


def holders(found: list[dict[str, Any]]) -> Holders:
    """Return the processes of each end in records."""
    ends = defaultdict(set)
    for record in found:
        end = end_of(record)
        if end is not None and record["pid"] is not None:
            ends[end].add((record["pid"], record["comm"]))
    return ends


def shown_at(found: list[dict[str, Any]]) -> dict[End, float]:
    """Return when a live view showed each end with a process: as late as any record before it, for
    events are reported after they happen."""
    times: dict[End, float] = {}
    now = 0.0
    for record in found:
        now = max(now, datetime.fromisoformat(record["time"]).timestamp())
        end = end_of(record)
        if end is not None and record["pid"] is not None:
            times.setdefault(end, now)
    return times


def verdict(found: set[tuple[int, str]], pid: int | None, comm: str) -> str:
    """Return whether an end has the right process, a wrong one, or none."""
    if not found:
        return "none"
    is_right = all(name == comm and pid in (None, number) for number, name in found)
    return "right" if is_right else "wrong"


def judge(truth: Truth, found: Holders) -> str:
    """Return whether a connection has the right processes at both ends."""
    verdicts = {verdict(found.get(end, set()), pid, comm) for end, pid, comm in truth.ends()}
    if "wrong" in verdicts:
        return "wrong"
    return "none" if "none" in verdicts else "right"


def address_of(text: str) -> Address:
    """Return an address as it is printed, an IPv4 one in IPv6 as IPv4."""
    address, _, port = text.rpartition(":")
    return address.strip("[]").removeprefix("::ffff:"), int(port)


def logged(text: str) -> Holders:
    """Return the processes of each end that a log says has opened."""
    ends = defaultdict(set)
    for line in text.splitlines():
        found = _OPENED.match(line)
        if found is not None:
            client, server = address_of(found["client"]), address_of(found["server"])
            is_client = found["direction"] == "out"
            end = End(found["host"], *((client, server) if is_client else (server, client)))
            ends[end].add((int(found["pid"]), found["comm"]))
    return ends


def tabulated(text: str) -> Holders:
    """Return the processes of each end in a table with COLUMNS."""
    ends = defaultdict(set)
    for line in text.splitlines():
        host, pid, comm, *addresses = line.split()
        if pid != "-" and "-" not in addresses:
            local, local_port, remote, remote_port = addresses
            end = End(
                host, address_of(f"{local}:{local_port}"), address_of(f"{remote}:{remote_port}")
            )
            ends[end].add((int(pid), comm))
    return ends


def edges(found: list[dict[str, Any]]) -> Counter[tuple[str, str, str, str]]:
    """Return the service map: connections by the processes at both ends, joined by the swapped
    addresses and ports."""
    seen: dict[End, tuple[str, str]] = {}
    hosts = {address: name for name, address in ADDRESSES.items()}
    for record in found:
        end = end_of(record)
        if end is not None and record.get("comm") is not None:
            seen[end] = record["direction"], record["comm"]
    counted: Counter[tuple[str, str, str, str]] = Counter()
    for end, (direction, comm) in seen.items():
        there = hosts.get(end.remote[0])
        if direction == "outbound" and there is not None:
            other = seen.get(End(there, end.remote, end.local))
            if other is not None and other[0] == "inbound":
                counted[end.host, comm, there, other[1]] += 1
    return counted


@pytest.fixture(scope="module", params=["polls", "events"])
def called(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Fleet, list[Truth]]]:
    need_root()
    with_events = request.param == "events"
    if with_events:
        need_tracefs()
    with ExitStack() as stack:
        fleet = Fleet(stack, tmp_path_factory.mktemp(request.param), with_events=with_events)
        yield fleet, fleet.call()


def shares(truths: list[Truth], found: Holders) -> dict[str, Counter[str]]:
    """Return the verdicts on the connections of each class."""
    counted = {name: Counter[str]() for name in CLASSES}
    for truth in truths:
        counted[truth.kind][judge(truth, found)] += 1
    return counted


def check_ends(truths: list[Truth], found: Holders) -> None:
    """Check that no end has a wrong process, and each of a long connection the right one."""
    for truth in truths:
        judged = judge(truth, found)
        there = [found.get(end) for end, *_ in truth.ends()]
        assert judged != "wrong", (truth, there)
        assert judged == "right" or truth.kind != LONG, (truth, there)


def test_the_map_joins_both_ends_of_each_connection(called: tuple[Fleet, list[Truth]]) -> None:
    fleet, truths = called
    found = fleet.recorded()
    counted = shares(truths, holders(found))
    assert counted[LONG].total() > 50
    for name, verdicts in counted.items():
        print(f"{name}: {verdicts.total()} true, {verdicts['right']} right, {verdicts}")
    check_ends(truths, holders(found))
    true_edges = {(one.client.host, one.comms[0], one.server.host, one.comms[1]) for one in truths}
    site = {("web", "nginx", "app", "gunicorn"), ("app", "gunicorn", "db", "postgres")}
    assert true_edges <= edges(found).keys() <= true_edges | site
    assert not [one for one in found if one["event"] == "lost"]
    assert "Traceback" not in fleet.errors()


def test_the_log_of_the_fleet_names_both_ends(called: tuple[Fleet, list[Truth]]) -> None:
    fleet, truths = called
    check_ends(truths, logged(fleet.log.read_text()))


def test_the_table_of_a_moment_names_both_ends(
    called: tuple[Fleet, list[Truth]], tmp_path: Path
) -> None:
    fleet, truths = called
    recording = tmp_path / "records.ndjson"
    files = sorted(fleet.records.glob("*.ndjson"))
    recording.write_bytes(b"".join(file.read_bytes() for file in files))
    start, checked = min(truth.opened for truth in truths), 0
    shown = shown_at(fleet.recorded())
    for moment in MOMENTS:
        at = int(start + moment)
        done = run(
            "--read", str(recording), "--at", datetime.fromtimestamp(at).isoformat(),
            "-o", "table", "--no-header", "--columns", COLUMNS, *TCP,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        table = tabulated(done.stdout)
        for truth in truths:
            judged = judge(truth, table)
            assert judged != "wrong", truth
            times = [shown.get(end) for end, *_ in truth.ends()]
            is_there = at < truth.closed and all(time is not None and time <= at for time in times)
            if truth.kind == LONG and is_there:
                assert judged == "right", truth
                checked += 1
    assert checked > len(MOMENTS)


def test_a_relay_of_the_broker_leads_to_the_state_of_the_agents(
    called: tuple[Fleet, list[Truth]],
) -> None:
    fleet, _ = called
    hosts = fleet.site.hosts.values()
    with ExitStack() as stack:
        agents = [
            stack.enter_context(Connected(f"unix:{host.path}", *TCP, *of_namespace(host.pid)))
            for host in hosts
        ]
        for agent in agents:
            agent.wait_for("snapshot_end")
        states: list[dict[object, object]] = []

        def are_equal() -> bool:
            direct = {key: one for agent in agents for key, one in agent.state().items()}
            states[:] = [
                {key: comparable(one) for key, one in state.items()}
                for state in (direct, fleet.relayed.state())
            ]
            return bool(direct) and states[0] == states[1]

        wait_until(are_equal, lambda: states)
    assert {key[0] for key in fleet.relayed.state()} == set(NAMES)
    assert fleet.relayed.events.count("snapshot_end") == len(NAMES)
    assert {"open", "close"} <= set(fleet.relayed.events)
