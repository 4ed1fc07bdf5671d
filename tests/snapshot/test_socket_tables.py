from collections.abc import Iterable, Iterator

from hypothesis import given
from hypothesis import strategies as st

from agent.kernel.procfs import net_tables
from agent.kernel.rows import EMPTY, Table, update_table
from agent.model import Socket
from agent.snapshot.reading import Change
from agent.snapshot.socket_tables import SocketTables

from ..fakeproc import INET_HEADING, UNIX_HEADING, inet_row, unix_row
from ..make import tcp


class Decoder:
    """A decoder of rows ``INODE[:STATE]`` that records its calls."""

    def __init__(self, netns: int = 1) -> None:
        self.netns = netns
        self.calls: list[list[bytes]] = []

    def __call__(self, fresh: Iterable[bytes]) -> Iterator[tuple[bytes, Socket]]:
        rows = list(fresh)
        self.calls.append(rows)
        for row in rows:
            inode, _, state = row.partition(b":")
            if inode.isdigit():
                yield row, tcp(int(inode), state.decode() or "LISTEN", netns=self.netns)


def read(*rows: bytes, before: Table = EMPTY, netns: int = 1) -> Table:
    return update_table(rows, before, Decoder(netns))


def unix(inode: int, path: str = "/a") -> Socket:
    return Socket(inode, "unix", "unix", "stream", "LISTEN", path=path)


def listed(*sockets: Socket) -> Table:
    """Return a first reading of these sockets; the row of each is its ``repr``."""
    rows = {repr(socket).encode(): socket for socket in sockets}
    return Table(rows, added=rows)


class Readings(SocketTables[str]):
    """Tables that are read repeatedly."""

    def read(self, **rows: list[bytes]) -> Change:
        return self.update(
            {name: read(*found, before=self.get(name)) for name, found in rows.items()}
        )


def test_an_update_returns_added_and_gone_sockets() -> None:
    tables = Readings()
    assert tables.read(tcp=[b"1", b"2"]) == Change({1, 2}, set())
    assert tables.read(tcp=[b"2", b"3"]) == Change({3}, {1})
    assert tables.sockets == {2: tcp(2), 3: tcp(3)}
    assert tables.get("tcp").rows == read(b"2", b"3").rows


def test_a_socket_whose_row_changed_is_added_and_not_gone() -> None:
    tables = Readings()
    tables.read(tcp=[b"1:SYN_SENT"])
    assert tables.read(tcp=[b"1:ESTABLISHED"]) == Change({1}, set())
    assert tables.sockets[1].state == "ESTABLISHED"


def test_a_socket_that_moves_to_another_table_is_not_gone() -> None:
    for order in (["tcp", "tcp6"], ["tcp6", "tcp"]):
        tables = Readings()
        tables.update({"tcp": read(b"1"), "tcp6": EMPTY})
        moved = {"tcp": read(before=tables.get("tcp")), "tcp6": read(b"1:ESTABLISHED")}
        assert tables.update({name: moved[name] for name in order}) == Change({1}, set())
        assert tables.sockets == {1: tcp(1, "ESTABLISHED")}


def test_an_unchanged_table_is_no_change() -> None:
    tables = Readings()
    table = read(b"1", b"x")
    tables.update({"tcp": table})
    assert tables.update({"tcp": table}) == Change(set(), set())
    assert tables.decoded == 1


def test_decoded_rows_are_counted() -> None:
    tables = Readings()
    tables.read(tcp=[b"1", b"0"], udp=[b"2"])
    tables.read(tcp=[b"1", b"3"], udp=[])
    assert tables.decoded == 4


def test_tables_that_are_not_read_again_stay() -> None:
    tables = Readings()
    tables.read(tcp=[b"1"], udp=[b"2"])
    assert tables.read(tcp=[]) == Change(set(), {1})
    assert tables.sockets.keys() == {2}
    assert dict(tables.items())["udp"].rows == read(b"2").rows


def test_rows_that_no_process_can_hold_are_not_in_the_change() -> None:
    tables = Readings()
    assert tables.read(tcp=[b"0", b"0:TIME_WAIT", b"1"]) == Change({1}, set())
    assert tables.read(tcp=[b"1"]) == Change(set(), set())
    assert 0 not in tables.sockets


def test_a_socket_with_two_rows_is_gone_with_the_second_row() -> None:
    tables = Readings()
    tables.read(tcp=[b"1:SYN_SENT", b"1:ESTABLISHED"])
    assert tables.sockets[1].state == "ESTABLISHED"  # The later row.
    assert tables.read(tcp=[b"1:ESTABLISHED"]) == Change(set(), set())
    assert tables.sockets.keys() == {1}
    assert tables.read(tcp=[]) == Change(set(), {1})


