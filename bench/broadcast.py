"""Reference for the feed: a server that calls ``websockets.broadcast`` once a second.

``python -m bench.broadcast PORT`` is the simplest server: a set of connections and a loop. It reads
no tables, keeps no history and does not limit the queues of slow clients.
"""

from __future__ import annotations

import asyncio
import sys
import time

from websockets.asyncio.server import ServerConnection, broadcast, serve

from agent.stream.times import timestamp

# Of the length of a socket record.
_RECORD = (
    '{{"event":"open","seq":1,"time":"{time}","host":"h","proto":"udp","filler":"'
    + "x" * 500
    + '"}}\n'
)


async def main() -> None:
    """Serve until terminated."""
    connections: set[ServerConnection] = set()

    async def handler(connection: ServerConnection) -> None:
        connections.add(connection)
        try:
            await connection.wait_closed()
        finally:
            connections.discard(connection)

    async with serve(
        handler, "127.0.0.1", int(sys.argv[1]), compression=None, ping_interval=None, backlog=1024
    ):
        while True:
            await asyncio.sleep(1.0)
            broadcast(connections, _RECORD.format(time=timestamp(time.time())))


if __name__ == "__main__":
    asyncio.run(main())
