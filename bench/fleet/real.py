"""A fleet of real agents, each in namespaces with processes that open and close sockets.

The truth of a host is what a reader beside its agent, which is never killed, has printed.
"""

from __future__ import annotations

import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from itertools import chain
from pathlib import Path

from tests.machine.hosts import Namespaces

from ..agents import ROOT, agent_at
from .check import Fold, Truth, fold, gaps, whole_lines
from .host import truth_files
from .kills import Fleet, Recorded, Scenario, Size
from .manager import FEED, READER, Inside, Service
from .plan import Wanted
from .process import Process

INTERVAL = 0.2  # Seconds between two polls.
_SIZE = Size(hosts=3, consumers=2, rate=400.0)
# An agent runs so long between two faults that its reader has its epoch.
REAL_LONG = Scenario(130.0, Wanted(kills=26, restarts=4, between=2.0), _SIZE)
REAL_SHORT = Scenario(30.0, Wanted(kills=6, restarts=1, between=2.0), _SIZE)
# Longest pauses of churn are so many seconds divided by the rate of changes.
_PAUSES = 13.0
# No change for so long: there will be none.
_QUIET_SECONDS, _LOOK_SECONDS = 1.0, 0.2
_ARRIVE_SECONDS = 0.5  # Until readers have what the agents have sent.
_SNAPSHOT_SECONDS = 30.0
_OF_PROCESS = re.compile(rb'^{"event":"(?:open|update|close)".*"pid":\d')
_MAX_EXAMPLES = 5
_THERE = 'hostname "$1"; ip link set lo up; echo; read go; exec sleep infinity'


class RealFleet(Fleet):
    """The processes, with real agents, and with churn and a reader for each of them."""

    def __init__(self, directory: Path, size: Size, nats_server: str, stack: ExitStack) -> None:
        self._stack = stack
        self._there: dict[str, Namespaces] = {}
        self._services: dict[str, Service] = {}
        self._churn: dict[str, Inside] = {}
        self._readers: dict[str, Process] = {}
        super().__init__(directory, size, nats_server, stack)

    def _agent(self, host: str, rate: float) -> Process:
        directory = self._directory / host
        for name in ("truth", "sockets"):
            (directory / name).mkdir(parents=True)
        there = self._there[host] = Namespaces(self._stack, _THERE, host)
        agent = agent_at(ROOT, "this")
        argv = agent.command(
            "--listen", f"systemd:{FEED}", "--listen", f"systemd:{READER}",
            "--interval", str(INTERVAL),
        )  # fmt: skip
        service = Service(there, argv, self._directory / f"{host}.log", directory, self._stack)
        churn = Inside(
            there,
            (sys.executable, "-m", "bench.fleet.churn", str(directory / "sockets"),
             str(random.randrange(2**32)), str(_PAUSES / rate)),
            self._directory / f"{host}-churn.log",
        )  # fmt: skip
        reader = Process(
            agent.command("--connect", f"unix:{directory}/{READER}", "-o", "ndjson"),
            self._directory / f"{host}-reader.log",
            directory / "truth/0001.ndjson",
        )
        self._services[host] = service
        self._churn[f"{host}-churn"], self._readers[f"{host}-reader"] = churn, reader
        for process in (churn, reader):
            self._stack.callback(process.kill)
            process.start()
        return service

    def failures(self) -> list[str]:
        """Return which processes have ended by themselves, or reported an error of Python."""
        self.processes |= self._churn | self._readers
        return super().failures()

    def truth(self, host: str) -> Truth:
        """Return the truth of a host, as its reader has it."""
        lines = self._read(host)
        return Truth([lines], lines)

    def _read(self, host: str) -> list[bytes]:
        (path,) = truth_files(self._directory / host)
        return whole_lines(path.read_bytes())

    def end_changes(self) -> float:
        """End the churn, and stop the agents once it is quiet; return when the readers had the last
        change of a process, in monotonic seconds."""
        for churn in self._churn.values():
            churn.send(signal.SIGUSR1)
        last, since = [b""], time.monotonic()
        while time.monotonic() - since < _QUIET_SECONDS:
            time.sleep(_LOOK_SECONDS)
            newest = [self._last_of_process(host) for host in self.hosts]
            if newest != last:
                last, since = newest, time.monotonic()
        # Agents outside of the namespaces may have sockets in them, and go on to change them.
        for service in self._services.values():
            service.send(signal.SIGSTOP)
        time.sleep(_ARRIVE_SECONDS)
        return since

    def _last_of_process(self, host: str) -> bytes:
        lines = reversed(self._read(host))
        return next((line for line in lines if _OF_PROCESS.search(line)), b"")

    def complete(self, truths: Mapping[str, Truth], recorded: Recorded) -> list[str]:
        """Add to the truth what only the consumers have of the last poll before a kill; return
        where the readers have a gap, and how their states differ from a new snapshot."""
        problems = super().complete(truths, recorded)
        for host, truth in truths.items():
            added = truth.admit(chain.from_iterable(one.get(host, ()) for one in recorded.values()))
            if missing := gaps(self._read(host)):
                problems.append(f"{host}: the reader has {missing} gaps")
            found, now = _held(truth.fold), self._snapshot(host)
            if found != now:
                problems.append(
                    f"{host}: not in a new snapshot {list(found - now)[:_MAX_EXAMPLES]}, "
                    f"only there {list(now - found)[:_MAX_EXAMPLES]}"
                )
            print(
                f"{host}: {len(truth.epochs)} epochs, {self._services[host].handovers} handovers, "
                f"{len(now)} sockets in the end; "
                f"{added} changes of last polls that only the consumers have"
            )
        print(flush=True)
        return problems

    def _snapshot(self, host: str) -> set[tuple[int | None, int]]:
        """Return the keys of a new snapshot, without those of the process that takes it."""
        command = agent_at(ROOT, "this").command("-o", "ndjson")
        done = subprocess.run(
            self._there[host].command("sh", "-c", 'echo $$; exec "$@"', "sh", *command),
            cwd=ROOT, check=True, capture_output=True, timeout=_SNAPSHOT_SECONDS,
        )  # fmt: skip
        pid, *lines = done.stdout.splitlines()
        return {key for key in _held(fold(lines)[0]) if key[0] != int(pid)}


def _held(found: Fold) -> set[tuple[int | None, int]]:
    """Return the keys of what a process holds: others are of agents outside of the namespaces."""
    return {key for key in found if key[0] is not None}
