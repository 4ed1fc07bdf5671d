"""What the agent counts, as Prometheus text by the official client library (the extra ``metrics``).

It knows the feed and the server, and nothing of connections and procfs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from ...model import Snapshot
from ...stream.feed import Feed
from ..websocket.server import Answer, Server


def metrics(feed: Feed, server: Server) -> Answer:
    """Answers with everything that is counted, as Prometheus text."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    registry.register(_Collector(feed, server))
    return lambda: (200, CONTENT_TYPE_LATEST, generate_latest(registry))


class _Collector:
    """What is counted, when it is asked for."""

    def __init__(self, feed: Feed, server: Server) -> None:
        self._feed = feed
        self._server = server
        self._counted: tuple[Snapshot | None, Counter[tuple[str | None, str | None]]]
        self._counted = None, Counter()

    def collect(self) -> Iterator[Metric]:
        """The metrics."""
        yield from self._polls()
        yield from self._sight()
        yield from self._clients()

    def _polls(self) -> Iterator[Metric]:
        figures = self._feed.stats.figures()
        yield CounterMetricFamily("sockagent_polls", "Polls.", value=figures.polls)
        yield CounterMetricFamily(
            "sockagent_late_polls", "Polls that ended too late.", value=figures.late_polls
        )
        took = GaugeMetricFamily(
            "sockagent_poll_duration_seconds",
            "How long one of the newest 600 polls takes.",
            labels=["quantile"],
        )
        took.add_metric(["0.5"], figures.poll_ms / 1000)
        took.add_metric(["0.99"], figures.poll_p99_ms / 1000)
        yield took
        yield GaugeMetricFamily(
            "sockagent_poll_cpu_seconds",
            "Processor time of one of the newest 600 polls, on average.",
            value=figures.poll_cpu_ms / 1000,
        )

    def _sight(self) -> Iterator[Metric]:
        feed = self._feed
        sockets = GaugeMetricFamily(
            "sockagent_sockets",
            "Sockets that processes hold, once for each process.",
            labels=["proto", "family"],
        )
        if self._counted[0] is not feed.snapshot:  # Once a poll, however often it is asked for.
            kinds = Counter((one.socket.proto, one.socket.family) for one in feed.holdings())
            self._counted = feed.snapshot, kinds
        for (proto, family), count in self._counted[1].items():
            sockets.add_metric([proto or "unknown", family or "unknown"], count)
        yield sockets
        if feed.snapshot is not None:
            coverage = feed.snapshot.coverage
            processes = GaugeMetricFamily(
                "sockagent_processes",
                "Processes, by whether their descriptors may be read.",
                labels=["readable"],
            )
            processes.add_metric(["true"], coverage.processes - coverage.unreadable)
            processes.add_metric(["false"], coverage.unreadable)
            yield processes
            yield GaugeMetricFamily(
                "sockagent_network_namespaces", "Network namespaces.", value=coverage.netns
            )
        records = CounterMetricFamily("sockagent_records", "Records of changes.", labels=["event"])
        for event, count in feed.records.items():
            records.add_metric([event], count)
        yield records

    def _clients(self) -> Iterator[Metric]:
        server = self._server
        yield GaugeMetricFamily(
            "sockagent_subscribers", "WebSocket subscribers.", value=server.subscribers
        )
        yield CounterMetricFamily(
            "sockagent_lost", "Times a subscriber was told that it lost records.",
            value=self._feed.lost,
        )  # fmt: skip
        evictions = CounterMetricFamily(
            "sockagent_evictions", "Clients that were cut off.", labels=["kind"]
        )
        for kind, count in server.tally.evictions.items():
            evictions.add_metric([kind], count)
        yield evictions
        refusals = CounterMetricFamily(
            "sockagent_refusals", "Clients not let in, by HTTP status, close code or word.",
            labels=["reason"],
        )  # fmt: skip
        for reason, count in server.tally.refusals.items():
            refusals.add_metric([reason], count)
        yield refusals
