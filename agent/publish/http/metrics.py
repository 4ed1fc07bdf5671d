"""The page /metrics: Prometheus text by the official client library (the extra ``metrics``)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from ...model import Snapshot
from ...stream.feed import Feed
from ..websocket.registry import Registry
from .pages import Page, Reply


def metrics(feed: Feed, clients: Registry) -> Page:
    """Return the page with all metrics of the feed, of its clients and of this process."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    registry.register(_Collector(feed, clients))
    return Page(lambda: Reply(200, CONTENT_TYPE_LATEST, generate_latest(registry)))


class _Collector:
    """Reads the metrics when the page is requested."""

    def __init__(self, feed: Feed, clients: Registry) -> None:
        self._feed = feed
        self._clients = clients
        # The sockets by protocol and family, with the snapshot in which they were counted.
        self._counted: tuple[Snapshot | None, Counter[tuple[str | None, str | None]]]
        self._counted = None, Counter()

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics."""
        yield from self._poll_metrics()
        yield from self._feed_metrics()
        yield from self._client_metrics()

    def _poll_metrics(self) -> Iterator[Metric]:
        figures = self._feed.stats.figures()
        yield CounterMetricFamily("sockagent_polls", "Polls.", value=figures.polls)
        yield CounterMetricFamily(
            "sockagent_late_polls", "Polls that completed late.", value=figures.late_polls
        )
        took = GaugeMetricFamily(
            "sockagent_poll_duration_seconds",
            "Duration of a poll, of the last 600.",
            labels=["quantile"],
        )
        took.add_metric(["0.5"], figures.poll_ms / 1000)
        took.add_metric(["0.99"], figures.poll_p99_ms / 1000)
        yield took
        yield GaugeMetricFamily(
            "sockagent_poll_cpu_seconds",
            "Average CPU time of a poll, of the last 600.",
            value=figures.poll_cpu_ms / 1000,
        )

    def _feed_metrics(self) -> Iterator[Metric]:
        feed = self._feed
        sockets = GaugeMetricFamily(
            "sockagent_sockets",
            "Sockets held by processes, counted once per process.",
            labels=["proto", "family"],
        )
        if self._counted[0] is not feed.snapshot:  # At most once per poll.
            kinds = Counter((one.socket.proto, one.socket.family) for one in feed.holdings())
            self._counted = feed.snapshot, kinds
        for (proto, family), count in self._counted[1].items():
            sockets.add_metric([proto or "unknown", family or "unknown"], count)
        yield sockets
        if feed.snapshot is not None:
            coverage = feed.snapshot.coverage
            processes = GaugeMetricFamily(
                "sockagent_processes",
                "Processes, by whether their descriptors are readable.",
                labels=["readable"],
            )
            processes.add_metric(["true"], coverage.processes - coverage.unreadable)
            processes.add_metric(["false"], coverage.unreadable)
            yield processes
            yield GaugeMetricFamily(
                "sockagent_network_namespaces", "Network namespaces.", value=coverage.netns
            )
        records = CounterMetricFamily(
            "sockagent_records", "Records of changes, by event.", labels=["event"]
        )
        for event, count in feed.records.items():
            records.add_metric([event], count)
        yield records

    def _client_metrics(self) -> Iterator[Metric]:
        rejections = self._clients.rejections
        yield GaugeMetricFamily(
            "sockagent_subscribers", "WebSocket subscribers.", value=self._clients.subscriber_count
        )
        yield CounterMetricFamily(
            "sockagent_lost", "Times that a subscriber lost records.", value=self._feed.lost
        )
        evictions = CounterMetricFamily(
            "sockagent_evictions", "Clients disconnected by the server.", labels=["kind"]
        )
        for kind, count in rejections.evictions.items():
            evictions.add_metric([kind], count)
        yield evictions
        refusals = CounterMetricFamily(
            "sockagent_refusals", "Refused clients, by HTTP status, close code or cause.",
            labels=["reason"],
        )  # fmt: skip
        for reason, count in rejections.refusals.items():
            refusals.add_metric([reason], count)
        yield refusals
