"""Read mutated netlink messages and rows of ``/proc/net``: none may raise, every result is typed.

    python -m bench fuzz_tables --inputs 1000000 --seed 1

The inputs are recorded answers, rows, destroy notices and tables, changed at random. The outcome
depends on the seed alone.
"""

from __future__ import annotations

import argparse
import struct
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from types import UnionType

from agent.kernel.direction import DEFAULT_EPHEMERAL_PORTS
from agent.kernel.netlink import messages
from agent.kernel.netlink.destroy import parse_notices, short_lived
from agent.kernel.netlink.inet_diag import inet_dump
from agent.kernel.netlink.other_diag import netlink_dump, packet_dump
from agent.kernel.netlink.unix_diag import unix_dump
from agent.kernel.procfs import net_tables
from agent.kernel.rows import EMPTY, Scope, Table
from agent.model import Socket
from tests.captures import TABLES, capture

INPUTS = 1_000_000
NETNS = 4026531833
SCOPE = Scope(NETNS, DEFAULT_EPHEMERAL_PORTS)
# Each dump with the recorded answers to it.
DUMPS = (
    (inet_dump("tcp", include_unowned=True, include_cgroups=True), ("tcp",)),
    (inet_dump("udp"), ("udp", "udp6")),
    (inet_dump("udplite"), ("udplite", "udplite6")),
    (unix_dump(), ("unix",)),
    (netlink_dump(), ("netlink",)),
    (packet_dump(), ("packet",)),
)
FAILURES = ("error", "unsupported_family", "unsupported_raw")
# Lengths and numbers at limits of formats.
EDGES = (0, 1, 3, 4, 5, 8, 15, 16, 17, 72, 88, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFF_FFFF)
CHARACTERS = b" \t\n:-0123456789ABCDEFabcdefxX+_@.\0\x80\xff"
MAX_TEXT_ROWS = 3  # Rows of a text table in one input.
MAX_MUTATIONS = 4  # Of one input.

Text, Number = str | None, int | None
# The types of the fields of Socket, in order.
TYPES: tuple[type | UnionType, ...] = (
    int, str, str, Text, Text, Text, Number, Text, Number, Text, Text, Number, Number, Number,
    Number, str, Number, Number, Text, Number, Number,
)  # fmt: skip


@dataclass
class Outcome:
    """The result of the inputs of one kind: their number, the sockets that were read, the malformed
    rows and messages, and the rejected answers."""

    inputs: int = 0
    sockets: int = 0
    malformed: int = 0
    refused: int = 0


class Target:
    """A reader with the recorded inputs that it can read."""

    def __init__(self, name: str, corpus: Sequence[bytes]) -> None:
        self.name = name
        self.corpus = corpus
        self.outcome = Outcome()

    def read(self, data: bytes) -> None:
        """Read an input and check the result. Raises AssertionError."""
        raise NotImplementedError

    def _take(self, table: Table) -> None:
        for socket in table.rows.values():
            check(socket)
        self.outcome.sockets += len(table.rows)
        self.outcome.malformed += len(table.malformed)


class Answers(Target):
    """Whole answers to a dump."""

    def __init__(self, name: str, dump: messages.Dump, corpus: Sequence[bytes]) -> None:
        super().__init__(name, corpus)
        self._dump = dump
        self._before = EMPTY

    def read(self, data: bytes) -> None:
        messages.is_last(data)
        messages.read_sequence(data)
        try:
            rows = messages.split_rows([data])
        except messages.DumpError:
            self.outcome.refused += 1
            return
        self._read(rows)

    def _read(self, rows: Sequence[bytes]) -> None:
        self._before = self._dump.read(rows, SCOPE, self._before)
        assert len(self._before.rows) + len(self._before.malformed) == len(set(rows))
        self._take(self._before)


class Rows(Answers):
    """Single rows of an answer."""

    def read(self, data: bytes) -> None:
        self._read([data])


class Notices(Target):
    """Destroy notices."""

    def read(self, data: bytes) -> None:
        ended, malformed = parse_notices(data)
        self.outcome.malformed += malformed
        sockets = short_lived(ended, EMPTY, SCOPE)
        assert len(sockets) == len(ended)
        for socket in sockets:
            check(socket)
        self.outcome.sockets += len(sockets)


class TextTable(Target):
    """A table of ``/proc/net``."""

    def __init__(self, name: str) -> None:
        heading, *rows = capture(f"net/{name}").splitlines(keepends=True)
        super().__init__(f"text {name}", rows)
        self._heading = heading
        self._table_name = name
        self._before = EMPTY

    def read(self, data: bytes) -> None:
        table = net_tables.parse(self._table_name, self._heading + data, NETNS, before=self._before)
        self._before = table
        self._take(table)


