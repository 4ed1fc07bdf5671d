import asyncio

import pytest

from agent.publish.websocket import server

from ...feeding import ONE, seqs
from .serving import message, read_until, serving


async def test_no_publication_is_lost_while_clients_are_served(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server, "_SWEEP_SECONDS", 3600.0)
    monkeypatch.setattr(server, "_TURN_SECONDS", 0.0)
    monkeypatch.setattr(server, "_CHECKED", 1)  # One client per turn.
    async with serving() as running, running.client() as one, running.client() as two:
        running.poll()
        both = [one, two]
        for connection in both:
            await read_until(connection, "snapshot_end")
        for turn in range(0, 600, 2):
            running.poll(ONE)
            for _ in range(turn % 5):
                await asyncio.sleep(0)
            running.poll()
            for connection in both:
                got: list[int] = []
                while len(got) < 2:
                    got += seqs(await message(connection))
                assert got == [turn + 1, turn + 2]
