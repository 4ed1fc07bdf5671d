"""Messages in the last line."""

from __future__ import annotations

from agent.publish.top.messages import MESSAGE_SECONDS, Messages


def test_messages_are_shown_one_after_the_other() -> None:
    messages = Messages()
    assert messages.current(0) is None
    messages.add("first")
    messages.add("second")
    assert messages.current(1) == "first"
    assert messages.current(1 + MESSAGE_SECONDS - 0.1) == "first"
    assert messages.current(1 + MESSAGE_SECONDS) == "second"
    assert messages.current(1 + 2 * MESSAGE_SECONDS) is None


def test_an_answer_is_shown_at_once_and_ends() -> None:
    messages = Messages()
    messages.add("first")
    messages.show("answer", 0)
    assert messages.current(1) == "answer"
    messages.end()
    assert messages.current(1) == "first"


def test_the_oldest_of_too_many_are_dropped() -> None:
    messages = Messages()
    for number in range(100):
        messages.add(str(number))
    assert messages.current(0) == "80"
