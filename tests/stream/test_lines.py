from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.model import Holding
from agent.stream import lines
from agent.stream.encoder import Encoder
from agent.stream.filters import Filter
from agent.stream.lines import gather, snapshot_chunks

from ..feeding import AGENT
from ..make import holding, records, tcp

LIMIT = 1000


@given(st.lists(st.integers(1, LIMIT + 9), max_size=30))
def test_gathered_lines_are_bounded_and_continue_where_they_ended(sizes: list[int]) -> None:
    numbered = [(index, b"x" * size) for index, size in enumerate(sizes)]
    begin: int | None = 0
    found: list[bytes] = []
    while begin is not None:
        gathered, begin = gather(numbered[begin:], LIMIT)
        assert sum(map(len, gathered)) <= LIMIT or len(gathered) == 1
        # The next line would not have fitted.
        assert begin is None or sum(map(len, gathered)) + sizes[begin] > LIMIT
        found += gathered
    assert found == [line for _index, line in numbered]


@pytest.mark.parametrize("values", [{}, {"port": ["1-10"]}, {"event": ["open"]}])
def test_a_one_shot_snapshot_has_the_records_that_pass(
    monkeypatch: pytest.MonkeyPatch, values: dict[str, list[str]]
) -> None:
    monkeypatch.setattr(lines, "SNAPSHOT_CHUNK_LINES", 7)
    chosen = Filter(values)
    held = [holding(tcp(inode, local_port=inode)) for inode in range(1, 31)]
    chunks = list(snapshot_chunks(Encoder(AGENT), held, chosen, 0.0))
    found = [record["inode"] for chunk in chunks for record in records(chunk)]
    wanted = held if "snapshot" in chosen.events else []
    assert found == [one.socket.inode for one in wanted if chosen.matches(one)]
    assert all(chunk.count(b"\n") <= 7 for chunk in chunks)


def test_chunks_are_encoded_as_they_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "SNAPSHOT_CHUNK_LINES", 7)

    def holdings() -> Iterator[Holding]:
        yield from [holding()] * 7
        raise AssertionError

    assert next(snapshot_chunks(Encoder(AGENT), holdings(), Filter(), 0.0)).count(b"\n") == 7
