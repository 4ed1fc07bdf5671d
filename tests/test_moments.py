"""A moment as output, and whether something passed the filter."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable

import pytest

from agent import moments
from agent.config import FORMATS, Config, View
from agent.model import Coverage, Holding, HostHolding
from agent.moments import MomentView, SnapshotOutput, view_of
from agent.publish.terminal.options import Options
from agent.show import Moment
from agent.stream.filters import Filter

from .feeding import ONE, THREE, TWO
from .make import FULL_COVERAGE, holding, process, records, tcp

MOMENT_FORMATS = [name for name in FORMATS if name != "log"]
FOR_PEOPLE = ["summary", "table", "wide"]
PARTIAL = Coverage(processes=3, unreadable=1, netns=1)


def config(*, quiet: bool = False, targets: bool = True, **filters: list[str]) -> Config:
    return Config(filter=Filter(filters), view=View(quiet=quiet, targets=targets))


def viewed(output: str, chosen: Config, *holdings: Holding) -> MomentView:
    found = [HostHolding("host", one, None) for one in holdings]
    return view_of(Moment(found, {}, 1.0), chosen, output, Options())


def printed(output: str, chosen: Config, *holdings: Holding) -> tuple[bool, bytes, str | None]:
    """Whether something matched, what is printed, and the notice."""
    view = viewed(output, chosen, *holdings)
    return view.matched, b"".join(view.chunks), view.notice


@pytest.mark.parametrize("output", MOMENT_FORMATS)
def test_what_matches_is_printed(output: str) -> None:
    matched, data, notice = printed(output, config(port=["1"]), ONE, TWO)
    assert matched
    assert data
    assert notice is None
    assert viewed(output, config(port=["1"]), ONE).is_shown == (output in FOR_PEOPLE)


@pytest.mark.parametrize("output", MOMENT_FORMATS)
def test_quiet_prints_nothing(output: str) -> None:
    assert printed(output, config(quiet=True, port=["1"]), ONE) == (True, b"", None)
    assert printed(output, config(quiet=True, port=["9"]), ONE) == (False, b"", None)
    assert not viewed(output, config(quiet=True), ONE).is_shown


@pytest.mark.parametrize("output", FOR_PEOPLE)
def test_people_get_one_sentence_where_nothing_matches(output: str) -> None:
    assert printed(output, config(port=["9"]), ONE) == (False, b"", "no sockets match")
    assert not viewed(output, config(port=["9"]), ONE).is_shown


def test_the_sentence_says_what_to_type() -> None:
    sentence = "no sockets of process 8080; port 8080 has 1: sockagent :8080"
    assert printed("table", config(pid=["8080"]), holding()) == (False, b"", sentence)


@pytest.mark.parametrize(("output", "expected"), [("ndjson", b""), ("json", b"[]\n"), ("pid", b"")])
def test_programs_get_nothing_of_nothing(output: str, expected: bytes) -> None:
    assert printed(output, config(port=["9"]), ONE) == (False, expected, "no sockets match")


def test_programs_get_the_header_of_nothing() -> None:
    matched, data, notice = printed("csv", config(port=["9"]), ONE)
    assert (matched, data[:5], data.count(b"\r\n")) == (False, b"host,", 1)
    assert notice == "no sockets match"


def test_without_a_target_an_empty_machine_is_no_message() -> None:
    matched, data, notice = printed("table", config(targets=False))
    assert not matched
    assert data.count(b"\n") == 1  # The header.
    assert notice is None


def test_processes_that_do_not_listen_are_no_match_of_a_port() -> None:
    client = holding(tcp(5, "ESTABLISHED", remote_addr="127.0.0.1", remote_port=1), process(9))
    notice = "no process is known to listen there; -o table shows the sockets"
    assert printed("pid", config(port=["1"]), client) == (False, b"", notice)
    assert printed("pid", config(port=["1"]), client, ONE) == (True, b"7\n", None)
    assert viewed("table", config(port=["1"]), client).matched


def test_a_recording_is_said_to_have_changes() -> None:
    chosen = Config(filter=Filter({"port": ["9"]}), view=View(targets=True, read="file"))
    notice = "no sockets match at that moment; -o log shows what opened and closed"
    assert printed("table", chosen, ONE) == (False, b"", notice)


# A snapshot of this machine.


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The messages on stderr."""
    messages: list[str] = []
    monkeypatch.setattr(moments, "log", messages.append)
    return messages


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


def test_a_summary_counts_all_parts(logged: list[str]) -> None:
    _matched, parted = snapshot_of("summary", config(), [ONE], FULL_COVERAGE, [TWO, THREE])
    _matched, whole = snapshot_of("summary", config(), [ONE, TWO, THREE], FULL_COVERAGE)
    assert parted == whole
    assert b"3 sockets" in parted
    assert logged == []


@pytest.fixture
def warned(monkeypatch: pytest.MonkeyPatch) -> list[Coverage]:
    """The coverages that are warned of on stderr."""
    coverages: list[Coverage] = []
    monkeypatch.setattr(moments, "warn", coverages.append)
    return coverages


@pytest.mark.parametrize(
    ("output", "seen", "port", "expected"),
    [
        ("table", True, "1", []),
        ("wide", True, "1", []),
        ("table", False, "1", [PARTIAL]),  # Stderr is read elsewhere.
        ("table", True, "9", [PARTIAL]),  # There is no table.
        ("json", True, "1", [PARTIAL]),
        ("pid", True, "1", [PARTIAL]),
        ("summary", True, "1", []),
        ("summary", False, "1", []),
        ("summary", False, "9", [PARTIAL]),
    ],
)
def test_what_could_not_be_read_is_said_once(
    monkeypatch: pytest.MonkeyPatch,
    logged: list[str],
    warned: list[Coverage],
    output: str,
    seen: bool,
    port: str,
    expected: list[Coverage],
) -> None:
    monkeypatch.setattr(moments, "errors_are_seen", lambda: seen)
    snapshot_of(output, config(port=[port]), [ONE], PARTIAL)
    assert warned == expected
    assert bool(logged) == (port == "9")


def test_the_summary_itself_says_what_could_not_be_read() -> None:
    _, data = snapshot_of("summary", config(), [ONE], PARTIAL)
    assert b"1 process could not be read" in data
    assert b"could not be read" not in snapshot_of("summary", config(), [ONE], FULL_COVERAGE)[1]
