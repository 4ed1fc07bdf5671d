"""Mutated netlink messages and text rows; ``python -m bench fuzz_tables`` reads many more."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.kernel.rows import EMPTY
from agent.model import Socket
from bench import fuzz_tables
from bench.fuzz_tables import (
    DUMPS,
    SCOPE,
    Target,
    check,
    run,
    single,
)

from ..kernel.netlink.captured import rows

INPUTS = 10_000


@pytest.fixture(scope="module")
def fuzzed() -> list[Target]:
    return run(INPUTS, seed=0)


def test_no_mutated_input_raises_and_every_result_is_typed(fuzzed: list[Target]) -> None:
    assert sum(target.outcome.inputs for target in fuzzed) == INPUTS


def test_the_mutated_inputs_of_each_kind_are_partly_readable(fuzzed: list[Target]) -> None:
    for target in fuzzed:
        assert target.outcome.sockets, target.name
        assert target.outcome.malformed + target.outcome.refused, target.name


def test_the_same_seed_makes_the_same_inputs() -> None:
    outcomes = [[target.outcome for target in run(500, seed)] for seed in (1, 1, 2)]
    assert outcomes[0] == outcomes[1] != outcomes[2]


def test_an_input_that_raises_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_target: Target, _data: bytes) -> None:
        raise IndexError

    monkeypatch.setattr(fuzz_tables.Notices, "read", fail)
    with pytest.raises(IndexError) as raised:
        run(100, seed=1)
    (note,) = raised.value.__notes__
    assert note.startswith("notices, input ")


@pytest.mark.parametrize(
    "wrong",
    [{"inode": None}, {"proto": 1}, {"local_port": "80"}, {"recv_q": -1}, {"path": "\ud800"}],
)
def test_a_result_of_another_type_is_found(wrong: dict[str, object]) -> None:
    whole = Socket(1, "tcp", "inet", None, None)
    check(whole)
    with pytest.raises((AssertionError, UnicodeEncodeError)):
        check(whole._replace(**wrong))  # type: ignore[arg-type]


# Attributes as the kernel writes them, of any kind and length.

attributes = st.lists(st.tuples(st.integers(0, 25), st.binary(max_size=16)), max_size=6).map(
    lambda made: b"".join(
        struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)
        for kind, value in made
    )
)
FIXED = {"tcp": 72, "unix": 16, "netlink": 28, "packet": 16}


@given(st.sampled_from(sorted(FIXED)), attributes)
def test_any_attributes_are_read_or_malformed(name: str, made: bytes) -> None:
    dump = next(dump for dump, _captures in DUMPS if dump.tables[0] == name)
    table = dump.read([rows(name)[0][: FIXED[name]] + made], SCOPE, EMPTY)
    assert len(table.rows) + len(table.malformed) == 1
    for socket in table.rows.values():
        check(socket)


@given(attributes)
def test_a_notice_with_any_attributes_is_read_or_malformed(made: bytes) -> None:
    target = fuzz_tables.Notices("notices", ())
    target.read(single(rows("tcp")[0][: FIXED["tcp"]] + made))
    assert target.outcome.sockets + target.outcome.malformed <= 1