def test_of_a_socket_with_two_rows_the_remaining_row_is_used() -> None:
    tables = Readings()
    tables.read(tcp=[b"1:SYN_SENT", b"1:ESTABLISHED"])
    tables.read(tcp=[b"1:SYN_SENT"])
    assert tables.sockets[1].state == "SYN_SENT"


def test_a_row_that_the_kernel_skipped_is_added_again() -> None:
    tables = Readings()
    tables.read(tcp=[b"1", b"2"])
    assert tables.read(tcp=[b"2"]) == Change(set(), {1})
    assert tables.read(tcp=[b"1", b"2"]) == Change({1}, set())
    assert tables.sockets.keys() == {1, 2}


def test_an_inode_that_is_reused_in_another_table_is_the_new_socket() -> None:
    tables = Readings()
    tables.update({"tcp": read(b"1"), "unix": EMPTY})
    change = tables.update({"tcp": read(before=tables.get("tcp")), "unix": listed(unix(1))})
    assert change == Change({1}, set())
    assert tables.sockets == {1: unix(1)}
    assert tables.clashes == set()


def test_an_empty_table_is_dropped_with_its_sockets() -> None:
    tables = Readings()
    tables.read(tcp=[b"1"], udp=[b"2"])
    assert tables.update({"tcp": EMPTY}) == Change(set(), {1})
    assert [name for name, _table in tables.items()] == ["udp"]
    assert tables.get("tcp") is EMPTY
    assert tables.update({"tcp": EMPTY, "none": EMPTY}) == Change(set(), set())


def test_a_table_of_another_source_replaces_a_table() -> None:
    tables = SocketTables[object]()
    tables.update({"tcp": read(b"1"), "tcp6": read(b"2")})
    pair: object = ("tcp", "tcp6")
    both = listed(tcp(1, source="netlink"), tcp(2, source="netlink"))
    replaced: list[dict[object, Table]] = [
        {pair: both, "tcp": EMPTY, "tcp6": EMPTY},
        {"tcp": read(b"1"), "tcp6": read(b"2"), pair: EMPTY},
    ]
    for tables_read in replaced:
        assert tables.update(tables_read) == Change({1, 2}, set())
    assert {one.source for one in tables.sockets.values()} == {"procfs"}


# A path that contains a newline may imitate a row of the unix table.


def test_a_path_that_imitates_a_row_hides_no_socket() -> None:
    imitation = unix_row(11, "/b").decode().rstrip("\n")
    text = UNIX_HEADING + unix_row(5, f"/a\n{imitation}")
    listing = INET_HEADING + inet_row(11)
    for names in (["tcp", "unix"], ["unix", "tcp"]):
        tables = Readings()
        texts = {"tcp": listing, "unix": text}
        tables.update({name: net_tables.parse(name, texts[name], None) for name in names})
        assert {one.proto for one in tables.sockets.values()} == {"tcp", "unix"}
        assert tables.sockets[11].proto == "tcp"
        assert tables.clashes == {11}


def test_a_unix_row_hides_no_socket_of_another_table() -> None:
    for names in (["tcp", "unix"], ["unix", "tcp"]):
        tables = Readings()
        both = {"tcp": listed(tcp(1)), "unix": listed(unix(1), unix(2))}
        change = tables.update({name: both[name] for name in names})
        assert change == Change({1, 2}, set())
        assert tables.sockets == {1: tcp(1), 2: unix(2)}
        assert tables.clashes == {1}


def test_a_later_unix_row_hides_no_socket() -> None:
    tables = Readings()
    tables.update({"tcp": listed(tcp(1))})
    assert tables.update({"unix": listed(unix(1))}) == Change(set(), set())
    assert (tables.sockets, tables.clashes) == ({1: tcp(1)}, {1})


def test_an_earlier_unix_row_is_replaced_by_the_row_of_another_table() -> None:
    tables = Readings()
    tables.update({"unix": listed(unix(1))})
    assert tables.update({"tcp": listed(tcp(1))}) == Change({1}, set())
    assert (tables.sockets, tables.clashes) == ({1: tcp(1)}, {1})


def test_a_socket_stays_when_the_unix_row_that_claims_it_is_gone() -> None:
    for first, second in (("tcp", "unix"), ("unix", "tcp")):
        tables = Readings()
        both = {"tcp": listed(tcp(1)), "unix": listed(unix(1))}
        tables.update({first: both[first]})
        tables.update({second: both[second]})
        assert tables.update({"unix": EMPTY}) == Change(set(), set())
        assert tables.sockets == {1: tcp(1)}
        assert tables.clashes == set()


def test_when_the_claimed_socket_is_gone_only_the_unix_row_may_remain() -> None:
    tables = Readings()
    tables.update({"tcp": listed(tcp(1)), "unix": listed(unix(1))})
    tables.update({"tcp": EMPTY})
    assert tables.sockets.get(1) in (None, unix(1))
    assert tables.clashes == set()


# An inode belongs to one network namespace.


