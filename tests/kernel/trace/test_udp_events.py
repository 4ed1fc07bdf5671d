"""The events of UDP, on a fake and on the real tracefs."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from agent.kernel.trace import instance, udp_events
from agent.kernel.trace.events import ROUTE, ROUTE6, UDP_EVENTS
from agent.kernel.trace.formats import UnknownFormat
from agent.kernel.trace.udp_events import REFUSED, UDP_FILTER, disable_udp, enable_udp, has_udp

from .captured import UDP_KERNELS, format_text, udp_formats


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """An instance whose UDP events are off."""
    for event in UDP_EVENTS:
        (tmp_path / "events" / event).mkdir(parents=True)
        for file in ("enable", "filter"):
            (tmp_path / "events" / event / file).write_text("0\n")
        text = format_text(UDP_KERNELS[-1], event)
        (tmp_path / "events" / event / "format").write_text(text)
    (tmp_path / "set_event").write_text("")
    return tmp_path


def texts(path: Path, file: str) -> list[str]:
    return [(path / "events" / event / file).read_text().rstrip() for event in UDP_EVENTS]


def test_the_events_are_switched_on_with_their_filter_and_off(path: Path) -> None:
    assert enable_udp(str(path)) is None
    assert texts(path, "filter") == [UDP_FILTER] * 2
    assert texts(path, "enable") == ["1"] * 2
    disable_udp(str(path))
    assert [text[0] for text in texts(path, "enable")] == ["0"] * 2
    assert [text[0] for text in texts(path, "filter")] == ["0"] * 2


@pytest.mark.parametrize("event", UDP_EVENTS)
def test_a_missing_tracepoint_is_named_and_the_other_one_is_off(path: Path, event: str) -> None:
    for file in (path / "events" / event).iterdir():
        file.unlink()
    (path / "events" / event).rmdir()
    assert enable_udp(str(path)) == f"no UDP events: this kernel has no tracepoint {event}"
    (other,) = UDP_EVENTS.keys() - {event}
    assert (path / "events" / other / "enable").read_text().startswith("0")
    with pytest.raises(UnknownFormat, match=f"has no tracepoint {event}"):
        udp_events.read_udp_formats(str(path))


@pytest.mark.parametrize("event", UDP_EVENTS)
def test_a_refused_filter_leaves_both_events_off(
    path: Path, event: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(file: str, text: str) -> None:
        if file.endswith(f"{event}/filter") and text == UDP_FILTER:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        instance.write(file, text)

    monkeypatch.setattr(udp_events, "write", write)
    assert enable_udp(str(path)) == REFUSED
    assert [text[0] for text in texts(path, "enable")] == ["0"] * 2


def test_other_errors_are_raised(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(_file: str, _text: str) -> None:
        raise PermissionError

    monkeypatch.setattr(udp_events, "write", write)
    with pytest.raises(PermissionError):
        enable_udp(str(path))


def test_on_means_both_events(path: Path) -> None:
    assert not has_udp(str(path))
    (path / "set_event").write_text("fib:fib_table_lookup\n")
    assert not has_udp(str(path))
    (path / "set_event").write_text("fib:fib_table_lookup\nfib6:fib6_table_lookup\ntcp:x\n")
    assert has_udp(str(path))


def test_the_formats_are_those_of_the_instance(path: Path) -> None:
    assert udp_events.read_udp_formats(str(path)) == udp_formats(UDP_KERNELS[-1])


def test_a_format_without_ports_is_refused(path: Path) -> None:
    file = path / "events" / ROUTE / "format"
    file.write_text(file.read_text().replace("sport", "port"))
    with pytest.raises(UnknownFormat, match=f"{ROUTE} has no field sport"):
        udp_events.read_udp_formats(str(path))


@pytest.mark.skipif(
    os.geteuid() != 0 or not instance.find_tracefs(), reason="requires root and tracefs"
)
def test_the_kernel_accepts_the_filter() -> None:
    root = instance.require_tracefs()
    name = f"sockagent-test-udp-{os.getpid()}"
    path = instance.path_of(root, name)
    os.mkdir(path)
    try:
        reason = enable_udp(path)
        if reason is not None and ROUTE6 in reason:
            pytest.skip(reason)
        assert reason is None
        assert has_udp(path)
        disable_udp(path)
        assert not has_udp(path)
    finally:
        os.rmdir(path)
