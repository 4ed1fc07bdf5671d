import asyncio

import pytest

from agent.model import Holding
from agent.publish.http.metrics import metrics
from agent.publish.websocket.rejections import TOO_SLOW

from ...feeding import ONE, TWO
from ...make import FULL_COVERAGE
from ..websocket.serving import serving


async def test_metrics_over_http() -> None:
    async with serving(
        history_records=2, pages=lambda feed, registry: {"/metrics": metrics(feed, registry)}
    ) as running:
        running.poll(ONE, coverage=FULL_COVERAGE._replace(processes=5, unreadable=2))
        async with running.client():
            await running.subscribed(1)
            running.poll(TWO)
            await running.get("/nowhere")
            running.registry.rejections.evicted("a client", TOO_SLOW)
            status, text = await running.get("/metrics")
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


async def test_sockets_are_counted_once_per_poll(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving() as running:
        page = metrics(running.feed, running.registry)
        holdings = running.feed.holdings
        counted = 0

        def count() -> tuple[Holding, ...]:
            nonlocal counted
            counted += 1
            return holdings()

        monkeypatch.setattr(running.feed, "holdings", count)
        for held in ((ONE,), (ONE, TWO), ()):
            running.poll(*held)
            counted = 0
            for _ in range(3):
                lines = page.reply().body.decode().splitlines()
                line = f'sockagent_sockets{{family="inet",proto="tcp"}} {len(held)}.0'
                assert (line in lines) is bool(held)
            assert counted == 1
