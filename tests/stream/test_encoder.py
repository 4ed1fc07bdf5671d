import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import __version__
from agent.model import (
    ATTRIBUTIONS,
    EVENTS_OFF,
    UDP_ATTRIBUTION,
    CgroupInfo,
    Closed,
    Coverage,
    Holding,
    Opened,
    Owner,
    TcpFigures,
    Updated,
)
from agent.snapshot.stats import PollSummary
from agent.stream import encoder as encoding
from agent.stream.encoder import (
    AgentInfo,
    Encoder,
    coverage_fields,
    process_fields,
    record_fields,
    snapshot_chunks,
    socket_fields,
)
from agent.stream.filters import Filter
from agent.stream.times import timestamp

from ..feeding import AGENT
from ..make import holding, process, records, tcp, without_holder
from ..strategies import changes, coverages, holdings, tcp_figures, unix_sockets, unseen

TIME = 1_700_000_000.25
STATS = PollSummary(3, 1.5, 2.5, 0.5, 10.0, 20.0, 30.0, 1, 50, 49, 2)
AT = "2023-11-14T22:13:20.250000Z"
HEAD = {"event": "open", "seq": 5, "time": AT, "host": "host"}
DELTA_HEAD = {**HEAD, "time_source": "poll"}
FIGURES = TcpFigures(5_000_000_000, 1234, 40, 30, 2, 0.125)
NO_FIGURES = dict.fromkeys(TcpFigures._fields)
UNSEEN = Holding(
    tcp(0, remote_addr="::1", remote_port=1)._replace(state=None, source="netlink"),
    process(),
    (),
    Owner(0, "root"),
)


@pytest.fixture
def encoder() -> Encoder:
    return Encoder(AgentInfo("host", "boot", "epoch", 0.5))


def plain(fields: dict[str, object]) -> Any:
    """Return fields as JSON has them."""
    return json.loads(json.dumps(fields))


def only(data: bytes) -> dict[str, Any]:
    (record,) = records(data)
    return record


def test_the_record_of_a_tcp_listener(encoder: Encoder) -> None:
    by = process(exe="/usr/bin/app", unit="app.service", cgroup="/app.service", container=None)
    assert only(encoder.delta(Opened(holding(tcp(direction="listen"), by, (3, 5))), 5, TIME)) == {
        **DELTA_HEAD,
        "proto": "tcp",
        "family": "inet",
        "state": "LISTEN",
        "local_addr": "127.0.0.1",
        "local_port": 8080,
        "remote_addr": None,
        "remote_port": None,
        "interface": None,
        "backlog": None,
        "direction": "listen",
        "recv_q": 0,
        "send_q": 0,
        "inode": 11,
        "netns": 1,
        "uid": 0,
        "user": "root",
        "source": "procfs",
        "pid": 7,
        "fds": [3, 5],
        "fd_count": 2,
        "comm": "app",
        "exe": "/usr/bin/app",
        "ppid": 1,
        "start_time": "2023-11-14T22:13:20.000000Z",
        "cgroup": "/app.service",
        "unit": "app.service",
        "container": None,
    }


def test_a_socket_without_a_holder_has_a_null_pid_and_no_process(encoder: Encoder) -> None:
    record = only(encoder.delta(Opened(without_holder()), 5, TIME))
    assert record["pid"] is None
    assert not record.keys() & {
        "fds",
        "fd_count",
        "comm",
        "exe",
        "ppid",
        "start_time",
        "unit",
        "cmdline",
    }


def test_a_row_that_no_process_can_hold_has_a_null_inode(encoder: Encoder) -> None:
    record = only(encoder.delta(Opened(without_holder(tcp(0, "TIME_WAIT", uid=None))), 5, TIME))
    assert record["inode"] is None


