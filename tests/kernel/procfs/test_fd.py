import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.kernel.procfs import fd as fd_module
from agent.kernel.procfs.fd import recheck_fds


@given(
    before=st.dictionaries(st.integers(0, 12), st.integers(0, 3), max_size=8),
    after=st.dictionaries(st.integers(0, 12), st.integers(0, 3), max_size=8),
    most=st.sampled_from([1, 1024]),
    counted=st.booleans(),
)
def test_changes_applied_to_the_old_descriptors_give_the_new_ones(
    tmp_path_factory: pytest.TempPathFactory,
    before: dict[int, int],
    after: dict[int, int],
    most: int,
    counted: bool,
) -> None:
    before, after = {99: 0, **before}, {99: 0, **after}  # There is always one left.
    listing = tmp_path_factory.mktemp("fd")
    for fd, inode in after.items():
        (listing / str(fd)).symlink_to(f"socket:[{inode}]" if inode else "/dev/null")
    directory = os.open(listing, os.O_RDONLY | os.O_DIRECTORY)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fd_module, "_MANY", most)
        count = len(after) if counted else 0
        changes, _reads = recheck_fds(directory, dict(before), list(before), count)
    os.close(directory)
    folded = {**before, **changes}
    assert {fd: inode for fd, inode in folded.items() if inode is not None} == after
    assert all(before.get(fd) != inode for fd, inode in changes.items())
