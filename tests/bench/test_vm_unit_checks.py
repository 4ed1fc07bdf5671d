import json
from pathlib import Path

import pytest

from bench import vm_unit_checks
from bench.vm_unit_checks import End, Table, check_ends

ENDS = [End(40, 80, 7, "curl", "/usr/bin/curl"), End(41, 80, 8, "curl", "/usr/bin/curl")]


def record(event: str, end: End, attribution: str | None = "connect", **changed: object) -> str:
    fields = {"event": event, "attribution": attribution, **end._asdict(), **changed}
    return json.dumps(fields) + "\n"


def both(end: End, attribution: str | None = "connect", **changed: object) -> str:
    return "".join(record(event, end, attribution, **changed) for event in ("open", "close"))


def polled(end: End) -> str:
    """Records of a socket that a poll saw: without an attribution."""
    return both(end).replace('"attribution": "connect", ', "")


@pytest.mark.parametrize(
    ("written", "passed"),
    [
        (both(ENDS[0]) + both(ENDS[1]), True),
        (both(ENDS[0]) + polled(ENDS[1]), True),
        (polled(ENDS[0]) + polled(ENDS[1]), False),
        (both(ENDS[0]) + both(ENDS[1], "close"), False),
        (both(ENDS[0]) + both(ENDS[1], None), False),
        (both(ENDS[0]), False),
        (both(ENDS[0]) + record("open", ENDS[1]), False),
        (both(ENDS[0]) + both(ENDS[1], pid=7), False),
        (both(ENDS[0]) + both(ENDS[1], comm="wget"), False),
        (both(ENDS[0]) + both(ENDS[1], exe=None), False),
        (both(ENDS[0]) + both(ENDS[1], local_port=42), False),
        (both(ENDS[0]) + both(ENDS[1]) + both(ENDS[1]), False),
        (both(ENDS[0]) + both(ENDS[1])[:-1], False),  # The last line is not complete.
    ],
)
def test_check_ends_requires_one_open_and_one_close_of_each_end_with_its_process(
    written: str, passed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = tmp_path / "records"
    records.write_text('{"event":"hello"}\n' + written)
    monkeypatch.setattr(vm_unit_checks, "_RECORDS", records)
    monkeypatch.setattr(vm_unit_checks, "_WAIT_SECONDS", 0.0)
    monkeypatch.setattr(vm_unit_checks, "_PAUSE", 0.0)
    table = Table()
    check_ends(table, "curl", ENDS, "connect")
    assert table.failed == (not passed)
