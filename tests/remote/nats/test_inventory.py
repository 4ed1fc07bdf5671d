"""Which hosts are silent."""

from __future__ import annotations

from agent.remote.nats.inventory import SILENT_SECONDS, Inventory, named


def test_a_host_is_silent_once_until_it_sends_again() -> None:
    inventory = Inventory()
    assert not inventory.note_message("a", 0.0)
    assert not inventory.note_message("b", 10.0)
    assert inventory.take_silent(SILENT_SECONDS) == []
    assert inventory.take_silent(SILENT_SECONDS + 1) == ["a"]
    assert inventory.take_silent(SILENT_SECONDS + 2) == []
    assert inventory.note_message("a", 60.0)
    assert not inventory.note_message("a", 61.0)


def test_an_earlier_message_that_is_read_later_changes_nothing() -> None:
    inventory = Inventory()
    inventory.note_message("a", 100.0)
    inventory.note_message("a", 0.0)
    assert inventory.take_silent(100.0 + SILENT_SECONDS) == []
    assert inventory.take_silent(101.0 + SILENT_SECONDS) == ["a"]
    assert not inventory.note_message("a", 100.1)
    assert inventory.take_silent(102.0 + SILENT_SECONDS) == []
    assert inventory.note_message("a", 102.0)


def test_hosts_are_not_silent_where_they_could_not_be_heard() -> None:
    inventory = Inventory()
    inventory.note_message("a", 0.0)
    inventory.restart(100.0)
    assert inventory.take_silent(100.0 + SILENT_SECONDS) == []
    assert inventory.take_silent(101.0 + SILENT_SECONDS) == ["a"]


def test_few_hosts_are_named() -> None:
    assert named(["a", "b"]) == "a, b"
    assert named([str(one) for one in range(8)]) == "0, 1, 2, 3, 4 and 3 more hosts"
