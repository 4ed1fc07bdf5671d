"""Growth of the cost of a poll and of the memory with sockets and with processes."""

from __future__ import annotations

import time
from typing import NamedTuple

from agent.snapshot.plan import SWEEP_SECONDS

from .agents import following, installed
from .load import Shape, running

INTERVAL = 1.0  # Seconds.
POLLS = 30  # Every fifth one reads all tables.
# By then the sweep has read each process; the next sweep reads only those that have run since.
WARM_UP = SWEEP_SECONDS + 8 * INTERVAL
# Sockets in 100 processes, and processes with few sockets each.
SHAPES = (
    Shape(processes=100, tcp_pairs=2, unix_pairs=2, plain=4),
    Shape(processes=100, tcp_pairs=30, unix_pairs=20, plain=4),
    Shape(processes=100, tcp_pairs=300, unix_pairs=200, plain=4),
    Shape(processes=1000, tcp_pairs=2, unix_pairs=2, plain=4),
    Shape(processes=1000, tcp_pairs=2, unix_pairs=2, plain=80),
    Shape(processes=4000, tcp_pairs=2, unix_pairs=2, plain=4),
)


class Point(NamedTuple):
    """Cost under one load: CPU milliseconds of a poll while nothing changes, and resident MiB."""

    processes: int
    sockets: int
    descriptors: int
    poll_ms: float
    rss_mib: float


def growth() -> list[Point]:
    """Measure under each load."""
    points = []
    for shape in SHAPES:
        with running(shape), following(installed(), "--interval", str(INTERVAL)) as agent:
            time.sleep(WARM_UP)
            cost = agent.cpu_per_poll(POLLS, INTERVAL) * 1000
            sockets = shape.tcp + shape.unix
            points.append(
                Point(shape.processes, sockets, shape.descriptors, cost, agent.rss() / 1024)
            )
    return points


def table_of_growth(points: list[Point]) -> str:
    """Return the loads as Markdown."""
    lines = [
        "| processes | sockets | descriptors | CPU of a poll, ms | RSS, MiB |",
        "|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {p.processes} | {p.sockets} | {p.descriptors} | {p.poll_ms:.1f} | {p.rss_mib:.0f} |"
        for p in points
    ]
    return "\n".join(lines)


def picture(points: list[Point]) -> str:
    """Return an SVG: CPU of a poll over sockets (100 processes) and over processes."""
    by_sockets = [p for p in points if p.processes == 100]
    by_processes = sorted(
        p for p in points if p.sockets == p.processes * 9 and p.descriptors == p.processes * 16
    )
    panels = (
        _panel("sockets, in 100 processes", [(p.sockets, p) for p in by_sockets], 0),
        _panel("processes, 9 sockets each", [(p.processes, p) for p in by_processes], 380),
    )
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 760 260" font-family="sans-serif" '
        'font-size="12"><rect width="760" height="260" fill="white"/>'
        f"{''.join(panels)}</svg>\n"
    )


def _panel(title: str, points: list[tuple[int, Point]], left: int) -> str:
    max_x = max(x for x, _point in points)
    max_ms = max(point.poll_ms for _x, point in points)
    max_mib = max(point.rss_mib for _x, point in points)

    def line(values: list[tuple[float, float]], colour: str) -> str:
        at = [(left + 50 + 280 * x, 210 - 160 * y) for x, y in values]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in at)
        dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in at)
        return f'<polyline points="{path}" fill="none" stroke="{colour}"/>{dots}'

    cpu = [(x / max_x, point.poll_ms / max_ms) for x, point in points]
    rss = [(x / max_x, point.rss_mib / max_mib) for x, point in points]
    return (
        f'<text x="{left + 50}" y="22" font-weight="bold">over {title}</text>'
        f'<path d="M{left + 50} 50V210H{left + 330}" fill="none" stroke="black"/>'
        f"{line(cpu, '#c22')}{line(rss, '#26c')}"
        f'<text x="{left + 330}" y="228" text-anchor="end">{max_x}</text>'
        f'<text x="{left + 50}" y="228">0</text>'
        f'<text x="{left + 50}" y="42" fill="#c22">CPU of a poll, to {max_ms:.0f} ms</text>'
        f'<text x="{left + 200}" y="42" fill="#26c">RSS, to {max_mib:.0f} MiB</text>'
    )
