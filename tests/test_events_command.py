"""The command ``sockagent events``."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from agent import events_command
from agent.cli import main
from agent.errors import CommandError
from agent.events_command import HELP, describe, run_events
from agent.kernel.trace import instance
from agent.kernel.trace.instance import EVENTS, InstanceStatus, TraceInstance
from agent.kernel.trace.unavailable import TraceUnavailable


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """The calls that set up and remove instances, which are not made."""
    calls: list[tuple[str, ...]] = []

    def enable(root: str, name: str, buffer_kib: int) -> TraceInstance:
        calls.append(("enable", root, name))
        return TraceInstance(root, name, f"{root}/{name}", 1024, filtered=False)

    monkeypatch.setattr(instance, "require_tracefs", lambda: "/t")
    monkeypatch.setattr(instance, "enable", enable)
    monkeypatch.setattr(instance, "disable", lambda *words: calls.append(("disable", *words)))
    monkeypatch.setattr(
        instance, "remove_abandoned", lambda *words: calls.append(("abandoned", *words))
    )
    monkeypatch.setattr(instance, "status", lambda _root, _name: InstanceStatus())
    monkeypatch.setattr(
        events_command, "disable_udp", lambda *words: calls.append(("no udp", *words))
    )

    def enable_udp(path: str) -> str | None:
        calls.append(("udp", path))
        return "no UDP events: for a reason"

    monkeypatch.setattr(events_command, "enable_udp", enable_udp)
    return calls


@pytest.mark.parametrize(
    "words",
    [[], ["on"], ["enable", "disable"], ["--enable"], [""], ["--udp"], ["status", "--udp"]],
)
def test_other_words_are_wrong_usage(words: list[str], calls: list[tuple[str, ...]]) -> None:
    with pytest.raises(CommandError, match=r"^events: expected enable, disable or status, .*; see"):
        run_events(words)
    assert main(["events", *words]) == 2
    assert calls == []


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["enable", "--help"]])
def test_help(words: list[str], calls: list[tuple[str, ...]]) -> None:
    assert run_events(words) == HELP
    assert calls == []


def test_the_instance_is_that_of_the_service(
    calls: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    monkeypatch.setattr(events_command, "log", lines.append)
    assert run_events(["enable"]) == ""
    assert run_events(["disable"]) == ""
    assert calls == [
        ("abandoned", "/t"),
        ("enable", "/t", "sockagent"),
        ("no udp", "/t/sockagent"),
        ("disable", "/t", "sockagent"),
    ]
    assert [line.split(":")[0] for line in lines] == ["warning"] * 2
    assert "1024 KiB instead of" in lines[0]
    assert "refused the filter" in lines[1]


def test_udp_events_are_switched_on_and_why_they_stay_off_is_a_warning(
    calls: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    monkeypatch.setattr(events_command, "log", lines.append)
    assert run_events(["enable", "--udp"]) == ""
    assert calls[1:] == [("enable", "/t", "sockagent"), ("udp", "/t/sockagent")]
    assert lines[-1] == "warning: no UDP events: for a reason"


def test_the_status_of_no_instance_names_the_command(calls: list[tuple[str, ...]]) -> None:
    text = run_events(["status"])
    assert "/t/instances/sockagent does not exist" in text
    assert "sudo sockagent events enable" in text


def test_the_status_names_what_is_off() -> None:
    status = InstanceStatus(
        exists=True, on=True, events=EVENTS[1:], has_reader=True, cpus=2, buffer_kib=4096,
        entries=5, lost=7,
    )  # fmt: skip
    lines = describe("/t/instances/sockagent", status).splitlines()
    assert [line.split()[0] for line in lines] == [
        "instance", "state", "events", "udp", "reader", "buffer", "waiting", "lost"
    ]  # fmt: skip
    assert lines[1].endswith(" on")
    assert lines[2].endswith(f"{EVENTS[-1]}; off: {EVENTS[0]}")
    assert lines[3].endswith(" off")
    assert lines[5].endswith("4096 KiB for each of 2 CPUs")
    assert lines[7].endswith("7 events")
    assert " on" in describe("/t/instances/sockagent", status._replace(udp=True)).splitlines()[3]


def test_a_failure_is_one_line_with_status_1(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail() -> str:
        raise TraceUnavailable("no kernel events: for a reason")

    monkeypatch.setattr(instance, "require_tracefs", fail)
    assert main(["events", "status"]) == 1
    assert capfd.readouterr() == ("", "sockagent: no kernel events: for a reason\n")


def test_nothing_else_is_loaded() -> None:
    program = (
        "import sys; from agent.cli import main; main(['events', '--help']);"
        "print(*sorted(name for name in sys.modules), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == HELP
    loaded = set(done.stderr.split())
    assert not loaded & {"argparse", "asyncio", "orjson", "websockets", "dataclasses"}
    assert {name for name in loaded if re.match(r"agent\.(?!kernel)", name)} == {
        "agent.cli", "agent.errors", "agent.events_command", "agent.log"
    }  # fmt: skip


@pytest.mark.skipif(
    os.geteuid() != 0 or not instance.find_tracefs(), reason="requires root and tracefs"
)
def test_the_status_of_the_real_instance() -> None:
    text = run_events(["status"])
    assert text.startswith("instance  /sys/kernel/")


def test_the_help_names_each_word() -> None:
    for word in ("enable", "disable", "status"):
        assert re.search(rf"^  {word} ", HELP, re.MULTILINE)
    assert all(len(line) <= 100 for line in HELP.splitlines())
