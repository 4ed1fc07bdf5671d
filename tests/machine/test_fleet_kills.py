"""Half a minute of a fleet whose processes are killed: ``python -m bench fleet --short``."""

from __future__ import annotations

import random
from pathlib import Path

from bench.fleet.check import table
from bench.fleet.kills import SHORT, run

from ..broker import needs_broker


@needs_broker
def test_killed_processes_lose_and_double_nothing(tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(2**32)
    found = run(tmp_path, seed, SHORT)
    text = "\n".join([f"seed {seed}", *table(found.outcomes), *found.problems])
    assert found.is_exact, text
    assert min(one.truth for _, _, one in found.outcomes) > 5_000