class Namespaces(SocketTables[int]):
    """Tables of several namespaces that are read repeatedly."""

    def read(self, shown: dict[int, list[bytes]]) -> Change:
        return self.update(
            {netns: read(*rows, before=self.get(netns), netns=netns)
             for netns, rows in shown.items()}
        )  # fmt: skip


def test_a_row_of_another_namespace_replaces_no_socket() -> None:
    tables = Namespaces()
    tables.read({1: [b"11"]})
    assert tables.read({2: [b"11:SYN_SENT", b"12"]}) == Change({12}, set())
    assert tables.sockets == {11: tcp(11, netns=1), 12: tcp(12, netns=2)}
    assert tables.disputed == {11}
    assert tables.clashes == set()


def test_an_inode_stays_with_the_namespace_that_showed_it_first() -> None:
    tables = Namespaces()
    tables.read({1: [b"11:SYN_SENT"]})
    for order in ((1, 2), (2, 1)):
        for state in ("ESTABLISHED", "CLOSE_WAIT"):
            shown = {1: [b"11:%s" % state.encode()], 2: [b"11:%sX" % state.encode()]}
            assert tables.read({netns: shown[netns] for netns in order}) == Change({11}, set())
            assert tables.sockets == {11: tcp(11, state, netns=1)}
    assert tables.disputed == {11}


def test_of_two_namespaces_in_one_update_the_first_gets_the_inode() -> None:
    tables = Namespaces()
    assert tables.read({1: [b"11"], 2: [b"11:X"]}) == Change({11}, set())
    assert tables.read({2: [b"11:Y"]}) == Change(set(), set())
    assert tables.sockets == {11: tcp(11, netns=1)}
    assert tables.disputed == {11}


def test_an_inode_that_is_gone_from_its_namespace_may_belong_to_another() -> None:
    tables = Namespaces()
    tables.read({1: [b"11"], 2: [b"11"]})
    assert tables.read({1: []}) == Change({11}, set())
    assert tables.sockets == {11: tcp(11, netns=2)}
    assert tables.disputed == set()


def test_nothing_changes_when_the_other_namespace_no_longer_shows_the_inode() -> None:
    tables = Namespaces()
    tables.read({1: [b"11"], 2: [b"11"]})
    assert tables.read({2: []}) == Change(set(), set())
    assert tables.sockets == {11: tcp(11, netns=1)}
    assert tables.disputed == set()


def test_rows_without_an_inode_are_not_disputed() -> None:
    tables = Namespaces()
    tables.read({1: [b"0"], 2: [b"0"]})
    tables.read({1: [b"0", b"0:X"], 2: [b"0:X"]})
    assert tables.disputed == set()


def test_a_unix_row_read_over_netlink_is_not_replaced() -> None:
    tables = Readings()
    real = unix(1)._replace(netns=1, source="netlink")
    tables.update({"unix": listed(real)})
    assert tables.update({"tcp": listed(tcp(1, netns=2))}) == Change(set(), set())
    assert (tables.sockets, tables.disputed, tables.clashes) == ({1: real}, {1}, set())


_shown = st.lists(st.sampled_from([b"1", b"1:X", b"2", b"2:X", b"3", b"0"]), max_size=4)


@given(st.lists(st.dictionaries(st.sampled_from([1, 2, 3]), _shown), max_size=8))
def test_an_inode_stays_with_its_namespace_until_it_is_gone_from_it(
    polls: list[dict[int, list[bytes]]],
) -> None:
    tables = Namespaces()
    claims: dict[int, int | None] = {}
    for poll in polls:
        tables.read(poll)
        showing = {netns: table.sockets() for netns, table in tables.items()}
        for inode, socket in tables.sockets.items():
            by = {netns for netns, sockets in showing.items() if inode in sockets}
            assert socket.netns in by
            assert claims.get(inode) not in by - {socket.netns}
            assert socket == showing[socket.netns][inode]
            assert (inode in tables.disputed) == (len(by) > 1)
        assert tables.disputed <= tables.sockets.keys()
        claims = {inode: socket.netns for inode, socket in tables.sockets.items()}


_row = st.sampled_from([b"1", b"1:CLOSE", b"2", b"3", b"0", b"x"])


@given(st.lists(st.dictionaries(st.sampled_from("ab"), st.lists(_row, max_size=4)), max_size=6))
def test_the_sum_of_all_changes_equals_the_sockets(polls: list[dict[str, list[bytes]]]) -> None:
    tables = Readings()
    inodes: set[int] = set()
    for poll in polls:
        found = {name: read(*rows, before=tables.get(name)) for name, rows in poll.items()}
        change = tables.update(found)
        assert not change.added & change.gone
        assert change.gone <= inodes
        inodes = inodes - change.gone | change.added
        assert tables.sockets.keys() == inodes
        listing = [table.sockets().keys() for _name, table in tables.items()]
        assert inodes == set().union(*listing)
