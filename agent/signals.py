"""All signal handlers: SIGINT and SIGTERM end the agent, SIGHUP makes it read files again."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # Loaded before anything else: importing asyncio takes longer than the rest.
    from asyncio import AbstractEventLoop

_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
# Bytes read from the wakeup descriptor at a time; each signal writes one.
_WAKEUP_BYTES = 4096


def exit_until_ready() -> None:
    """Let SIGINT and SIGTERM end the process with status 0 until ``handle_stop`` is called.

    SIGINT as an exception inside an import could leave the import lock held, which other threads
    then wait for in vain. Under systemd SIGHUP means to read the configuration again, which a
    starting agent is about to do: it is ignored.
    """
    for number in _STOP_SIGNALS:
        signal.signal(number, lambda _number, _frame: os._exit(0))
    if "NOTIFY_SOCKET" in os.environ:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)


def handle_stop(loop: AbstractEventLoop, stop: Callable[[], None], *, hangup: bool = False) -> None:
    """Call ``stop`` in the event loop when SIGINT or SIGTERM arrives; with ``hangup`` also on
    SIGHUP, which the terminal sends when it is closed.

    The handlers stay until the process ends; those of ``loop.add_signal_handler`` are removed
    when the loop is closed, which is earlier.
    """

    def handle(_number: int, _frame: object) -> None:
        with suppress(RuntimeError):  # The loop is closed: the agent is stopping already.
            loop.call_soon_threadsafe(stop)

    for number in (*_STOP_SIGNALS, *((signal.SIGHUP,) if hangup else ())):
        signal.signal(number, handle)
    # Let every signal wake the event loop. Python runs a handler in the main thread only once that
    # thread runs: a signal that another thread gets, or that arrives just before the loop sleeps,
    # would wait until something else wakes the loop.
    reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    loop.add_reader(reading, os.read, reading, _WAKEUP_BYTES)


def handle_reload(loop: AbstractEventLoop, reload: Callable[[], None]) -> None:
    """Call ``reload`` in the event loop when SIGHUP arrives."""
    signal.signal(signal.SIGHUP, lambda _number, _frame: loop.call_soon_threadsafe(reload))