def test_unix_sockets_have_a_path_and_no_ports() -> None:
    unix = tcp()._replace(proto="unix", family="unix", type="stream", path="@x")
    fields = socket_fields(holding(unix))
    assert (fields["path"], fields["type"]) == ("@x", "stream")
    assert not fields.keys() & {"local_addr", "local_port", "remote_addr", "remote_port"}
    assert not socket_fields(holding()).keys() & {"path", "type"}


def test_only_a_listener_has_a_backlog_and_it_may_be_null(encoder: Encoder) -> None:
    for socket in (tcp(), tcp()._replace(proto="unix", family="unix", type="stream")):
        assert only(encoder.delta(Opened(holding(socket)), 5, TIME))["backlog"] is None
        connected = holding(socket._replace(state="ESTABLISHED"))
        assert "backlog" not in only(encoder.delta(Opened(connected), 5, TIME))


def test_a_socket_without_a_holder_has_its_cgroup(encoder: Encoder) -> None:
    hidden = without_holder()._replace(cgroup=CgroupInfo("/a.service", "a.service", None))
    record = only(encoder.delta(Opened(hidden), 5, TIME))
    assert (record["cgroup"], record["unit"], record["container"]) == (
        "/a.service", "a.service", None
    )  # fmt: skip


def test_a_command_line_that_was_not_read_is_absent() -> None:
    assert "cmdline" not in process_fields(process())
    assert process_fields(process(cmdline=("a", "b")))["cmdline"] == ("a", "b")


def test_an_update_has_the_previous_values(encoder: Encoder) -> None:
    was = holding(tcp(state="SYN_SENT", recv_q=5), process(comm="old"), (3,))
    now = holding(tcp(state="ESTABLISHED"), process(comm="new"), (3, 4))
    record = only(encoder.delta(Updated(now, was), 5, TIME))
    assert record["previous"] == {"state": "SYN_SENT", "comm": "old", "fds": [3], "fd_count": 1}
    assert record == {
        **plain(record_fields(now)),
        **DELTA_HEAD,
        "event": "update",
        "previous": record["previous"],
    }


def test_every_record_with_descriptors_counts_them(encoder: Encoder) -> None:
    many = holding(fds=tuple(range(3, 67)))._replace(omitted_fds=4_000 - 64)
    for one, count in ((holding(tcp(state="ESTABLISHED")), 1), (many, 4_000)):
        lines = [encoder.holding(encoder.head("snapshot", 5, TIME), one)]
        deltas = (Opened(one), Updated(one, one), Closed(one, "closed", None))
        lines += [encoder.delta(delta, 5, TIME) for delta in deltas]
        for record in map(only, lines):
            assert (record["fds"], record["fd_count"]) == (list(one.fds), count)


def test_an_update_has_the_previous_number_of_descriptors(encoder: Encoder) -> None:
    one = holding(fds=tuple(range(3, 67)))._replace(omitted_fds=9)
    record = only(encoder.delta(Updated(one, one._replace(omitted_fds=8)), 5, TIME))
    assert (record["fd_count"], record["previous"]) == (73, {"fd_count": 72})


def test_a_socket_that_begins_to_listen_is_an_update(encoder: Encoder) -> None:
    was, now = holding(tcp(state="CLOSE")), holding(tcp(state="LISTEN", backlog=128))
    record = only(encoder.delta(Updated(now, was), 5, TIME))
    assert (record["state"], record["backlog"]) == ("LISTEN", 128)
    assert record["previous"]["state"] == "CLOSE"
    record = only(encoder.delta(Updated(was, now), 5, TIME))
    assert record["previous"]["state"] == "LISTEN"


@pytest.mark.parametrize(
    ("seconds", "duration"), [(None, None), (0.0, 0), (1.2345, 1234), (-3.0, 0)]
)
def test_a_close_has_a_duration(
    encoder: Encoder, seconds: float | None, duration: int | None
) -> None:
    record = only(encoder.delta(Closed(holding(), "exited", seconds), 5, TIME))
    assert record == {
        **plain(record_fields(holding())), **DELTA_HEAD, "event": "close", "reason": "exited",
        "duration_ms": duration, **NO_FIGURES,
    }  # fmt: skip


