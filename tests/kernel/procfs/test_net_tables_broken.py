"""Malformed tables: only the malformed rows are left out."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agent.kernel.procfs import net_tables
from agent.model import Coverage, Holding, Opened, Owner, Socket
from agent.stream.encoder import AgentInfo, Encoder

from ...captures import TABLES, capture
from ...fakeproc import ESTABLISHED, INET_HEADING, LISTEN, inet_row
from ...make import process
from ...strategies import mutated

NETNS = 4026531833


def whole(table: str) -> dict[int, Socket]:
    return net_tables.parse(table, capture(f"net/{table}"), NETNS).sockets()


def test_a_repeated_row_counts_once() -> None:
    intact = net_tables.parse("tcp", capture("net/tcp"), NETNS)
    repeated = net_tables.parse("tcp", capture("broken/tcp_repeated_rows"), NETNS)
    assert repeated == intact


def test_of_two_rows_of_a_socket_the_later_one_counts() -> None:
    rows = inet_row(9, state=LISTEN) + inet_row(9, remote="0100007F:0050", state=ESTABLISHED)
    assert net_tables.parse("tcp", INET_HEADING + rows, None).sockets()[9].state == "ESTABLISHED"


def test_malformed_rows_are_counted_and_skipped() -> None:
    intact = net_tables.parse("tcp", capture("net/tcp"), NETNS)
    broken = net_tables.parse("tcp", capture("broken/tcp_garbage_row"), NETNS)
    assert broken.rows == intact.rows
    assert broken.malformed


def test_malformed_unix_rows_are_counted_and_skipped() -> None:
    broken = net_tables.parse("unix", capture("broken/unix_garbage_row"), NETNS)
    assert broken.sockets() == whole("unix")
    assert len(broken.malformed) == 1


@pytest.mark.parametrize("name", ["tcp_cut_mid_row", "tcp_cut_inside_inode"])
def test_a_row_that_is_cut_off_is_counted_and_skipped(name: str) -> None:
    broken = net_tables.parse("tcp", capture(f"broken/{name}"), NETNS)
    assert len(broken.malformed) == 1
    assert broken.sockets().keys() < whole("tcp").keys()


@pytest.mark.parametrize("table", ["unix", "netlink", "packet"])
def test_a_row_cut_off_inside_its_inode_is_not_another_socket(table: str) -> None:
    broken = net_tables.parse(table, capture(f"broken/{table}_cut_inside_inode"), NETNS)
    assert broken.sockets().keys() < whole(table).keys()
    assert len(broken.malformed) == 1


@pytest.mark.parametrize("table", TABLES)
def test_wherever_a_table_is_cut_off_no_other_socket_appears(table: str) -> None:
    data = capture(f"net/{table}")
    known = whole(table).keys()
    for size in range(len(data)):
        assert net_tables.parse(table, data[:size], NETNS).sockets().keys() <= known


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("data", [b"", b"\n", b"heading", b"heading\n"])
def test_an_empty_table(table: str, data: bytes) -> None:
    read = net_tables.parse(table, data, None)
    assert read.rows == {}
    assert read.malformed <= {b"heading"}


@pytest.mark.parametrize(
    "row",
    [
        inet_row(9, local="0100007F:1", remote="0100007F:0050", state=ESTABLISHED),
        inet_row(9, local="0100007F", state=ESTABLISHED),
        inet_row(9, local="0100007F:zz", state=LISTEN),
        inet_row(9, local="01007F:0050"),
        inet_row(9, local="0000000000000000:0050"),
        inet_row(9, queues="00000000"),
        inet_row(9, state="FF"),
        inet_row(-9),
        inet_row(9, uid=-1),
        inet_row(9, uid=2**32),
        inet_row(9, local="0100007F:-001"),
        inet_row(9, local="0100007F:10000"),
        inet_row(9, remote="0100007F:10000"),
    ],
)
def test_a_malformed_row_raises_nothing(row: bytes) -> None:
    read = net_tables.parse("tcp", INET_HEADING + row, None)
    assert len(read.rows) + len(read.malformed) == 1
    assert all(inode > 0 for inode in read.sockets())


@given(st.sampled_from(TABLES), st.binary(max_size=300))
def test_parse_raises_for_no_input(table: str, data: bytes) -> None:
    net_tables.parse(table, b"heading\n" + data, None)


@given(
    st.sampled_from(TABLES).flatmap(lambda t: st.tuples(st.just(t), mutated(capture(f"net/{t}"))))
)
@example(("tcp", INET_HEADING + inet_row(10**20)))
@example(("tcp", INET_HEADING + inet_row(9, queues="00000000:10000000000000000")))
def test_sockets_of_a_mutated_table_can_be_encoded(broken: tuple[str, bytes]) -> None:
    table = net_tables.parse(*broken, NETNS)
    encoder = Encoder(AgentInfo("host", None, "epoch", 1.0))
    for row in table.rows.values():
        owner = None if row.uid is None else Owner(row.uid, None)
        encoder.delta(Opened(Holding(row, process(), (3,), owner)), 1, 0.0)
    encoder.delta(Coverage(1, 0, 1, (f"{len(table.malformed)} malformed rows",)), 2, 0.0)


# Updates: only new rows are decoded.


@pytest.mark.parametrize("table", TABLES)
def test_an_unchanged_table_is_the_same_object(table: str) -> None:
    before = net_tables.parse(table, capture(f"net/{table}"), NETNS)
    assert net_tables.parse(table, capture(f"net/{table}"), NETNS, before=before) is before


@given(
    st.sampled_from(TABLES).flatmap(
        lambda table: st.tuples(st.just(table), *[mutated(capture(f"net/{table}"))] * 2)
    )
)
def test_an_updated_table_equals_a_table_read_for_the_first_time(
    read: tuple[str, bytes, bytes],
) -> None:
    table, old, new = read
    updated = net_tables.parse(table, new, NETNS, before=net_tables.parse(table, old, NETNS))
    first = net_tables.parse(table, new, NETNS)
    assert updated.rows.keys() == first.rows.keys()
    assert updated.malformed == first.malformed
    # A direction is kept, whichever sockets listen now.
    assert {row._replace(direction=None) for row in updated.rows.values()} == {
        row._replace(direction=None) for row in first.rows.values()
    }


def test_a_row_cut_off_behind_known_rows_adds_and_removes_nothing() -> None:
    first = net_tables.parse("tcp", INET_HEADING + inet_row(11) + inet_row(12), None)
    before = net_tables.parse("tcp", INET_HEADING + inet_row(12) + inet_row(13), None, before=first)
    cut = INET_HEADING + inet_row(12) + inet_row(13) + b"  5: 0100"
    table = net_tables.parse("tcp", cut, None, before=before)
    assert len(table.malformed) == 1
    assert (table.added, table.removed) == ({}, ())


def test_a_row_with_another_number_is_the_same_row() -> None:
    rows = inet_row(11), inet_row(12)
    before = net_tables.parse("tcp", INET_HEADING + b"".join(rows), None)
    moved = inet_row(12).replace(b"   0:", b"  31:")
    assert net_tables.parse("tcp", INET_HEADING + moved + rows[0], None, before=before) is before
