from collections.abc import Iterable, Iterator

from hypothesis import given
from hypothesis import strategies as st

from agent.kernel.rows import EMPTY, Table, netlink_protocol, packet_protocol, update_table
from agent.model import Socket

from ..make import tcp


class Decoder:
    """Decodes rows of the form ``INODE[:STATE]``; records the rows of each call."""

    def __init__(self) -> None:
        self.calls: list[list[bytes]] = []

    def __call__(self, rows: Iterable[bytes]) -> Iterator[tuple[bytes, Socket]]:
        self.calls.append(list(rows))
        for row in self.calls[-1]:
            inode, _, state = row.partition(b":")
            if inode.isdigit():
                yield row, tcp(int(inode), state.decode() or "LISTEN", netns=1)


def read(*rows: bytes, before: Table = EMPTY) -> Table:
    return update_table(rows, before, Decoder())


def socket(inode: int) -> Socket:
    return tcp(inode, "LISTEN", netns=1)


def test_a_table_has_sockets_by_inode_and_unowned_ones() -> None:
    table = read(b"1", b"2", b"0")
    assert table.sockets() == {1: socket(1), 2: socket(2)}
    assert table.unowned() == [socket(0)]
    assert table.malformed == frozenset()


def test_a_table_without_rows_is_empty() -> None:
    assert read() is EMPTY


def test_an_unchanged_table_is_the_same_object() -> None:
    table = read(b"1", b"x", b"2")
    decoder = Decoder()
    assert update_table([b"2", b"1", b"x", b"1"], table, decoder) is table
    assert decoder.calls == []


def test_added_and_removed_rows_are_reported() -> None:
    table = read(b"2", b"3", b"x", before=read(b"1", b"2"))
    assert table.added == {b"3": socket(3)}
    assert table.removed == (socket(1),)


def test_an_unchanged_table_of_malformed_rows_is_the_same_object() -> None:
    table = read(b"x")
    assert read(b"x", before=table) is table


def test_the_later_of_two_rows_of_one_socket_counts() -> None:
    rows = [b"%d:%s" % (inode, state) for inode in range(10, 60) for state in (b"NEW", b"OLD")]
    for before in (EMPTY, read(b"1")):
        table = read(*rows[::-1], before=before)
        states = {found.state for found in table.sockets().values() if found.inode != 1}
        assert states == {"NEW"}


def test_only_new_rows_are_decoded() -> None:
    before = read(b"1", b"2")
    decoder = Decoder()
    table = update_table([b"3", b"1", b"4"], before, decoder)
    assert [sorted(call) for call in decoder.calls] == [[b"3", b"4"]]
    assert table.sockets().keys() == {1, 3, 4}
    assert table.rows[b"1"] is before.rows[b"1"]


def test_nothing_is_decoded_if_rows_are_only_removed() -> None:
    decoder = Decoder()
    assert update_table([b"1"], read(b"1", b"2"), decoder).sockets().keys() == {1}
    assert decoder.calls == []


def test_malformed_rows_are_kept_apart() -> None:
    table = read(b"1", b"x", b"y", b"x")
    assert table.sockets().keys() == {1}
    assert table.malformed == {b"x", b"y"}


def test_malformed_rows_are_decoded_once() -> None:
    decoder = Decoder()
    table = update_table([b"1", b"x", b"2"], read(b"1", b"x"), decoder)
    assert decoder.calls == [[b"2"]]
    assert table.malformed == {b"x"}


def test_a_removed_malformed_row_is_forgotten() -> None:
    assert read(b"1", before=read(b"1", b"x")).malformed == frozenset()


def test_a_malformed_row_in_place_of_a_decodable_one_is_a_change() -> None:
    table = read(b"1", b"x", before=read(b"1", b"2"))
    assert table.sockets().keys() == {1}
    assert table.malformed == {b"x"}


some_rows = st.lists(st.sampled_from([b"1", b"2", b"2:CLOSE", b"3", b"0", b"x", b"y"]))


@given(some_rows, some_rows)
def test_an_updated_table_equals_one_that_is_read_anew(old: list[bytes], new: list[bytes]) -> None:
    before = read(*old)
    updated = read(*new, before=before)
    anew = read(*new)
    assert (updated.rows, updated.malformed) == (anew.rows, anew.malformed)
    assert (updated is before) == (set(old) == set(new))


def test_netlink_protocols_have_names_or_numbers() -> None:
    assert [netlink_protocol(number) for number in (0, 4, 22, 17)] == [
        "route", "sock_diag", "smc", "17"
    ]  # fmt: skip


def test_a_packet_protocol_is_an_ethertype_or_all() -> None:
    assert [packet_protocol(number) for number in (3, 0x0800, 0)] == ["*", "0x0800", "0x0000"]
