import os
import resource
import time
from collections.abc import Iterator

import pytest

from agent.kernel.procfs.schedstat import RunMonitor, is_conclusive

from ...child import Child, child_process
from ...fakeproc import FakeProc

MANY = 100  # More descriptors than any process here has threads.
KEPT = 64

needs_times = pytest.mark.skipif(
    not os.path.exists("/proc/self/schedstat"), reason="this kernel has no schedstat"
)


@pytest.fixture(params=[KEPT, 0, 1], ids=["kept open", "opened each time", "one kept"])
def monitor(request: pytest.FixtureRequest) -> Iterator[RunMonitor]:
    monitor = RunMonitor("/proc", request.param)
    yield monitor
    monitor.close()


def asleep(monitor: RunMonitor, there: Child, descriptors: int = MANY) -> None:
    """Wait until the process sleeps again."""
    still = 0
    while still < 3:
        time.sleep(0.02)
        still = still + 1 if monitor.have_run([(there.pid, descriptors)])[there.pid] is False else 0


def has_run(monitor: RunMonitor, pid: int, descriptors: int = MANY) -> bool | None:
    return monitor.have_run([(pid, descriptors)])[pid]


@needs_times
def test_a_process_that_sleeps_has_not_run_and_one_that_works_has(
    monitor: RunMonitor,
) -> None:
    with child_process() as there:
        asleep(monitor, there)
        assert has_run(monitor, there.pid) is False
        there("os.dup2(1, 0 + 20)")
        assert has_run(monitor, there.pid) is True
        asleep(monitor, there)


@needs_times
def test_any_thread_that_ran_counts(monitor: RunMonitor) -> None:
    with child_process() as there:
        there("go, gone = threading.Event(), threading.Event()")
        there("def run(): go.wait(); gone.set(); threading.Event().wait()")
        there("threading.Thread(target=run, daemon=True).start()")
        asleep(monitor, there)
        there("go.set(); gone.wait()")
        assert has_run(monitor, there.pid) is True


@needs_times
def test_a_thread_that_was_started_later_counts(monitor: RunMonitor) -> None:
    with child_process() as there:
        asleep(monitor, there)
        there("reading, writing = os.pipe()")
        there("threading.Thread(target=lambda: os.read(reading, 1) and time.sleep(99)).start()")
        asleep(monitor, there)
        with open(f"/proc/{there.pid}/fd/{there('print(writing)')}", "wb", buffering=0) as pipe:
            asleep(monitor, there)
            pipe.write(b"x")  # Wakes the thread alone, in its own time.
            while not has_run(monitor, there.pid):
                time.sleep(0.01)


@needs_times
def test_a_thread_that_ended_counts_and_the_others_are_still_read(monitor: RunMonitor) -> None:
    with child_process() as there:
        there("import time; go = threading.Event()")
        there("thread = threading.Thread(target=go.wait); thread.start()")
        asleep(monitor, there)
        there("go.set(); thread.join()")
        assert has_run(monitor, there.pid) is True
        asleep(monitor, there)


@needs_times
def test_a_process_with_more_threads_than_descriptors_counts_as_having_run() -> None:
    monitor = RunMonitor("/proc", KEPT)
    with child_process() as there:
        there("go = threading.Event()")
        there("[threading.Thread(target=go.wait, daemon=True).start() for _ in range(20)]")
        assert all(has_run(monitor, there.pid, 3) is True for _ in range(3))
        asleep(monitor, there, 21)
    monitor.close()


@needs_times
def test_a_process_that_ended_is_left_out(monitor: RunMonitor) -> None:
    with child_process() as there:
        asleep(monitor, there)
    assert monitor.have_run([(there.pid, MANY)]) == {}


@needs_times
def test_files_of_processes_that_are_no_longer_requested_are_closed() -> None:
    monitor = RunMonitor("/proc", KEPT)
    before = len(os.listdir("/proc/self/fd"))
    with child_process() as there:
        open_before = len(os.listdir("/proc/self/fd"))
        asleep(monitor, there)
        assert len(os.listdir("/proc/self/fd")) == open_before + 1
        monitor.have_run([])
        assert len(os.listdir("/proc/self/fd")) == open_before
    assert len(os.listdir("/proc/self/fd")) == before


def test_without_times_in_schedstat_the_result_is_none(fake: FakeProc) -> None:
    for pid, line in ((7, b"0 0 0\n"), (8, b"")):
        task = fake.process(pid) / "task" / str(pid)
        (task / "schedstat").write_bytes(line)
    fake.process(9)
    monitor = RunMonitor(str(fake.root), KEPT)
    for _ in range(2):
        assert monitor.have_run([(pid, MANY) for pid in (7, 8, 9)]) == {7: None, 8: None, 9: None}
    assert monitor.have_run([(10, MANY)]) == {}


@pytest.mark.parametrize(
    ("release", "expected"),
    [
        ("6.18.44-fc", True),
        ("5.12.0", True),
        ("5.10.0-30-amd64", False),
        ("4.19", False),
        ("x", False),
    ],
)
def test_schedstat_is_conclusive_since_linux_5_12(release: str, expected: bool) -> None:
    assert is_conclusive(release) is expected


@needs_times
def test_without_free_descriptors_the_result_is_none() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    monitor = RunMonitor("/proc", KEPT)
    with child_process() as there:
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        try:
            found = monitor.have_run([(there.pid, MANY)])
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    monitor.close()
    assert found == {there.pid: None}


def test_no_more_than_max_files_stay_open_when_threads_end_during_a_reading(fake: FakeProc) -> None:
    monitor = RunMonitor(str(fake.root), 1)
    for pid in (7, 8):
        (fake.process(pid) / "task" / str(pid) / "schedstat").write_bytes(b"1 2 3\n")
    # A directory can be opened and not be read, as the file of a thread that ended meanwhile.
    (fake.process(9) / "task" / "9" / "schedstat").mkdir()
    for _ in range(3):
        monitor.have_run([(9, MANY)])
    before = len(os.listdir("/proc/self/fd"))
    assert monitor.have_run([(7, MANY), (8, MANY)]) == {7: True, 8: True}
    assert len(os.listdir("/proc/self/fd")) == before + 1
    monitor.close()
