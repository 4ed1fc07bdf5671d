import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from .fakeproc import FakeProc

# The same examples in every run; no deadline, since times vary on a busy machine.
settings.register_profile("sockagent", deadline=None, derandomize=True, max_examples=100)
settings.load_profile("sockagent")


@pytest.fixture
def fake(tmp_path: Path) -> FakeProc:
    """A procfs with process 1 only."""
    procfs = FakeProc(tmp_path / "proc")
    procfs.process(1, comm="init", ppid=0)
    return procfs


@pytest.fixture
def open_fake() -> Iterator[FakeProc]:
    """A procfs with process 1 only, which every user may read."""
    with tempfile.TemporaryDirectory(prefix="sockagent-") as name:
        Path(name).chmod(0o755)
        procfs = FakeProc(Path(name) / "proc")
        procfs.process(1, comm="init", ppid=0)
        yield procfs
