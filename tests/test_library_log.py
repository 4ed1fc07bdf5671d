"""What libraries log comes to stderr by our own writer, bounded."""

import logging
import sys
import warnings
from collections.abc import Iterator

import pytest

from agent import library_log as logs
from agent import log as say_module
from agent.log import LIMIT_LINES


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    lines: list[str] = []
    monkeypatch.setattr(say_module, "log", lines.append)
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    monkeypatch.setattr(logging, "raiseExceptions", True)
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    logs.route()
    yield lines
    logging.captureWarnings(capture=False)


def test_what_asyncio_logs_is_limited(said: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    for _ in range(1000):
        logging.getLogger("asyncio").warning("socket.send() raised exception.")
    assert said == ["asyncio: socket.send() raised exception."] * LIMIT_LINES
    assert capfd.readouterr().err == ""


def test_an_exception_is_named_in_one_line(said: list[str]) -> None:
    try:
        raise ValueError("x")
    except ValueError:
        logging.getLogger("some.library").exception("it %s", "failed")
    logging.getLogger("some.library").error("%d", "no number")
    assert said == ["some.library: it failed: ValueError('x')", "some.library: %d"]


def test_what_nobody_can_catch_is_named(said: list[str]) -> None:
    class Faulty:
        def __del__(self) -> None:
            raise ValueError("x")

    Faulty()
    assert len(said) == 1
    assert "ValueError('x')" in said[0]


def test_warnings_are_logged(said: list[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    assert len(said) == 1
    assert "DeprecationWarning: old" in said[0]


def test_a_long_line_is_cut(said: list[str]) -> None:
    logging.getLogger("x").error("y" * 10_000)
    assert len(said[0]) <= 500