def test_hello(encoder: Encoder) -> None:
    sight = Coverage(3, 1, 2, ("something",))
    assert only(encoder.hello(4, TIME, sight, resumed=True, oldest=2)) == {
        "event": "hello",
        "seq": 4,
        "time": AT,
        "host": "host",
        "schema": 1,
        "version": __version__,
        "boot_id": "boot",
        "epoch": "epoch",
        "interval": 0.5,
        "resumed": True,
        "oldest": 2,
        "complete": False,
        "processes": 3,
        "unreadable": 1,
        "netns": 2,
        "missing": ["something"],
        "events": False,
        "events_off": EVENTS_OFF,
    }


@pytest.mark.parametrize(
    ("encode", "fields"),
    [
        (lambda e: e.snapshot_end(5, TIME, 9), {"event": "snapshot_end", "count": 9}),
        (lambda e: e.lost(5, TIME, 2, 5), {"event": "lost", "from": 2, "to": 5}),
        (lambda e: e.heartbeat(5, TIME, STATS), {"event": "heartbeat", **STATS._asdict()}),
    ],
)
def test_records_of_the_stream_itself(
    encoder: Encoder, encode: Callable[[Encoder], bytes], fields: dict[str, Any]
) -> None:
    assert only(encode(encoder)) == {**HEAD, **fields}


def test_the_first_keys_of_every_record_are_the_same(encoder: Encoder) -> None:
    for line in (
        encoder.heartbeat(5, TIME, STATS),
        encoder.delta(Opened(holding()), 5, TIME),
        encoder.delta(Coverage(1, 0, 1), 5, TIME),
    ):
        assert list(only(line))[:4] == ["event", "seq", "time", "host"]


# Templates and the general way give the same records.


@given(st.lists(holdings, min_size=1, max_size=4))
def test_socket_records_have_the_fields_of_the_holding(found: list[Holding]) -> None:
    encoder = Encoder(AgentInfo('ho"st', None, "epoch", 1.0))
    head = encoder.head("snapshot", 5, TIME)
    encoded = [only(line) for line in encoder.holdings(head, found)]
    about = {"event": "snapshot", "seq": 5, "time": AT, "host": 'ho"st'}
    assert encoded == [{**about, **plain(record_fields(one))} for one in found]


@given(unix_sockets)
def test_a_unix_path_may_be_any_text(socket: Any) -> None:
    one = Holding(socket._replace(type="stream"), process(), (3,), Owner(0, "root"))
    record = only(Encoder(AgentInfo("host", None, "e", 1.0)).delta(Opened(one), 1, TIME))
    assert record["path"] == socket.path


@given(changes())
def test_updates_and_closes_have_the_fields_of_the_holding(pair: tuple[Holding, Holding]) -> None:
    now, was = pair
    encoder = Encoder(AgentInfo("host", None, "epoch", 1.0))
    updated = only(encoder.delta(Updated(now, was), 5, TIME))
    previous = updated.pop("previous")
    assert updated == {**DELTA_HEAD, "event": "update", **plain(record_fields(now))}
    assert all(updated[name] != value for name, value in previous.items())
    closed = only(encoder.delta(Closed(was, "closed", 1.5), 5, TIME))
    ending = {"reason": "closed", "duration_ms": 1500}
    if was.socket.proto == "tcp":
        ending |= NO_FIGURES
    assert closed == {**DELTA_HEAD, "event": "close", **plain(record_fields(was)), **ending}


