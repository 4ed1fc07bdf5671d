"""What ``sockagent top`` shows is put together from the settings."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from typing import NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import remote_screen, topping
from agent.config import Config, Network, View
from agent.errors import RuntimeFailure, UsageError
from agent.log import log, shown_by
from agent.publish.top.publisher import ScreenPublisher
from agent.publish.top.screen import TopApp
from agent.publish.top.sources import RecordingSource, RemoteSource
from agent.remote.client import RemoteAgent
from agent.remote.resume import InvalidFeed
from agent.remote_screen import _decoded, _Link, _notice
from agent.stream.filters import Filter
from agent.topping import filter_text, parse_filter

from .publish.top.screens import Script, web
from .recorded import DATA

# The filter.


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("", {}),
        ("  ", {}),
        ("nginx", {"name": ["nginx"]}),
        (":443 port!=22", {"port": ["443"], "port!": ["22"]}),
        ("proto=tcp addr!=10.0.0.0/8", {"proto": ["tcp"], "addr!": ["10.0.0.0/8"]}),
        ("'comm=tmux: server'", {"comm": ["tmux: server"]}),
        ("comm='a", {"comm": ["'a"]}),  # While it is typed, a quote has no end yet.
    ],
)
def test_the_filter_is_that_of_the_command_line(text: str, values: dict[str, list[str]]) -> None:
    assert parse_filter(text) == Filter(values)


@pytest.mark.parametrize("text", ["port=x", "prot=tcp", ":x", "state=nonsense"])
def test_a_wrong_filter_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_filter(text)


@given(
    st.dictionaries(
        st.sampled_from(["comm", "comm!", "name", "path", "unit"]),
        st.lists(st.text(min_size=1).filter(lambda text: "," not in text and text.strip() == text),
                 min_size=1, max_size=3),
        max_size=3,
    )
)  # fmt: skip
def test_the_text_of_a_filter_means_the_filter(values: dict[str, list[str]]) -> None:
    chosen = Filter(values)
    assert parse_filter(filter_text(chosen)) == chosen


def test_plain_filters_are_not_quoted() -> None:
    assert filter_text(Filter({"port!": ["443"], "comm": ["b", "a*"]})) == "comm=a*,b port!=443"


# Sources.


@pytest.mark.parametrize(
    ("config", "is_local", "why_not"),
    [
        (Config(), True, None),
        (Config(view=View(read_only=True)), True, "--read-only"),
        (Config(proc="/other"), True, "--proc"),
        (Config(), False, "only for processes of this machine"),
    ],
)
def test_only_processes_of_this_machine_get_signals(
    config: Config, is_local: bool, why_not: str | None
) -> None:
    app = topping._app(config, Script(is_local=is_local))
    assert app._settings.no_signals == why_not


async def test_a_recording_or_remote_agents_are_shown() -> None:
    shown = topping.screen(Config(view=View(top=True, read="x")))
    assert isinstance(shown._source, RecordingSource)
    shown = topping.screen(Config(network=Network(connect=("ws://127.0.0.1:1",))))
    assert isinstance(shown._source, RemoteSource)
    assert str(shown._source.notice()).endswith("connecting")


AGENT = RemoteAgent("ws://a", ())


async def test_a_link_notes_since_when_it_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_700_000_000.0
    monkeypatch.setattr("agent.remote_screen.time.time", lambda: now)
    links = [_Link(AGENT), _Link(AGENT._replace(url="ws://b"))]
    put: list[bytes] = []

    async def take(records: bytes) -> None:
        put.append(records)

    async def follow(_agent: RemoteAgent, _receiver: object) -> NoReturn:
        raise RuntimeFailure("401")

    monkeypatch.setattr(remote_screen, "follow", follow)
    for link in links:
        with pytest.raises(RuntimeFailure):
            await link.follow(take)
        assert _notice([link], True) == f"{link.url}: not connected since 22:13:20Z, connecting"
        await link.receive(DATA, is_first=True)
    assert put == [DATA, DATA]
    assert _notice(links, True) is None
    assert links[0].resume
    now += 60
    links[0].disconnect("connection lost")
    now += 60
    links[0].disconnect("no response")
    assert _notice(links, True) == "ws://a: cut off since 22:14:20Z, no response"
    links[1].disconnect("connection lost")
    assert str(_notice(links, True)).endswith("no response; and 1 more")
    with pytest.raises(InvalidFeed):
        await links[1].receive(b"nonsense", is_first=True)


async def test_records_that_cannot_be_read_are_left_out() -> None:
    logged: list[str] = []

    async def chunks() -> AsyncIterator[bytes]:
        yield DATA + b'{"event":"open"}\n'

    with shown_by(logged.append):
        batches = [batch async for batch in _decoded(chunks())]
    assert [len(batch) for batch in batches] == [len(DATA.splitlines())]
    assert logged[0].startswith("warning: a record of a remote agent is left out")


# The publisher.


class Ending(Script):
    """A source that ends with a failure."""

    async def run(self) -> None:
        raise RuntimeFailure("ws://a: 401 wrong token")


def headless(monkeypatch: pytest.MonkeyPatch) -> None:
    run = TopApp.run_async
    monkeypatch.setattr(TopApp, "run_async", lambda self: run(self, headless=True, size=(80, 24)))


async def test_a_failure_of_the_source_ends_the_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    headless(monkeypatch)
    source = Ending()
    publisher = ScreenPublisher(source, topping._app(Config(), source))
    with pytest.raises(RuntimeFailure, match="401"):
        await publisher.run()


@pytest.mark.parametrize("seconds", [0.0, 0.5])
async def test_it_stops_at_any_time(seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    headless(monkeypatch)
    source = web()
    publisher = ScreenPublisher(source, topping._app(Config(), source))
    await publisher.stop()  # Before it runs there is nothing to stop.
    running = asyncio.create_task(publisher.run())
    await asyncio.sleep(seconds)
    await publisher.stop()
    async with asyncio.timeout(10):
        await running


async def test_it_can_be_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    headless(monkeypatch)
    source = web()
    publisher = ScreenPublisher(source, topping._app(Config(), source))
    running = asyncio.create_task(publisher.run())
    await asyncio.sleep(0.5)
    running.cancel()
    async with asyncio.timeout(10):
        with pytest.raises(asyncio.CancelledError):
            await running
    assert publisher._showing is not None
    assert publisher._showing.done()


async def test_an_error_of_the_code_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    headless(monkeypatch)
    monkeypatch.setattr(TopApp, "_show", lambda _self: 1 / 0)
    source = web()
    publisher = ScreenPublisher(source, topping._app(Config(), source))
    with pytest.raises(ZeroDivisionError):
        await publisher.run()


def test_messages_go_to_the_screen_while_it_is_shown(capfd: pytest.CaptureFixture[str]) -> None:
    shown: list[str] = []
    with shown_by(shown.append):
        log("one\x1b")
    assert shown == ["one\\x1b"]
    assert capfd.readouterr().err == ""


@pytest.fixture(autouse=True)
def handlers() -> object:
    """Textual's driver sets handlers of signals; the tests after these have theirs."""
    numbers = (signal.SIGTSTP, signal.SIGCONT)
    before = [signal.getsignal(number) for number in numbers]
    yield None
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)
