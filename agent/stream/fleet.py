"""The wire format of a fleet: subjects, headers and bodies of messages in a NATS stream. Pure.

The messages of a host have one subject. The header of each names the message before it, so that a
reader notices what is missing even if the broker does not.
"""

from __future__ import annotations

import re
import zlib
from typing import NamedTuple
from urllib.parse import SplitResult, unquote_to_bytes, urlsplit

HEADER = "Sockagent"
VERSION = "1"
DEFAULT_PREFIX = "sockagent"
# A body that a broker passes on has 1 MiB by default, which may inflate to a thousand times that.
MAX_BODY_BYTES = 16 * 1024 * 1024
# Level 6 takes twice the CPU time and saves a fifth.
_LEVEL = 1
_PLAIN = b"{"
_PORT = 4222
_PREFIX = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
_LITERAL = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-")
_NUMBER = "(0|[1-9][0-9]{0,17})"
_ID = r"[0-9a-f]{8}\.(?:0|[1-9][0-9]{0,17})"
_LINK = re.compile(
    rf"1 ([A-Za-z0-9_-]{{1,64}}) {_NUMBER} {_NUMBER} (-|{_ID}) {_NUMBER} (-|b|w|bw) ({_ID})",
    re.ASCII,
)
_NONE = "-"


class InvalidFleetMessage(ValueError):
    """A subject, header or body that no publisher of this format writes."""


class Link(NamedTuple):
    """The header of a message: how it continues the messages of its host before it.

    The message takes a reader from the change ``after`` to the change ``through`` of ``epoch``.
    ``previous`` is the id of the message before it, None of the first one. ``snapshot`` is the
    sequence in the stream at which the newest whole snapshot begins, 0: there is none yet.
    ``begins``: the message begins anew, with ``hello`` or ``lost``; ``whole``: behind it no
    snapshot is under way. ``id`` is RUN.N: the run of the publisher, and a number.
    """

    epoch: str
    after: int
    through: int
    previous: str | None
    snapshot: int
    begins: bool
    whole: bool
    id: str

    @property
    def run(self) -> str:
        """The run of the publisher that wrote the message."""
        return self.id.partition(".")[0]


def format_link(link: Link) -> str:
    """Return the value of the header."""
    flags = f"{'b' if link.begins else ''}{'w' if link.whole else ''}" or _NONE
    return (
        f"{VERSION} {link.epoch} {link.after} {link.through} {link.previous or _NONE} "
        f"{link.snapshot} {flags} {link.id}"
    )


def parse_link(value: str) -> Link:
    """Parse the value of the header. Raises InvalidFleetMessage."""
    found = _LINK.fullmatch(value)
    if found is None:
        raise InvalidFleetMessage(f"invalid header {value[:100]!r}")
    epoch, after, through, previous, snapshot, flags, identity = found.groups()
    if int(after) > int(through):
        raise InvalidFleetMessage(f"invalid header {value[:100]!r}: it goes back")
    return Link(
        epoch,
        int(after),
        int(through),
        None if previous == _NONE else previous,
        int(snapshot),
        "b" in flags,
        "w" in flags,
        identity,
    )


def subject(prefix: str, host: str) -> str:
    """Return the subject of a host. Raises InvalidFleetMessage for a name that none can have."""
    try:
        encoded = host.encode()
    except UnicodeEncodeError as error:
        raise InvalidFleetMessage("the host name is not valid text") from error
    if not encoded:
        raise InvalidFleetMessage("the host name is empty")
    token = "".join(chr(byte) if byte in _LITERAL else f"%{byte:02X}" for byte in encoded)
    return f"{prefix}.{token}"


def host_of(name: str) -> str:
    """Return the host of a subject. Raises InvalidFleetMessage."""
    prefix, _, token = name.rpartition(".")
    try:
        host = unquote_to_bytes(token).decode()
    except ValueError as error:
        raise InvalidFleetMessage(f"invalid subject {name[:100]!r}") from error
    # A host has one subject: others would be read as the same name.
    if not prefix or subject(prefix, host) != name:
        raise InvalidFleetMessage(f"invalid subject {name[:100]!r}")
    return host