def check(socket: Socket) -> None:
    """Raise AssertionError unless each field has its type and can be written as JSON."""
    for name, value, type_ in zip(Socket._fields, socket, TYPES, strict=True):
        assert isinstance(value, type_), (name, value)
        if isinstance(value, int):
            assert 0 <= value < 1 << 64, (name, value)  # orjson writes no other integers.
        elif isinstance(value, str):
            value.encode()


def targets() -> list[Target]:
    """Return every reader."""
    made: list[Target] = []
    failures = [capture(f"netlink/{name}") for name in FAILURES]
    for dump, names in DUMPS:
        answers = [capture(f"netlink/{name}") for name in names]
        made.append(Answers(f"answer {names[0]}", dump, [*answers * 8, *failures]))
        made.append(Rows(f"row {names[0]}", dump, messages.split_rows(answers)))
    whole = capture("netlink/destroyed")
    each = [single(one.row) for one in parse_notices(whole)[0]]
    return [*made, Notices("notices", [whole, *each]), *map(TextTable, TABLES)]


def single(notice: bytes) -> bytes:
    """Return a notice as a message of its own."""
    length = messages.HEADER_BYTES + len(notice)
    return struct.pack("=IHHII", length, messages.SOCK_DIAG_BY_FAMILY, 0, 0, 0) + notice


def mutated(random: Random, target: Target) -> bytes:
    """Return an input for the target, changed at random."""
    corpus = target.corpus
    text = isinstance(target, TextTable)
    count = random.randint(1, MAX_TEXT_ROWS) if text else 1
    data = bytearray(b"".join(random.choice(corpus) for _ in range(count)))
    change = random.choice((_flip, _cut, _splice, _overwrite if text else _length))
    for _ in range(random.randint(1, MAX_MUTATIONS)):
        if data:
            change(random, data, corpus)
    return bytes(data)


def _flip(random: Random, data: bytearray, _corpus: Sequence[bytes]) -> None:
    data[random.randrange(len(data))] ^= 1 << random.randrange(8)


def _cut(random: Random, data: bytearray, _corpus: Sequence[bytes]) -> None:
    at = random.randrange(len(data))
    del data[at : at + random.choice((1, 4, 16, len(data)))]


def _splice(random: Random, data: bytearray, corpus: Sequence[bytes]) -> None:
    other = random.choice(corpus)
    begin = random.randrange(len(other) + 1)
    at = random.randrange(0, len(data), random.choice((1, 4)))
    data[at : at + random.choice((0, 4, len(data)))] = other[begin:]
    del data[4096:]


def _length(random: Random, data: bytearray, _corpus: Sequence[bytes]) -> None:
    """Overwrite what may be a length or a kind: 2 or 4 bytes at a multiple of 2."""
    at = random.randrange(0, len(data), 2)
    size = random.choice((2, 4))
    number = random.choice((*EDGES, len(data), len(data) - at))
    data[at : at + size] = (number & (1 << 8 * size) - 1).to_bytes(size, sys.byteorder)


def _overwrite(random: Random, data: bytearray, _corpus: Sequence[bytes]) -> None:
    at = random.randrange(len(data))
    some = bytes(random.choices(CHARACTERS, k=random.choice((1, 1, 2, 12, 40))))
    data[at : at + random.choice((0, 1, len(some)))] = some


def run(inputs: int, seed: int) -> list[Target]:
    """Read this many inputs and return the targets with their outcomes.

    Raises what a reader raises, with a note that names the target and the input.
    """
    random = Random(seed)
    made = targets()
    for number in range(inputs):
        target = made[number % len(made)]
        data = mutated(random, target)
        target.outcome.inputs += 1
        try:
            target.read(data)
        except Exception as error:
            error.add_note(f"{target.name}, input {number} of seed {seed}: {data.hex()}")
            raise
    return made


def main() -> None:
    """Read the inputs and print the outcome."""
    assert __doc__
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=INPUTS, metavar="NUMBER")
    parser.add_argument("--seed", type=int, default=1, metavar="NUMBER")
    options = parser.parse_args()
    begun = time.monotonic()
    made = run(options.inputs, options.seed)
    print(f"{'target':16}{'inputs':>9}{'sockets':>9}{'malformed':>11}{'refused':>9}")
    total = Outcome()
    for target in made:
        one = target.outcome
        print(f"{target.name:16}{one.inputs:9}{one.sockets:9}{one.malformed:11}{one.refused:9}")
        total.inputs += one.inputs
        total.sockets += one.sockets
    seconds = time.monotonic() - begun
    print(f"{total.inputs} inputs, {total.sockets} sockets, no exception, {seconds:.0f} s")


if __name__ == "__main__":
    main()
