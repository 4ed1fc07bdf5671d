import json
from functools import cache
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.model import (
    CgroupInfo,
    Closed,
    Coverage,
    Delta,
    Holding,
    Opened,
    Owner,
    SocketEnd,
    TcpFigures,
    Updated,
)
from agent.snapshot.stats import PollStats
from agent.stream.encoder import AgentInfo, Encoder
from agent.stream.schema import schema, schema_text

from ..make import holding, process, records, tcp, without_holder
from ..strategies import changes, coverages, ends, names, times, unseen, unseen_udp

TIME = 1_700_000_000.0
STATS = PollStats().figures()


@cache
def validator() -> jsonschema.Draft202012Validator:
    jsonschema.Draft202012Validator.check_schema(schema())
    return jsonschema.Draft202012Validator(schema())


def check(*lines: bytes) -> None:
    for line in lines:
        for record in records(line):
            validator().validate(record)


def encoder() -> Encoder:
    return Encoder(AgentInfo("host", None, "epoch", 1.0))


@settings(max_examples=50)
@given(changes(), st.sampled_from(["closed", "exited", "attributed", "filtered"]))
def test_every_socket_record_is_valid(pair: tuple[Holding, Holding], reason: str) -> None:
    now, was = pair
    deltas: list[Delta] = [Opened(now), Updated(now, was), Closed(was, reason, None)]
    check(
        *(encoder().delta(delta, 5, TIME) for delta in deltas),
        *encoder().holdings(encoder().head("snapshot", 5, TIME), [now, was]),
    )


@given(unseen | unseen_udp, times, ends)
def test_every_record_of_a_socket_that_only_events_showed_is_valid(
    one: Holding, opened: float | None, end: SocketEnd
) -> None:
    at, figures = end
    deltas: list[Delta] = [Opened(one, opened), Closed(one, "closed", None, at, figures)]
    check(*(encoder().delta(delta, 5, TIME) for delta in deltas))


@given(coverages, st.booleans(), st.none() | names)
def test_every_record_of_the_stream_itself_is_valid(
    sight: Coverage, resumed: bool, boot_id: str | None
) -> None:
    encoder = Encoder(AgentInfo("host", boot_id, "epoch", 0.05))
    check(
        encoder.hello(0, TIME, sight, resumed=resumed),
        encoder.delta(sight, 1, TIME),
        encoder.snapshot_end(1, TIME, 0),
        encoder.lost(9, TIME, 2, 9),
        encoder.heartbeat(9, TIME, STATS),
    )


def test_records_have_all_fields_of_the_schema_and_no_others() -> None:
    unix = tcp()._replace(proto="unix", family="unix", type="stream", path="/x")
    packet = tcp(state="UNCONNECTED")._replace(proto="packet", family="packet")
    by, place = process(cmdline=("app",)), CgroupInfo("/a.service", "a.service", None)
    found = [holding(socket, by) for socket in (tcp(), unix, packet)]
    unseen = Holding(tcp(0), by, (), Owner(0, "root"), attribution="connect")
    found += [without_holder(socket)._replace(cgroup=place) for socket in (tcp(), unix, packet)]
    lines = [*encoder().holdings(encoder().head("snapshot", 1, TIME), found)]
    for one in found:
        deltas: list[Delta] = [Opened(one), Updated(one, one), Closed(one, "closed", 1.0)]
        lines += [encoder().delta(delta, 1, TIME) for delta in deltas]
    figures = TcpFigures(1, 2, 3, 4, 5, 0.5)
    deltas = [Opened(unseen, TIME), Closed(unseen, "closed", 1.0, TIME, figures)]
    lines += [encoder().delta(delta, 1, TIME) for delta in deltas]
    sight = Coverage(1, 0, 1)
    lines += [
        encoder().hello(0, TIME, sight, resumed=False),
        encoder().delta(sight, 1, TIME),
        encoder().snapshot_end(1, TIME, 0),
        encoder().lost(9, TIME, 2, 9),
        encoder().heartbeat(9, TIME, STATS),
        encoder().heartbeat(9, TIME, None),
    ]
    check(*lines)
    encoded: dict[str, set[str]] = {}
    for line in lines:
        for record in records(line):
            encoded.setdefault(record["event"], set()).update(record)
    described: dict[str, set[str]] = {}
    for form in schema()["oneOf"]:
        event = form["properties"]["event"]["const"]
        described.setdefault(event, set()).update(form["properties"])
    assert encoded == described


RECORD: dict[str, Any] = records(encoder().delta(Opened(holding()), 5, TIME))[0]


@pytest.mark.parametrize(
    "change",
    [
        {"state": "listening"},
        {"direction": "sideways"},
        {"local_port": -1},
        {"local_port": "80"},
        {"pid": None},
        {"path": "/x"},
        {"event": "opened"},
        {"time": "yesterday"},
        {"seq": -1},
        {"surprise": 1},
        {"time_source": "clock"},
        {"attribution": "guess"},
        {"bytes_sent": 1},
    ],
)
def test_an_invalid_value_is_rejected(change: dict[str, Any]) -> None:
    validator().validate(RECORD)
    assert not validator().is_valid({**RECORD, **change})


@pytest.mark.parametrize("name", sorted(RECORD.keys() - {"backlog"}))
def test_every_field_is_required(name: str) -> None:
    assert not validator().is_valid({key: RECORD[key] for key in RECORD if key != name})


def test_every_field_has_a_description() -> None:
    described = {
        name
        for form in schema()["oneOf"]
        for name, field in form["properties"].items()
        if "description" in field or "const" in field
    }
    assert described == {name for form in schema()["oneOf"] for name in form["properties"]}


def test_the_text_of_the_schema_is_json() -> None:
    assert json.loads(schema_text()) == schema()
