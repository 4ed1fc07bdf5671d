"""Measure the page in a browser, and what it costs the agent.

A feed of synthetic sockets in a process of its own changes at a constant rate; with --real it is an
agent, with the sockets of ``bench.load`` and the changes of ``bench.churn``. Last, the CPU time of
an idle agent with a page that shows its sockets is compared with that of an agent with a plain
subscriber, in turn.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import NamedTuple

from tests.browser import Browser, Tab

from . import churn, load
from .agents import RunningAgent, installed
from .feed import free_port, serving
from .report import log, ratio

_PROBE = Path(__file__).with_name("page_probe.js").read_text(encoding="utf-8")
_WIDTH, _HEIGHT = 1280, 800
# Until the page has shown the snapshot, and its engine has compiled what it runs often.
_SETTLE_SECONDS = 5.0
_SHOWN_SECONDS = 120.0
# Pauses between the keys of somebody who types, and until the rows are filtered.
_KEY_SECONDS = 0.15
_FILTER_SECONDS = 3.0
_CHURN_PROCESSES = 20
_TCP_PAIRS, _UNIX_PAIRS = 20, 0
# Milliseconds and MiB.
LIMITS = {
    "first_ms": 500.0, "longest_task_ms": 50.0, "heap_mib": 64.0, "typing_frame_ms": 100.0,
}  # fmt: skip
MIN_FRAMES = 55.0


class Shown(NamedTuple):
    """What one run of the page measured. Times are from the opening of the WebSocket."""

    rows: int
    first_ms: float
    all_ms: float
    snapshot_task_ms: float  # The longest task while the snapshot arrives.
    frames: float  # A second, while sockets change.
    long_tasks: int
    longest_task_ms: float
    longest_frame_ms: float
    typing_frame_ms: float  # The longest frame while a filter is typed and applied.
    heap_begin_mib: float
    heap_mib: float  # In the end.
    nodes: int


@contextmanager
def synthetic(rows: int, rate: int) -> Iterator[tuple[int, subprocess.Popen[str]]]:
    """Serve synthetic sockets; yield the port and the process, which a line starts to change."""
    port = free_port()
    with subprocess.Popen(
        [sys.executable, "-m", "bench.page_feed", str(port), str(rows), str(rate)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    ) as process:  # fmt: skip
        try:
            if process.stdout is None or process.stdout.readline() != "ready\n":
                raise SystemExit("the feed does not start")
            yield port, process
        finally:
            process.kill()


def show(tab: Tab, port: int, rows: int) -> dict[str, float]:
    """Open the page; return how long it took to show the first and all rows."""
    tab.set_view(_WIDTH, _HEIGHT)
    tab.call("Page.addScriptToEvaluateOnNewDocument", source=f"{_PROBE}; probe.expected = {rows};")
    tab.navigate(f"http://127.0.0.1:{port}/")
    tab.wait_for("probe.allRows", _SHOWN_SECONDS)
    found: dict[str, float] = tab.evaluate(
        "({first: probe.firstRows - probe.opened, all: probe.allRows - probe.opened,"
        " ...probe.measured()})"
    )
    time.sleep(_SETTLE_SECONDS)
    return found


def watch(tab: Tab, seconds: float) -> dict[str, float]:
    """Return what the page measures in the next seconds."""
    tab.evaluate("probe.restart()")
    time.sleep(seconds)
    found: dict[str, float] = tab.evaluate("probe.measured()")
    return found


def type_filter(tab: Tab, text: str) -> dict[str, float]:
    """Type into the search; return what the page measures meanwhile."""
    tab.press("/")
    tab.evaluate("probe.restart()")
    for key in text:
        tab.press(key)
        time.sleep(_KEY_SECONDS)
    time.sleep(_FILTER_SECONDS)
    found: dict[str, float] = tab.evaluate("probe.measured()")
    return found


def mib(count: float) -> float:
    """Return bytes as MiB."""
    return count / 2**20


def measure(
    browser: Browser, port: int, rows: int, seconds: float, start: Callable[[], object]
) -> Shown:
    """Measure the page while sockets change, which ``start`` begins."""
    with browser.tab() as tab:
        shown = show(tab, port, rows)
        heap = tab.heap()
        start()
        live = watch(tab, seconds)
        heap_end = tab.heap()
        nodes = tab.evaluate("document.querySelectorAll('*').length")
        typed = type_filter(tab, "php")
        if tab.errors or tab.violations:
            raise SystemExit(f"the page has errors: {tab.errors} {tab.violations}")
    return Shown(
        rows, shown["first"], shown["all"], shown["longest_task"], live["frames_per_second"],
        int(live["long_tasks"]), live["longest_task"], live["longest_frame"],
        typed["longest_frame"], mib(heap), mib(heap_end), int(nodes),
    )  # fmt: skip


def measure_synthetic(browser: Browser, options: argparse.Namespace) -> Shown:
    """Measure the page with synthetic sockets."""
    with synthetic(options.rows, options.rate) as (port, process):

        def start() -> None:
            assert process.stdin
            print(file=process.stdin, flush=True)

        return measure(browser, port, options.rows, options.seconds, start)


def measure_real(browser: Browser, options: argparse.Namespace) -> Shown:
    """Measure the page with a real agent and real sockets."""
    shape = load.Shape(
        max(1, options.rows // (2 * _TCP_PAIRS + 1)), _TCP_PAIRS, _UNIX_PAIRS, plain=0
    )
    port = free_port()
    with ExitStack() as stack:
        stack.enter_context(load.running(shape))
        stack.enter_context(serving(installed(), port))
        changes = churn.running(_CHURN_PROCESSES, options.rate / 2)  # Each opens and closes.
        return measure(
            browser, port, shape.tcp, options.seconds, lambda: stack.enter_context(changes)
        )


@contextmanager
def plain_subscriber(port: int) -> Iterator[None]:
    """Subscribe to the feed, in a process of its own."""
    url = f"ws://127.0.0.1:{port}/events"
    with subprocess.Popen(
        [sys.executable, "-m", "bench.crowd", url, "1"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            if process.stdout is None or process.stdout.readline() != "ready\n":
                raise SystemExit("the subscriber could not be connected")
            yield
        finally:
            process.kill()


@contextmanager
def idle_page(browser: Browser, port: int) -> Iterator[None]:
    """Show the page."""
    with browser.tab() as tab:
        tab.navigate(f"http://127.0.0.1:{port}/")
        tab.wait_for("document.querySelector('[role=gridcell]')", _SHOWN_SECONDS)
        yield


def idle_cpu(browser: Browser, rounds: int, seconds: float) -> tuple[list[float], list[float]]:
    """Return the CPU seconds per second of an agent with a page, and with a plain subscriber."""
    port = free_port()
    costs: dict[str, list[float]] = {"page": [], "plain": []}
    with serving(installed(), port) as agent:
        for number in range(rounds):
            for name in sorted(costs, reverse=bool(number % 2)):
                client = idle_page(browser, port) if name == "page" else plain_subscriber(port)
                with client:
                    time.sleep(_SETTLE_SECONDS)
                    costs[name].append(spent(agent, seconds))
                    log(f"{name}: {costs[name][-1] * 1000:.1f} ms of CPU a second")
    return costs["page"], costs["plain"]


def spent(agent: RunningAgent, seconds: float) -> float:
    """Return the CPU seconds per second of an agent, over the next seconds."""
    before, begin = agent.cpu(), time.monotonic()
    time.sleep(seconds)
    return (agent.cpu() - before) / (time.monotonic() - begin)


def table(shown: Shown) -> str:
    """Return what was measured, as Markdown."""
    cells = {
        "rows": f"{shown.rows:,}",
        "first row, ms": f"{shown.first_ms:.0f}",
        "all rows, ms": f"{shown.all_ms:.0f}",
        "longest task of the snapshot, ms": f"{shown.snapshot_task_ms:.0f}",
        "frames/s": f"{shown.frames:.1f}",
        "long tasks": f"{shown.long_tasks}",
        "longest task, ms": f"{shown.longest_task_ms:.0f}",
        "longest frame, ms": f"{shown.longest_frame_ms:.0f}",
        "longest frame while typing, ms": f"{shown.typing_frame_ms:.0f}",
        "heap after GC, MiB": f"{shown.heap_begin_mib:.1f} to {shown.heap_mib:.1f}",
        "nodes": f"{shown.nodes:,}",
    }
    lines = (cells.keys(), ["---:"] * len(cells), cells.values())
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def misses(shown: Shown) -> list[str]:
    """Return the limits that the page exceeds."""
    found = [
        f"{name} {getattr(shown, name):.1f}, at most {limit:g}"
        for name, limit in LIMITS.items()
        if getattr(shown, name) > limit
    ]
    if shown.frames < MIN_FRAMES:
        found.append(f"frames {shown.frames:.1f} a second, at least {MIN_FRAMES:g}")
    return found


def main() -> int:
    """Measure and print tables; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench page", description=__doc__)
    add = parser.add_argument
    add("--rows", type=int, default=20_000, metavar="N", help="sockets (20000)")
    add("--rate", type=int, default=1000, metavar="N", help="changes a second (1000)")
    add("--seconds", type=float, default=60.0, metavar="N", help="seconds of changes (60)")
    add("--real", action="store_true", help="a real agent with real sockets")
    add(
        "--realtime", action="store_true",
        help="run the browser before all other processes, on a machine that does other work",
    )  # fmt: skip
    add("--rounds", type=int, default=5, metavar="N", help="rounds of the idle agent (5)")
    add("--idle-seconds", type=float, default=10.0, metavar="N", help="length of each (10)")
    add("--json", type=Path, metavar="FILE", help="write all measurements to FILE")
    options = parser.parse_args()
    costs: tuple[list[float], list[float]] = ([], [])
    wrapper = ("chrt", "--rr", "1") if options.realtime else ()
    with Browser(wrapper=wrapper) as browser:
        shown = (measure_real if options.real else measure_synthetic)(browser, options)
        print(table(shown), flush=True)
        if options.rounds:
            costs = idle_cpu(browser, options.rounds, options.idle_seconds)
            page, plain = costs
            print(
                f"\nCPU of the idle agent with a page {median(page) * 1000:.1f} ms a second, with "
                f"a plain subscriber {median(plain) * 1000:.1f}; ratio (quartiles) "
                f"{ratio(page, plain)}"
            )
    if options.json:
        options.json.write_text(json.dumps({**shown._asdict(), "idle": costs}))
    for miss in misses(shown):
        print(f"missed: {miss}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