def encode_body(records: bytes, encoding: str = "deflate") -> bytes:
    """Return the body of a message of whole records; ``encoding`` is deflate or none."""
    return zlib.compress(records, _LEVEL) if encoding == "deflate" else records


def decode_body(body: bytes, max_bytes: int = MAX_BODY_BYTES) -> bytes:
    """Return the records of a body. Raises InvalidFleetMessage, also where they have more than
    ``max_bytes``."""
    if body.startswith(_PLAIN):
        records = body
    else:
        inflating = zlib.decompressobj()
        try:
            records = inflating.decompress(body, max_bytes + 1)
        except zlib.error as error:
            raise InvalidFleetMessage(f"invalid body: {error}") from error
        if len(records) <= max_bytes and (not inflating.eof or inflating.unused_data):
            raise InvalidFleetMessage("invalid body: it has no end, or something after it")
    if len(records) > max_bytes:
        raise InvalidFleetMessage(f"invalid body: it has more than {max_bytes} bytes")
    return records


class Broker(NamedTuple):
    """Where a fleet's stream is: the URLs of the ``servers`` of one cluster, and the ``prefix`` of
    its subjects. ``user`` is None where a file of credentials names the user."""

    servers: tuple[str, ...]
    prefix: str
    user: str | None
    hosts: tuple[str, ...]

    @property
    def stream(self) -> str:
        """The name of the stream: the first word of the prefix, in upper case."""
        return self.prefix.partition(".")[0].upper()

    @property
    def is_encrypted(self) -> bool:
        """Whether the connection uses TLS."""
        return self.servers[0].startswith("tls:")


def no_stream(broker: Broker) -> str:
    """Return that a broker has no stream for a fleet, as a clause that says what to type."""
    return (
        f"there is no stream {broker.stream} with the subjects {broker.prefix}.> and allow_direct"
        f"{prefix_note(broker)}; sockagent fleet init makes it"
    )


def prefix_note(broker: Broker) -> str:
    """Return the end of a clause that names the prefix of the URL, if it has one."""
    return "" if broker.prefix == DEFAULT_PREFIX else f" (the prefix in the URL: {broker.prefix})"


def is_broker_url(url: str) -> bool:
    """Return whether a URL is one of a broker."""
    return url.startswith(("nats:", "tls:"))


def parse_broker(url: str) -> Broker:
    """Parse nats://[USER@]HOST[:PORT][,HOST[:PORT]...][/PREFIX], or the same with tls. Raises
    ValueError with a reason."""
    try:
        parts = urlsplit(url)
        user, at, names = parts.netloc.rpartition("@")
        servers = [urlsplit(f"{parts.scheme}://{name}") for name in names.split(",")]
        is_valid = parts.scheme in ("nats", "tls") and all(map(_is_server, servers))
    except ValueError:
        is_valid = False
    if not is_valid or parts.query or parts.fragment or (at and not user):
        raise ValueError(
            f"invalid URL {url!r}; expected nats://HOST:PORT/PREFIX or tls://HOST:PORT/PREFIX"
        )
    if ":" in user:
        raise ValueError(
            "every user can see a password in a URL with ps(1); put it in a file, and give that "
            "with --nats-creds"
        )
    prefix = parts.path.strip("/") or DEFAULT_PREFIX
    if not _PREFIX.fullmatch(prefix):
        raise ValueError(
            f"invalid prefix {prefix!r}; expected letters, digits, - and _, with dots between them"
        )
    hosts = tuple(server.hostname or "" for server in servers)
    return Broker(tuple(map(_with_port, servers)), prefix, user or None, hosts)


def _is_server(server: SplitResult) -> bool:
    return bool(server.hostname) and not server.path and server.port != 0


def _with_port(server: SplitResult) -> str:
    return server.geturl() if server.port else f"{server.geturl().rstrip(':')}:{_PORT}"
