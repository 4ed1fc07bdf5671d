"""What is logged of attempts to connect, and how long the time between them is."""

from __future__ import annotations

import asyncio
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.remote import attempts as module
from agent.remote.attempts import Attempts

URL = "ws://h"


class Recorded:
    """Attempts, with what they log and how long they wait."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.lines: list[str] = []
        self.pauses: list[float] = []
        patch.setattr(module, "log", self.lines.append)
        patch.setattr(asyncio, "sleep", self._sleep)
        patch.setattr(random, "uniform", lambda _low, high: high)
        self.attempts = Attempts(URL, 0.5, 3.0)

    async def _sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)

    def wait(self, reason: str) -> None:
        with pytest.raises(StopIteration):
            self.attempts.wait(reason).send(None)


def test_the_pause_is_doubled_until_an_attempt_succeeds(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = Recorded(monkeypatch)
    for _ in range(5):
        recorded.wait("gone")
    recorded.attempts.succeed()
    recorded.wait("lost")
    assert recorded.pauses == [0.5, 1.0, 2.0, 3.0, 3.0, 0.5]
    assert recorded.lines == [
        f"{URL}: gone; retrying", f"{URL}: connected again", f"{URL}: lost; retrying"
    ]  # fmt: skip


@given(st.lists(st.sampled_from(["succeed", "wait", "fail"])))
def test_trouble_and_its_end_are_logged_in_turn(steps: list[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        recorded = Recorded(patch)
        expected, failing = [], False
        for step in steps:
            if step == "succeed":
                recorded.attempts.succeed()
                expected += [f"{URL}: connected again"] * failing
                failing = False
            elif step == "wait":
                recorded.wait("gone")
                expected += [f"{URL}: gone; retrying"] * (not failing)
                failing = True
            else:
                recorded.attempts.fail("refused")
                expected.append("refused")
                failing = True
        assert recorded.lines == expected
