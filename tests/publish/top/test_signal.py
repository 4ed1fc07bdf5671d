"""Signals to a checked start time."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from agent.model import Process
from agent.publish.top.signal import SIGNALS, NotSent, Target, send, start_ticks, target_of

SLEEP = (sys.executable, "-S", "-c", "import time; time.sleep(60)")


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(SLEEP) as process:
        yield process
        process.kill()


def target(process: subprocess.Popen[bytes], ticks: int | None = None) -> Target:
    ticks = start_ticks(process.pid) if ticks is None else ticks
    return Target(process.pid, ticks, "sleep", 0.0, None)


@pytest.mark.parametrize("word", SIGNALS)
def test_the_signal_arrives(word: str, child: subprocess.Popen[bytes]) -> None:
    send(target(child), SIGNALS[word])
    assert child.wait(10) == -SIGNALS[word]


def test_only_two_signals_can_be_typed() -> None:
    assert SIGNALS == {"TERM": signal.SIGTERM, "KILL": signal.SIGKILL}


def test_a_process_that_has_the_pid_by_now_gets_nothing(child: subprocess.Popen[bytes]) -> None:
    """The process that was chosen started at another time."""
    earlier = target(child, start_ticks(child.pid) - 1)
    with pytest.raises(NotSent, match="another process"):
        send(earlier, signal.SIGKILL)
    assert child.poll() is None
    send(target(child), signal.SIGKILL)  # Of the right start time it is killed.
    assert child.wait(10) == -signal.SIGKILL


def test_the_pidfd_is_opened_before_the_start_time_is_read() -> None:
    """A pid that is used again between the two steps is seen: the chosen process ends, and a new
    one gets its pid, after the pidfd is open."""
    with subprocess.Popen(SLEEP) as process:
        chosen = target(process)

        def replaced(pid: int) -> int:
            process.kill()
            process.wait()
            return chosen.start_ticks  # As if the new one had started in the same tick.

        with pytest.raises(NotSent, match="has ended"):
            send(chosen, signal.SIGTERM, replaced)


def test_a_process_that_has_ended_is_named() -> None:
    with subprocess.Popen(SLEEP) as process:
        gone = target(process)
        process.kill()
    with pytest.raises(NotSent, match=r"sleep\[\d+\] has ended"):
        send(gone, signal.SIGTERM)


def test_no_descriptor_is_left_open(child: subprocess.Popen[bytes]) -> None:
    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(NotSent):
        send(target(child, 1), signal.SIGTERM)
    assert set(os.listdir("/proc/self/fd")) == before


def test_a_line_that_is_no_stat_sends_nothing(child: subprocess.Popen[bytes]) -> None:
    def malformed(_pid: int) -> int:
        raise ValueError

    with pytest.raises(NotSent, match="cannot be read"):
        send(target(child), signal.SIGTERM, malformed)
    assert child.poll() is None


def test_the_start_time_is_that_of_the_process_whatever_its_name() -> None:
    """A name may look like the fields after it."""
    code = (
        "import sys; open('/proc/self/comm', 'w').write(') S 1 1 1 1'); print(flush=True); "
        "sys.stdin.read()"
    )
    with subprocess.Popen(
        (sys.executable, "-S", "-c", code), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout
        assert process.stdin
        assert select.select([process.stdout], [], [], 10)[0]
        assert start_ticks(process.pid) >= start_ticks(os.getpid())
        process.stdin.close()


def test_the_target_is_the_identity_of_a_process() -> None:
    process = Process(7, 70, "nginx", 1, 5.0, unit="web.service")
    assert target_of(process) == Target(7, 70, "nginx", 5.0, "web.service")
