import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from .fakeproc import FakeProc
from .machine.groups import group_of, place_of

# The same examples in every run; no deadline, since times vary on a busy machine.
settings.register_profile("sockagent", deadline=None, derandomize=True, max_examples=100)
settings.load_profile("sockagent")


class Groups(LoadScopeScheduling):  # type: ignore[misc]
    """Lets a process run all tests of a file, and all tests of a group on the real machine."""

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        directory, _, name = path.rpartition("/")
        return group_of(name) if directory.endswith("tests/machine") else path


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Groups:
    """Return how tests are distributed to processes."""
    config.option.loadscopereorder = False
    return Groups(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the groups that take long first, and last those that look at the whole machine, where
    other tests would disturb them."""
    items.sort(key=lambda item: place_of(item.path))


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
