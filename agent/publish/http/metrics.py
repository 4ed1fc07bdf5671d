"""The page /metrics: Prometheus text by the official client library (the extra ``metrics``)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from ...model import Snapshot
from ...stream.feed import Feed
from ...stream.merged import MergedFeed
from ..websocket.registry import Registry
from .pages import Page, Reply


def metrics(feed: Feed, clients: Registry) -> Page:
    """Return the page with all metrics of the feed, of its clients and of this process."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    registry.register(_Collector(feed, clients))
    return Page(lambda: Reply(200, CONTENT_TYPE_LATEST, generate_latest(registry)))


def relay_metrics(merged: MergedFeed, clients: Registry) -> Page:
    """Return the page with all metrics of a relay, of its clients and of this process."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    registry.register(_RelayCollector(merged, clients))
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
        yield from _client_metrics(self._clients, self._feed.lost)

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


class _RelayCollector:
    """Reads the metrics of a relay when the page is requested."""

    def __init__(self, merged: MergedFeed, clients: Registry) -> None:
        self._merged = merged
        self._clients = clients

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics."""
        connected = GaugeMetricFamily(
            "sockagent_relay_connected", "Whether the agent of a host is connected.",
            labels=["host"],
        )  # fmt: skip
        sockets = GaugeMetricFamily(
            "sockagent_relay_sockets",
            "Sockets held by processes of a host, counted once per process.",
            labels=["host"],
        )
        records = CounterMetricFamily(
            "sockagent_relay_records", "Records of changes of a host, by event.",
            labels=["host", "event"],
        )  # fmt: skip
        feeds = self._merged.feeds
        for host, feed in feeds.items():
            connected.add_metric([host], self._merged.is_connected(host))
            sockets.add_metric([host], 0 if feed.snapshot is None else len(feed.snapshot.holdings))
            for event, count in feed.records.items():
                records.add_metric([host, event], count)
        yield from (connected, sockets, records)
        yield from _client_metrics(self._clients, sum(feed.lost for feed in feeds.values()))


def _client_metrics(clients: Registry, lost: int) -> Iterator[Metric]:
    rejections = clients.rejections
    yield GaugeMetricFamily(
        "sockagent_subscribers", "WebSocket subscribers.", value=clients.subscriber_count
    )
    yield CounterMetricFamily("sockagent_lost", "Times that a subscriber lost records.", value=lost)
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
