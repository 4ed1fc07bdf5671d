"""Records as a consumer passes them on."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.remote.nats.chain import Action, Missing, Verdict
from agent.remote.nats.lines import LineFilter, lost_line, name_other, passed_on, safe_records
from agent.stream.filters import Filter
from agent.stream.fleet import Link
from tests.feeding import ONE, THREE, TWO, events, seqs
from tests.make import Record, holding, process, records, tcp
from tests.relaying import Agent

OWN = b'{"event":"open","seq":1,"host":"a"}\n'
SAFE_LINES = [b'{"seq":1}', b'{"host":"a"}', b'{"x":"\x1b"}', b'{"x":"\xc2\x9b"}', b"[]", b"3"]
LINK = Link("e", 4, 6, "r.1", 1, begins=False, whole=True, id="r.2")


def moved(agent: Agent) -> None:
    """Publish a poll in which ONE changes its state, which filters by state show otherwise."""
    agent.poll(ONE._replace(socket=ONE.socket._replace(state="ESTABLISHED")), TWO)


def both(**chosen: list[str]) -> tuple[list[Record], list[Record]]:
    """Return what a filter lets through, as an agent applies it, and as a consumer does."""
    agent = Agent("a", "e")
    agent.poll(ONE, TWO)
    wanted = Filter(chosen)
    local, whole = agent.feed.subscribe(wanted), agent.feed.subscribe()
    filtered = LineFilter(wanted)
    found: tuple[list[Record], list[Record]] = ([], [])

    def take() -> None:
        while (chunk := local.take()) is not None:
            found[0].extend(records(chunk) if chunk else [])
        while (chunk := whole.take()) is not None:
            passed = filtered.apply("a", chunk)
            found[1].extend(records(passed) if passed else [])

    take()
    moved(agent)
    agent.poll(ONE, TWO, THREE)
    take()
    return found


def test_the_filter_gives_what_that_of_the_agent_gives() -> None:
    for chosen in (
        {"port": ["1"]}, {"state": ["LISTEN"]}, {"state": ["ESTABLISHED"]},
        {"event": ["open", "close"], "port": ["3"]}, {"event": ["snapshot"]}, {"host": ["a"]},
    ):  # fmt: skip
        local, passed = both(**chosen)
        for record in (*local, *passed):  # How long it was open is not known behind a broker.
            if record.get("reason") == "filtered":
                record["duration_ms"] = None
        assert passed == local, chosen
        assert local


def test_what_is_no_record_is_left_out_by_a_filter() -> None:
    assert LineFilter(Filter({"port": ["1"]})).apply("a", b'{"event":"open"}\n') == b""
    assert LineFilter(Filter()).apply("a", b'{"event":"open"}\n') == b'{"event":"open"}\n'


def test_records_that_were_passed_on_are_left_out() -> None:
    lines = b'{"event":"open","seq":5}\n{"event":"new"}\n{"event":"open","seq":6}\n'
    verdict = Verdict(Action.PASS_LATER, 5)
    assert passed_on(verdict, LINK, "a", 0.0, lines) == lines.partition(b"\n")[2]


def test_a_loss_replaces_the_one_of_the_publisher() -> None:
    lines = lost_line("a", 0.0, 6, 3, 6) + b'{"event":"hello","seq":6}\n'
    verdict = Verdict(Action.PASS_ANEW, lost=Missing(1, 6))
    found = records(passed_on(verdict, LINK, "a", 0.0, lines))
    assert events(found) == ["lost", "hello"]
    assert (found[0]["from"], found[0]["to"], found[0]["seq"]) == (1, 6, 6)
    ended = Verdict(Action.DROP, lost=Missing(1, None))
    assert seqs(records(passed_on(ended, LINK, "a", 0.0, lines))) == [6]
    assert events(records(passed_on(Verdict(Action.PASS_ANEW), LINK, "a", 0.0, lines))) == ["hello"]


def test_a_snapshot_follows_something() -> None:
    lost = lost_line("a", 0.0, 6, 3, 6)
    assert passed_on(Verdict(Action.PASS_ANEW), LINK, "a", 0.0, lost) == lost
    assert passed_on(Verdict(Action.DROP), LINK, "a", 0.0, lost) == b""


@pytest.mark.parametrize(
    "line",
    [
        b'{"event":"open","host":"b"}',
        b'{"event":"open","host":"ab"}',
        b'{"event":"open","host":"a","host":"b"}',
        b'{"event":"open","host":"b","host":"a"}',
        b'{"event":"open","host":"a","ho\\u0073t":"b"}',
        b'{"event":"open","ho\\u0073t":"b","previous":{"host":"a"}}',
        b'{"event":"open","host" :"b","previous":{"host":"a"}}',
        b'{"event":"open","host":"b","comm":"\\"host\\":\\"a\\""}',
        b'{"event":"open","host":null}',
        b'{"event":"open","host":"b"} {"host":"a"}',
        b'[["host","a"]]',
    ],
)
def test_records_that_name_another_host_are_found(line: bytes) -> None:
    assert name_other(OWN + line + b"\n", "a")
    assert name_other(line + b"\n" + OWN, "a")


@pytest.mark.parametrize("more", ["", "host", '"host":"b"', "\\u0068ost", "\x1b", "\u00e9", "\x7f"])
@pytest.mark.parametrize("host", ["a", "a.example", "we*b.1 %>\u00e9", 'quo"te', "\x7f"])
def test_records_of_a_host_are_its_own_whatever_their_texts(host: str, more: str) -> None:
    agent = Agent(host, "e")
    agent.poll(holding(tcp(1), process(7, comm=more, exe=more, cmdline=(more, "host"))), TWO)
    agent.poll(ONE)
    subscription, found = agent.feed.subscribe(), b""
    while chunk := subscription.take():
        found += chunk
    assert found
    assert not name_other(found, host)
    assert name_other(found, "other")


@given(st.dictionaries(st.sampled_from(["host", "Host", "x", "event"]), st.sampled_from("ab")))
def test_a_record_names_another_host_by_its_field_alone(record: dict[str, str]) -> None:
    line = json.dumps(record).encode() + b"\n"
    assert name_other(OWN + line, "a") == (record.get("host") == "b")


@pytest.mark.parametrize("field", ["local_addr", "remote_addr", "direction"])
def test_texts_of_a_host_are_no_records_of_others(field: str) -> None:
    agent = Agent("a", "e")
    agent.poll(ONE)
    subscription = agent.feed.subscribe()
    while subscription.take():
        pass
    agent.poll(ONE._replace(socket=ONE.socket._replace(state="ESTABLISHED")))
    (update,) = records(subscription.take() or b"")
    injected = 'x","host":"b"}\n{"event":"open","host":"b'
    update |= {"remote_addr": "10.0.0.1", "remote_port": 9, field: injected}
    line = json.dumps(update).encode() + b"\n"
    assert not name_other(line, "a")
    (found,) = records(LineFilter(Filter({"state": ["ESTABLISHED"]})).apply("a", line))
    assert (found["event"], found["host"], found[field]) == ("open", "a", injected)


def test_a_loss_has_no_text_that_a_terminal_interprets() -> None:
    line = lost_line("\x7f\x9b", 0.0, 1, 1, 1)
    assert line.isascii()
    assert b"\x7f" not in line


@given(st.lists(st.binary(max_size=20) | st.sampled_from(SAFE_LINES), min_size=1))
def test_whatever_a_host_sends_its_records_are_lines_of_json(lines: list[bytes]) -> None:
    sent = b"\n".join(lines) + b"\n"
    try:
        found, left_out = safe_records(sent, "a")
    except ValueError:
        return
    kept = found.split(b"\n")[:-1]
    assert len(kept) + left_out == sent.count(b"\n")
    assert all(isinstance(json.loads(line), dict) for line in kept)
    assert not set(found.decode()) & {chr(code) for code in (*range(10), *range(11, 32), 127, 155)}


def test_lines_that_are_no_records_are_counted() -> None:
    sent = b'{"seq":1}\r\n\x1b[2J\n\n[]\n{"x":"\x07"}\n{"x":"\xc2\x9b\x7f"}\n'
    assert safe_records(sent, "a") == (b'{"seq":1}\n{"x":"\\u009b\\u007f"}\n', 4)
    with pytest.raises(ValueError, match="the last line is not complete"):
        safe_records(b'{"seq":1}', "a")
