"""What holds for the rows of every dump."""

import struct
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.kernel.netlink.messages import DumpError, split_rows
from agent.kernel.rows import EMPTY, Table
from agent.model import Opened
from agent.stream.encoder import AgentInfo, Encoder

from ...make import holding
from ...strategies import mutated
from .captured import DUMPS, NAMES, NETNS, SCOPE, answer, read, rows


@pytest.mark.parametrize("name", NAMES)
def test_a_captured_answer_has_no_malformed_rows(name: str) -> None:
    table = read(name)
    assert table.rows.keys() == set(rows(name))  # The answer of netlink repeats some rows.
    assert not table.malformed
    assert table.sockets()
    assert {row.netns for row in table.rows.values()} == {NETNS}
    assert {row.source for row in table.rows.values()} == {"netlink"}
    assert {row.proto for row in table.rows.values()} == {name}


@pytest.mark.parametrize("name", NAMES)
def test_an_unchanged_answer_gives_the_same_table(name: str) -> None:
    before = read(name)
    assert DUMPS[name].read(rows(name)[::-1], SCOPE, before) is before


@pytest.mark.parametrize("name", NAMES)
def test_only_new_rows_are_decoded(name: str) -> None:
    old, new = rows(name)[:-1], rows(name)
    before = DUMPS[name].read(old, SCOPE, EMPTY)
    table = DUMPS[name].read(new, SCOPE, before)
    assert all(table.rows[row] is before.rows[row] for row in old)
    assert table.rows == read(name).rows


# Malformed rows.


def check_encodable(table: Table) -> None:
    encoder = Encoder(AgentInfo("host", None, "epoch", 1.0))
    for row in table.rows.values():
        encoder.delta(Opened(holding(row)), 1, 0.0)


mutated_answers = st.sampled_from(NAMES).flatmap(
    lambda name: st.tuples(st.just(name), mutated(answer(name)))
)
mutated_rows = st.sampled_from(NAMES).flatmap(
    lambda name: st.tuples(
        st.just(name), st.lists(st.sampled_from(rows(name)).flatmap(mutated), max_size=4)
    )
)


@given(mutated_answers)
def test_sockets_of_a_mutated_answer_can_be_encoded(broken: tuple[str, bytes]) -> None:
    name, data = broken
    with suppress(DumpError):
        check_encodable(DUMPS[name].read(split_rows([data]), SCOPE, EMPTY))


@given(mutated_rows)
def test_sockets_of_mutated_rows_can_be_encoded(broken: tuple[str, list[bytes]]) -> None:
    name, changed = broken
    table = DUMPS[name].read(changed, SCOPE, EMPTY)
    assert len(table.rows) + len(table.malformed) == len(set(changed))
    check_encodable(table)


# Of each kind of row: the length without attributes, and the attributes that are decoded with the
# lengths of their values.
ATTRIBUTES = {
    "tcp": (72, {21: 8}),
    "unix": (16, {2: 4, 4: 8, 7: 4}),
    "netlink": (28, {0: 12}),
    "packet": (16, {0: 4, 5: 4, 6: 4}),
}


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_a_row_with_an_attribute_shorter_than_its_type_is_malformed(name: str) -> None:
    fixed, lengths = ATTRIBUTES[name]
    start = rows(name)[0][:fixed]
    for kind, length in lengths.items():
        for size in range(length + 1):
            row = start + struct.pack("=HH", 4 + size, kind) + bytes(size)
            table = DUMPS[name].read([row], SCOPE, EMPTY)
            assert table.malformed == (frozenset() if size == length else {row})


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_a_row_with_an_attribute_that_does_not_fit_is_malformed(name: str) -> None:
    start = rows(name)[0][: ATTRIBUTES[name][0]]
    for broken in (b"\0", bytes(3), bytes(4), struct.pack("=HH", 3, 99), struct.pack("=HH", 5, 99)):
        table = DUMPS[name].read([start + broken], SCOPE, EMPTY)
        assert not table.rows
        assert table.malformed == {start + broken}


@pytest.mark.parametrize("name", NAMES)
def test_a_truncated_row_has_the_same_inode_or_is_malformed(name: str) -> None:
    for row in rows(name):
        whole = DUMPS[name].read([row], SCOPE, EMPTY).rows[row]
        for size in range(len(row)):
            table = DUMPS[name].read([row[:size]], SCOPE, EMPTY)
            assert all(found.inode == whole.inode for found in table.rows.values())