@given(st.floats(0, 4e9), tcp_figures, unseen)
def test_a_delta_has_the_time_and_the_figures_of_an_event(
    at: float, figures: TcpFigures, one: Holding
) -> None:
    encoder = Encoder(AgentInfo("host", None, "epoch", 1.0))
    deltas = (
        Opened(one, at), Updated(one, one, 1.0, at), Closed(one, "closed", None, at, figures)
    )  # fmt: skip
    records = [only(encoder.delta(delta, 5, TIME)) for delta in deltas]
    for record in records:
        assert (record["time"], record["time_source"]) == (timestamp(at), "event")
    assert {name: records[2][name] for name in TcpFigures._fields} == figures._asdict()
    assert not records[1].keys() & {"attribution", *TcpFigures._fields}
    for record in (records[0], records[2]):
        assert record["attribution"] == one.attribution


@pytest.mark.parametrize("attribution", [None, *ATTRIBUTIONS])
def test_a_tcp_socket_that_no_poll_saw_has_an_attribution(
    encoder: Encoder, attribution: str | None
) -> None:
    one = UNSEEN._replace(attribution=attribution)
    for delta in (Opened(one), Closed(one, "closed", None)):
        record = only(encoder.delta(delta, 5, TIME))
        assert (record["inode"], record["attribution"]) == (None, attribution)
        assert list(record)[:4] == ["event", "seq", "time", "host"]


def test_a_udp_socket_that_no_poll_saw_has_an_attribution_if_it_has_a_process(
    encoder: Encoder,
) -> None:
    one = UNSEEN._replace(
        socket=UNSEEN.socket._replace(proto="udp"), attribution=UDP_ATTRIBUTION
    )  # fmt: skip
    for delta in (Opened(one), Closed(one, "closed", None)):
        assert only(encoder.delta(delta, 5, TIME))["attribution"] == "route"


@pytest.mark.parametrize(
    "one", [holding(), UNSEEN._replace(socket=UNSEEN.socket._replace(proto="udp"))]
)
def test_no_other_socket_has_an_attribution(encoder: Encoder, one: Holding) -> None:
    for delta in (Opened(one), Updated(one, one), Closed(one, "closed", None)):
        assert "attribution" not in only(encoder.delta(delta, 5, TIME))


def test_only_the_close_of_a_tcp_socket_has_figures(encoder: Encoder) -> None:
    assert only(encoder.delta(Closed(holding(), "closed", None, None, FIGURES), 5, TIME)) == {
        **plain(record_fields(holding())), **DELTA_HEAD, "event": "close", "reason": "closed",
        "duration_ms": None, "bytes_sent": 5_000_000_000, "bytes_received": 1234,
        "segments_out": 40, "segments_in": 30, "retransmits": 2, "rtt_ms": 0.125,
    }  # fmt: skip
    udp = holding(tcp()._replace(proto="udp"))
    for delta in (Closed(udp, "closed", None), Opened(holding()), Updated(holding(), holding())):
        assert not only(encoder.delta(delta, 5, TIME)).keys() & set(TcpFigures._fields)


def test_a_snapshot_record_has_no_time_source(encoder: Encoder) -> None:
    for one in (holding(), holding(tcp(state="ESTABLISHED")), UNSEEN):
        line = encoder.holding(encoder.head("snapshot", 5, TIME), one)
        assert only(line) == {**HEAD, "event": "snapshot", **plain(record_fields(one))}


# Control characters of terminals, which JSON allows unescaped.
controls = st.text(st.sampled_from("a\x00\x1b\x7f\x80\x9b\x9f\xa0é\u2028"), max_size=6)


def raw_controls(line: bytes) -> list[str]:
    """Return the control characters of a line without its newline."""
    assert line.endswith(b"\n")
    return [char for char in line[:-1].decode() if ord(char) < 0x20 or 0x7F <= ord(char) <= 0x9F]


