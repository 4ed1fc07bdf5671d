"""Whether UDP events are read."""

from __future__ import annotations

import os

import pytest

from agent.snapshot import udp_switch
from agent.snapshot.udp_switch import FLOODED, NOT_IN_INSTANCE, RETRY_SECONDS, UdpSwitch

REASON = "no UDP events: for a reason"


class Instance:
    """The calls that switch the events of an instance, which are not made."""

    def __init__(self) -> None:
        self.is_on = False
        self.reason: str | None = None
        self.error: OSError | None = None

    def has(self, _path: str) -> bool:
        if self.error is not None:
            raise self.error
        return self.is_on

    def enable(self, _path: str) -> str | None:
        self.is_on = self.reason is None
        return self.reason

    def disable(self, _path: str) -> None:
        if self.error is not None:
            raise self.error
        self.is_on = False


@pytest.fixture
def instance(monkeypatch: pytest.MonkeyPatch) -> Instance:
    made = Instance()
    monkeypatch.setattr(udp_switch, "has_udp", made.has)
    monkeypatch.setattr(udp_switch, "enable_udp", made.enable)
    monkeypatch.setattr(udp_switch, "disable_udp", made.disable)
    return made


def test_events_of_an_own_instance_are_switched_on_and_off(instance: Instance) -> None:
    switch = UdpSwitch("/t", is_own=True)
    assert switch.set_up() is None
    assert instance.is_on
    switch.switch_off()
    assert not instance.is_on


def test_events_of_the_service_are_left_as_they_are(instance: Instance) -> None:
    switch = UdpSwitch("/t", is_own=False)
    assert switch.set_up() == NOT_IN_INSTANCE
    assert not instance.is_on
    instance.is_on = True
    assert switch.set_up() is None
    switch.switch_off()
    assert instance.is_on


def test_why_events_are_off(instance: Instance) -> None:
    switch = UdpSwitch("/t", is_own=True)
    instance.reason = REASON
    switch.set_off(switch.set_up())
    assert (switch.is_on, switch.off) == (False, REASON)
    switch.set_off(None)
    assert (switch.is_on, switch.off) == (True, None)


def test_an_instance_that_is_gone_is_a_reason(instance: Instance) -> None:
    switch = UdpSwitch("/t", is_own=True)
    instance.error = FileNotFoundError(2, os.strerror(2))
    assert switch.set_up() == "no UDP events: /t: No such file or directory"
    switch.switch_off()


def test_after_too_many_events_they_are_off_for_some_time() -> None:
    switch = UdpSwitch("/t", is_own=True)
    switch.note_flood(10.0)
    assert switch.is_flooded(9.0 + RETRY_SECONDS)
    assert (switch.is_on, switch.off) == (False, FLOODED)
    assert not switch.is_flooded(10.0 + RETRY_SECONDS)
    assert switch.retry()
    assert not switch.retry()
    assert (switch.is_on, switch.off) == (True, None)
