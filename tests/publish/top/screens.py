"""The screen without a terminal: a source that tests drive, and what the screen shows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from rich.segment import Segment
from textual.pilot import Pilot

from agent.model import Closed, Coverage, Delta, Holding, Opened, Owner, Process, Socket, Updated
from agent.publish.terminal.options import Options
from agent.publish.top.screen import Settings, TopApp
from agent.publish.top.watch import Watch
from agent.stream.decoder import Began, Decoded, Present, SnapshotEnd
from agent.topping import parse_filter

MARK = "\u203a"  # Of the line with the cursor.
START = 1_700_000_000.0
COVERAGE = Coverage(3, 0, 1)
ROOT = Owner(0, "root")


def process(pid: int, comm: str, unit: str | None = None) -> Process:
    return Process(pid, pid * 10, comm, 1, START - 60, 0, f"/usr/bin/{comm}", None, unit)


NGINX, SHOP = process(812, "nginx", "web.service"), process(1201, "gunicorn", "shop.service")


def tcp(inode: int, state: str, local: int, remote: int | None, way: str, **more: Any) -> Socket:
    return Socket(
        inode, "tcp", "inet", None, state, "127.0.0.1", local,
        None if remote is None else "127.0.0.1", remote, None, way, 0, 0, 0, 1, "netlink", **more,
    )  # fmt: skip


def hold(by: Process, socket: Socket) -> Holding:
    return Holding(socket, by, (3,), ROOT)


LISTENER = hold(SHOP, tcp(1, "LISTEN", 8080, None, "listen", backlog=128))
CALLED = hold(SHOP, tcp(2, "ESTABLISHED", 8080, 40_000, "inbound"))
CALLS = hold(NGINX, tcp(3, "ESTABLISHED", 40_000, 8080, "outbound"))


class Script:
    """A source whose records and time tests choose."""

    def __init__(self, *, is_local: bool = True, is_live: bool = True) -> None:
        self.watch = Watch(one_clock=True)
        self.is_local, self.is_live = is_local, is_live
        self.time = START
        self.said: str | None = None
        self.moves: list[float] = []
        self._seq = 1

    def begin(self, *holdings: Holding, host: str = "web1") -> None:
        self._apply(Began(COVERAGE, "e", False, "0", None, 1.0), host)
        for one in holdings:
            self._apply(Present(one), host)
        self._apply(SnapshotEnd(len(holdings)), host)

    def change(self, *deltas: Delta, host: str = "web1") -> None:
        for delta in deltas:
            self._seq += 1
            self._apply(delta, host)

    def open(self, *holdings: Holding) -> None:
        self.change(*map(Opened, holdings))

    def close(self, *holdings: Holding) -> None:
        self.change(*(Closed(one, "closed", 0.5) for one in holdings))

    def leak(self, holding: Holding) -> Holding:
        leaked = holding._replace(socket=holding.socket._replace(state="CLOSE_WAIT"))
        self.change(Updated(leaked, holding))
        return leaked

    def _apply(self, value: Any, host: str) -> None:
        self.watch.apply(Decoded(host, self._seq, self.time, value))

    def now(self) -> float:
        return self.time

    def notice(self) -> str | None:
        return self.said

    async def run(self) -> None:
        await asyncio.Event().wait()

    def move(self, seconds: float) -> None:
        self.moves.append(seconds)
        self.time += seconds


def web() -> Script:
    """A source with a small web server."""
    source = Script()
    source.begin(LISTENER, CALLED, CALLS)
    return source


class Shown:
    """The screen, and what a test does with it."""

    def __init__(self, app: TopApp, pilot: Pilot[None]) -> None:
        self.app = app
        self.pilot = pilot

    def lines(self) -> list[str]:
        """Return the lines of the screen, as the terminal gets them."""
        strips = self.app.screen._compositor.render_strips()
        return ["".join(part.text for part in strip).rstrip() for strip in strips]

    def segments(self) -> list[Segment]:
        return [part for strip in self.app.screen._compositor.render_strips() for part in strip]

    def text(self) -> str:
        return "\n".join(self.lines())

    async def press(self, *keys: str) -> str:
        """Press keys, and return the screen once it shows the answer."""
        await self.pilot.press(*keys)
        return await self.settle()

    async def settle(self) -> str:
        """Let the screen show what has changed."""
        await self.pilot.pause()
        self.app._tick()
        await self.pilot.pause()
        return self.text()


@asynccontextmanager
async def shown(
    source: Any, size: tuple[int, int] = (80, 24), chosen: str = "", **settings: Any
) -> AsyncIterator[Shown]:
    """Show a source on a screen of a size."""
    ascii = settings.pop("ascii", False)
    options = Options(utc=True, ascii=ascii)
    usual: dict[str, Any] = {
        "no_signals": None,
        "names": False,
        "services": {},
        "parse": parse_filter,
    }
    app = TopApp(source, chosen, Settings(options, **{**usual, **settings}))
    async with app.run_test(size=size) as pilot:
        screen = Shown(app, pilot)
        await screen.settle()
        yield screen