@given(
    names=st.lists(controls, min_size=12, max_size=12),
    kind=st.sampled_from(["inet", "unix", "packet", "hidden"]),
    state=st.sampled_from(["LISTEN", "CONNECTED"]),
)
def test_no_record_has_a_raw_control_character(names: list[str], kind: str, state: str) -> None:
    comm, exe, cgroup, unit, container, word, user, path, host, interface, proto, missing = names
    socket = tcp(state=state, uid=0, remote_addr="::1", remote_port=1)
    if kind == "unix":
        socket = socket._replace(proto="unix", family="unix", type="stream", path=path)
    elif kind == "packet":
        socket = socket._replace(proto=proto, family=kind, local_addr=path)
    else:
        socket = socket._replace(interface=interface or None)
    by = process(comm=comm, exe=exe, cgroup=cgroup, unit=unit, container=container, cmdline=(word,))
    one = Holding(socket, by, (3,), Owner(0, user))
    if kind == "hidden":
        one = Holding(socket, None, (), Owner(0, user), None, CgroupInfo(cgroup, unit, container))
    encoder, sight = Encoder(AgentInfo(host, "boot", "epoch", 1.0)), Coverage(1, 0, 1, (missing,))
    lines = [
        encoder.holding(encoder.head("snapshot", 5, TIME), one),
        encoder.delta(Opened(one), 5, TIME),
        encoder.delta(Updated(one, one._replace(owner=Owner(1, path))), 5, TIME),
        encoder.delta(Closed(one, "closed", 1.0), 5, TIME),
        encoder.delta(sight, 5, TIME),
        encoder.hello(5, TIME, sight, resumed=False),
        encoder.snapshot_end(5, TIME, 1),
        encoder.lost(5, TIME, 1, 5),
        encoder.heartbeat(5, TIME, STATS),
    ]
    assert [raw_controls(line) for line in lines] == [[]] * len(lines)
    for line in lines[:2]:
        assert only(line) == {**only(line), **plain(record_fields(one)), "host": host}
    assert only(lines[2])["user"] == user
    assert only(lines[4])["missing"] == [missing]


@given(coverages)
def test_coverage_records_have_the_coverage_fields(sight: Coverage) -> None:
    record = only(Encoder(AgentInfo("host", None, "e", 1.0)).delta(sight, 5, TIME))
    assert record == {**HEAD, "event": "coverage", **plain(coverage_fields(sight))}
    assert record["complete"] == (not sight.missing and not sight.unreadable)
    assert record["events"] == (record["events_off"] is None)


def test_a_reused_pid_has_the_fields_of_the_new_process(encoder: Encoder) -> None:
    encoder.delta(Opened(holding(by=process(7, 1, comm="old"))), 1, TIME)
    assert (
        only(encoder.delta(Opened(holding(by=process(7, 2, comm="new"))), 2, TIME))["comm"] == "new"
    )


def test_a_forgotten_process_is_encoded_again(encoder: Encoder) -> None:
    one = Opened(holding())
    line = encoder.delta(one, 1, TIME)
    encoder.forget_processes_except({8})
    assert encoder.delta(one, 1, TIME) == line


@pytest.mark.parametrize("values", [{}, {"port": ["1-10"]}, {"event": ["open"]}])
def test_a_one_shot_snapshot_has_the_records_that_pass(
    monkeypatch: pytest.MonkeyPatch, values: dict[str, list[str]]
) -> None:
    monkeypatch.setattr(encoding, "SNAPSHOT_CHUNK_LINES", 7)
    chosen = Filter(values)
    held = [holding(tcp(inode, local_port=inode)) for inode in range(1, 31)]
    chunks = list(snapshot_chunks(Encoder(AGENT), held, chosen, 0.0))
    found = [record["inode"] for chunk in chunks for record in records(chunk)]
    wanted = held if "snapshot" in chosen.events else []
    assert found == [one.socket.inode for one in wanted if chosen.matches(one)]
    assert all(chunk.count(b"\n") <= 7 for chunk in chunks)


def test_chunks_are_encoded_as_they_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "SNAPSHOT_CHUNK_LINES", 7)

    def holdings() -> Iterator[Holding]:
        yield from [holding()] * 7
        raise AssertionError

    assert next(snapshot_chunks(Encoder(AGENT), holdings(), Filter(), 0.0)).count(b"\n") == 7
