"""Both sides of each micro-benchmark, run once; and the names that comments in agent/ cite."""

import re
from pathlib import Path

import pytest

import agent
from bench.micro.__main__ import BENCHMARKS, WHOLE, table
from bench.micro.timing import Pair, measure


@pytest.mark.parametrize("name", sorted(BENCHMARKS.keys() - WHOLE))
def test_both_sides_run(name: str) -> None:
    pair = BENCHMARKS[name]()
    pair.chosen()
    pair.instead()


def test_every_benchmark_names_both_sides() -> None:
    for name, benchmark in BENCHMARKS.items():
        assert "; " in (benchmark.__doc__ or "").splitlines()[0], name


def test_the_ratio_is_that_of_the_chosen_to_the_other() -> None:
    cost = measure(Pair(lambda: sum(range(1000)), lambda: sum(range(10_000)), items=2), 3)
    assert cost.ratios[1] < 0.5
    assert cost.chosen < cost.instead
    assert table({"row_reuse": cost}).splitlines()[2].startswith("| row_reuse | Reuse the sockets")


def test_cited_benchmarks_exist() -> None:
    root = Path(agent.__file__).parent
    cited = {
        name
        for path in root.rglob("*.py")
        for names in re.findall(r"bench\.micro: ([a-z_, ]+)", path.read_text())
        for name in names.split(", ")
    }
    assert cited <= BENCHMARKS.keys()
