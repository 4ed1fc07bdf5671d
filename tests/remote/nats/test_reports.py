"""What the client library reports of a connection."""

from __future__ import annotations

import asyncio

import pytest

from agent.broker_login import Entry
from agent.remote.nats.reports import Reports

errors = pytest.importorskip("nats.errors", reason="nats-py is not installed")
API = "$JS.API.STREAM.INFO.SOCKAGENT"


def denial_of(subject: str, what: str = "publish") -> Exception:
    """Return what the library makes of a broker's line; it has lower case."""
    text = f'nats: permissions violation for {what} to "{subject.lower()}"'
    error: Exception = errors.Error(text)
    return error


async def test_only_what_concerns_a_request_denies_it() -> None:
    reports = Reports(Entry((), "me"))
    assert reports.denial(API) is None
    await reports.note(denial_of("$JS.API.CONSUMER.DELETE.SOCKAGENT.x"))
    await reports.note(denial_of(f"{API}2"))
    await reports.note(errors.SlowConsumerError("s", "r", 1, None))
    assert reports.denial(API) is None
    await reports.note(denial_of(API))
    denial = reports.denial(API)
    assert denial is not None
    assert denial.is_final
    assert str(denial).startswith(
        "the broker does not permit it: permissions violation for publish"
    )


async def test_without_a_subscription_no_answer_arrives() -> None:
    reports = Reports(Entry((), "me"))
    await reports.note(denial_of("_INBOX.x.*", "subscription"))
    assert reports.denial(API) is not None


async def test_a_denial_is_waited_for() -> None:
    reports = Reports(Entry((), "me"))
    waiting = asyncio.create_task(reports.denied(API))
    await reports.note(denial_of("another"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not waiting.done()
    await reports.note(denial_of(API))
    assert (await waiting).is_final


async def test_errors_that_pass_are_not_final() -> None:
    reports = Reports(Entry(()))
    assert not reports.explained(ConnectionRefusedError(111, "")).is_final
    assert reports.explained(errors.Error("nats: 'Authorization Violation'")).is_final
