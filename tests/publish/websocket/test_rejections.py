import asyncio

import pytest
from websockets.frames import CloseCode

from agent.publish.websocket.access import Access
from agent.publish.websocket.rejections import FLOODING, TOO_SLOW, Eviction, RejectionLog

from .serving import TOKEN, serving, status_of


async def test_an_invalid_token_is_logged_without_its_value(
    capfd: pytest.CaptureFixture[str],
) -> None:
    async with serving(access=Access(tokens=(TOKEN,))) as running:
        wrong = {"Authorization": "Bearer wrong-token-0123456"}
        assert await status_of(running.client(additional_headers=wrong)) == (
            401, "invalid token\n"
        )  # fmt: skip
    await asyncio.sleep(0.1)
    lines = capfd.readouterr().err
    assert ": invalid token" in lines
    assert "wrong-token" not in lines
    assert TOKEN not in lines


def test_refusals_and_evictions_are_counted_by_label(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    monkeypatch.setattr("agent.log.log", lines.append)
    rejections = RejectionLog()
    rejections.refused("192.0.2.1:9", "404")
    rejections.refused("192.0.2.1:9", "401", "token required")
    rejections.evicted("192.0.2.1:9", TOO_SLOW)
    assert rejections.refusals == {"404": 1, "401": 1}
    assert rejections.evictions == {"slow": 1}
    assert lines == [
        "refused 192.0.2.1:9: token required",
        f"disconnected 192.0.2.1:9: {TOO_SLOW.message}",
    ]


@pytest.mark.parametrize("eviction", [TOO_SLOW, FLOODING])
def test_reasons_fit_a_close_frame(eviction: Eviction) -> None:
    assert isinstance(eviction.code, CloseCode)
    assert len(eviction.message.encode()) <= 123
