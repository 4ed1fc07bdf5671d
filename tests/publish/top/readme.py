"""The live screen of a small web server, as the README shows it."""

from __future__ import annotations

from agent.model import HostHolding, Opened

from .screens import Script, shown

WIDTH = 80
_SECONDS = 60  # Whose opens and closes are shown.


async def readme_screen(holdings: list[HostHolding]) -> list[str]:
    """Return the lines of the screen, a minute after it began: the first connection from outside
    opens and closes again and again, more often in some seconds."""
    source = Script()
    source.begin(*(one.holding for one in holdings))
    source.watch.header(source.time)
    client = next(
        one.holding for one in holdings
        if one.holding.socket.direction == "inbound" and one.holding.socket.local_port == 443
    )  # fmt: skip
    inode = 90_000
    for second in range(_SECONDS):
        for _ in range(4 + second % 20 * second // 60):
            inode += 1
            one = client._replace(socket=client.socket._replace(inode=inode))
            source.change(Opened(one))
            source.close(one)
        source.time += 1
    rows = len({one.holding.process for one in holdings})
    async with shown(source, (WIDTH, rows + 5)) as screen:
        return screen.lines()
