"""A moment as output, and whether something passed the filter."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable

import pytest

from agent import moments
from agent.config import FORMATS, Config, View
from agent.model import Coverage, Holding
from agent.moments import MomentOutput, SnapshotOutput
from agent.publish.terminal.options import Options
from agent.show import Moment
from agent.stream.filters import Filter
from agent.stream.state import HostHolding

from .feeding import ONE, THREE, TWO
from .make import FULL_COVERAGE, holding, process, records, tcp

MOMENT_FORMATS = [name for name in FORMATS if name != "log"]
FOR_PEOPLE = ["summary", "table", "wide"]
PARTIAL = Coverage(processes=3, unreadable=1, netns=1)


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The messages on stderr."""
    messages: list[str] = []
    monkeypatch.setattr(moments, "log", messages.append)
    return messages


def config(*, quiet: bool = False, targets: bool = True, **filters: list[str]) -> Config:
    return Config(filter=Filter(filters), view=View(quiet=quiet, targets=targets))


def printed(
    output: str, chosen: Config, *holdings: Holding, coverage: Coverage | None = None
) -> tuple[bool, bytes]:
    """Whether something matched, and what is printed."""
    found = [HostHolding("host", one, None) for one in holdings]
    moment = Moment(found, {} if coverage is None else {"host": coverage}, 1.0)
    of_moment = MomentOutput(moment, chosen, output, Options())
    return of_moment.matched, b"".join(of_moment)


@pytest.mark.parametrize("output", MOMENT_FORMATS)
def test_what_matches_is_printed(output: str, logged: list[str]) -> None:
    matched, data = printed(output, config(port=["1"]), ONE, TWO)
    assert matched
    assert data
    assert logged == []


@pytest.mark.parametrize("output", MOMENT_FORMATS)
def test_quiet_prints_nothing(output: str, logged: list[str]) -> None:
    assert printed(output, config(quiet=True, port=["1"]), ONE) == (True, b"")
    assert printed(output, config(quiet=True, port=["9"]), ONE) == (False, b"")
    assert logged == []


@pytest.mark.parametrize("output", FOR_PEOPLE)
def test_people_get_one_sentence_where_nothing_matches(output: str, logged: list[str]) -> None:
    assert printed(output, config(port=["9"]), ONE, coverage=FULL_COVERAGE) == (False, b"")
    assert logged == ["no sockets match"]


def test_the_sentence_says_what_to_type(logged: list[str]) -> None:
    assert printed("table", config(pid=["8080"]), holding()) == (False, b"")
    assert logged == ["no sockets of process 8080; port 8080 has 1: sockagent :8080"]


@pytest.mark.parametrize(("output", "expected"), [("ndjson", b""), ("json", b"[]\n"), ("pid", b"")])
def test_programs_get_nothing_of_nothing(output: str, expected: bytes, logged: list[str]) -> None:
    assert printed(output, config(port=["9"]), ONE) == (False, expected)
    assert logged == ["no sockets match"]


def test_programs_get_the_header_of_nothing(logged: list[str]) -> None:
    matched, data = printed("csv", config(port=["9"]), ONE)
    assert (matched, data[:5], data.count(b"\r\n")) == (False, b"host,", 1)
    assert logged == ["no sockets match"]


def test_without_a_target_an_empty_machine_is_no_message(logged: list[str]) -> None:
    matched, data = printed("table", config(targets=False))
    assert not matched
    assert data.count(b"\n") == 1  # The header.
    assert logged == []


def test_processes_that_do_not_listen_are_no_match_of_a_port(logged: list[str]) -> None:
    client = holding(tcp(5, "ESTABLISHED", remote_addr="127.0.0.1", remote_port=1), process(9))
    assert printed("pid", config(port=["1"]), client) == (False, b"")
    assert logged == ["no process is known to listen there; -o table shows the sockets"]
    assert printed("pid", config(port=["1"]), client, ONE) == (True, b"7\n")
    assert printed("table", config(port=["1"]), client)[0]
    assert len(logged) == 1


# A snapshot of this machine.


Part = Iterable[Holding] | Coverage


async def parts(*found: Part) -> AsyncIterator[Part]:
    for part in found:
        yield part


def snapshot_of(output: str, chosen: Config, *found: Part) -> tuple[bool, bytes]:
    async def run() -> tuple[bool, bytes]:
        of_snapshot = SnapshotOutput(parts(*found), "web1", chosen, output, Options())
        assert not of_snapshot.matched
        chunks = [chunk async for chunk in of_snapshot]
        return of_snapshot.matched, b"".join(chunks)

    return asyncio.run(run())


def test_the_parts_of_a_snapshot_are_one_moment(logged: list[str]) -> None:
    matched, data = snapshot_of("ndjson", config(), [ONE, TWO], FULL_COVERAGE, [THREE])
    assert matched
    assert [(one["host"], one["inode"]) for one in records(data)] == [
        ("web1", 1), ("web1", 2), ("web1", 3)
    ]  # fmt: skip
    assert logged == []


def test_a_snapshot_without_a_match(logged: list[str]) -> None:
    assert snapshot_of("table", config(port=["9"]), [ONE], FULL_COVERAGE) == (False, b"")
    assert logged == ["no sockets match"]


def test_what_could_not_be_read_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    warned: list[Coverage] = []
    monkeypatch.setattr(moments, "warn", warned.append)
    snapshot_of("table", config(), [ONE], PARTIAL)
    assert warned == [PARTIAL]


def test_the_summary_itself_says_what_could_not_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    warned: list[Coverage] = []
    monkeypatch.setattr(moments, "warn", warned.append)
    _, data = snapshot_of("summary", config(), [ONE], PARTIAL)
    assert warned == []
    assert b"web1" in data
    assert data != snapshot_of("summary", config(), [ONE], FULL_COVERAGE)[1]
