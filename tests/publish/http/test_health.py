import asyncio
from functools import partial

import pytest

from agent.model import Holding
from agent.publish.http.health import health
from agent.publish.http.metrics import metrics
from agent.publish.websocket.rejections import SLOW
from agent.stream.feed import Feed

from ...feeding import AGENT, ONE, TWO
from ...make import SIGHT, snapshot
from ..websocket.serving import serving

INTERVAL = 0.05


def test_before_the_first_poll_it_is_not_well() -> None:
    assert health(Feed(AGENT), INTERVAL)[::2] == (503, b"the first poll is not through\n")


async def test_while_polls_come_it_is_well() -> None:
    async with serving() as there:
        there.server._answers["/healthz"] = partial(health, there.feed, INTERVAL)
        there.poll(ONE)
        assert await there.get("/healthz") == (200, "ok\n")


def test_when_they_do_not_the_reason_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    feed = Feed(AGENT)
    feed.publish(snapshot(), [])
    monkeypatch.setattr(feed, "age", lambda: 7.25)
    status, _kind, content = health(feed, 1.0)
    assert (status, content) == (503, b"the last poll was 7.2 s ago\n")
    assert health(feed, 5.0)[0] == 200


async def test_what_is_counted() -> None:
    async with serving(history_records=2) as there:
        there.server._answers["/metrics"] = metrics(there.feed, there.server)
        there.poll(ONE, coverage=SIGHT._replace(processes=5, unreadable=2))
        async with there.client():
            await there.subscribed(1)
            there.poll(TWO)
            await there.get("/nowhere")
            there.server.tally.evicted("somebody", SLOW)
            status, text = await there.get("/metrics")
            await asyncio.sleep(0)
    assert status == 200
    lines = text.splitlines()
    for line in (
        'sockagent_sockets{family="inet",proto="tcp"} 1.0',
        'sockagent_processes{readable="true"} 1.0',
        "sockagent_network_namespaces 1.0",
        'sockagent_records_total{event="open"} 1.0',
        'sockagent_records_total{event="close"} 1.0',
        'sockagent_records_total{event="coverage"} 1.0',
        "sockagent_subscribers 1.0",
        "sockagent_lost_total 0.0",
        'sockagent_refusals_total{reason="404"} 1.0',
        'sockagent_evictions_total{kind="slow"} 1.0',
        "sockagent_polls_total 0.0",
    ):
        assert line in lines, line
    for name in ("process_cpu_seconds_total", "process_resident_memory_bytes",
                 'sockagent_poll_duration_seconds{quantile="0.99"}', "sockagent_poll_cpu_seconds",
                 "sockagent_late_polls_total"):  # fmt: skip
        assert any(line.startswith(f"{name} ") for line in lines), name


async def test_sockets_are_counted_once_a_poll(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving() as there:
        answer = metrics(there.feed, there.server)
        holdings = there.feed.holdings
        counted = 0

        def count() -> tuple[Holding, ...]:
            nonlocal counted
            counted += 1
            return holdings()

        monkeypatch.setattr(there.feed, "holdings", count)
        for held in ((ONE,), (ONE, TWO), ()):
            there.poll(*held)
            counted = 0
            for _ in range(3):
                lines = answer()[2].decode().splitlines()
                line = f'sockagent_sockets{{family="inet",proto="tcp"}} {len(held)}.0'
                assert (line in lines) is bool(held)
            assert counted == 1
