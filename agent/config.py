"""The settings of one run: frozen values, validated when they are made."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from .address import ListenAddress
from .errors import UsageError
from .fleet_settings import FleetSettings
from .snapshot.plan import SWEEP_SECONDS
from .snapshot.quota import Limits
from .stream.filters import Filter

if TYPE_CHECKING:  # Imported where it is used: most runs have no broker.
    from .stream.fleet import Broker

INTERVAL_SECONDS = 1.0
# On a large machine a poll takes longer than this.
MIN_INTERVAL_SECONDS = 0.05
MIN_STATS_SECONDS = 0.1
MIN_TIMEOUT_SECONDS = 0.1
MIN_CHECKPOINT_SECONDS = 1.0
MAX_SECONDS = 86_400.0
# What can be printed, and what of it has columns, and goes on without an end.
FORMATS = ("ndjson", "json", "summary", "table", "wide", "log", "csv", "tsv", "pid")
_WITH_COLUMNS = ("table", "wide", "csv", "tsv")
ENDLESS_FORMATS = ("ndjson", "log")
COLORS = ("auto", "always", "never")
# How messages for a broker are compressed.
ENCODINGS = ("deflate", "none")
SOCKET_MODE = 0o600
BROKER_INSECURE = "a broker at a non-loopback address requires tls:// (or --insecure)"
INSECURE = (
    "listening on a non-loopback address requires --token-file, --tls-cert and --tls-key "
    "(or --insecure)"
)
# What an option of fleets requires.
FLEET = "--connect nats://HOST:PORT or tls://HOST:PORT"
_HOST = re.compile(r"[\w.-]+")
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://([\w.-]+|\[[0-9a-f:.]+\])(:\d+)?/?", re.IGNORECASE)

_USER_LIMITS = Limits()
# Settings of reading sockets, which an agent that only prints remote feeds does not do.
_USER_LIMIT_SETTINGS = ("max_user_descriptors", "max_user_holdings", "max_user_namespaces")
_READ_SETTINGS = (
    "interval", "sweep", "stats", "all", "cmdline", "proc", "source", "events", "events_udp",
    *_USER_LIMIT_SETTINGS,
)  # fmt: skip
# Settings of a server that are settings of a client, too. A relay is both: they are those of its
# server, and with connect_ before the name those of its client.
_CLIENT_SETTINGS = ("token_file", "tls_cert", "tls_key", "tls_ca")
_CONNECT_SETTINGS = tuple(f"connect_{name}" for name in _CLIENT_SETTINGS)

_PUBLISH_SETTINGS = ("publish_encoding", "nats_creds")
# Settings that apply to a broker. Beside --listen, where tls_... are those of the server, they have
# connect_ before the name.
_BROKER_SETTINGS = (
    *_PUBLISH_SETTINGS, "insecure", "tls_cert", "tls_key", "tls_ca", "connect_tls_cert",
    "connect_tls_key", "connect_tls_ca",
)  # fmt: skip


class ClientFiles(NamedTuple):
    """The files of the client that follows remote agents; None: not set."""

    token_file: str | None
    tls_cert: str | None
    tls_key: str | None
    tls_ca: str | None


@dataclass(frozen=True, slots=True)
class LocalPage:
    """The page of ``sockagent page``: the token that it requires, and the path of a file that is
    to lead a browser to it; None: no browser is opened."""

    token: str = field(repr=False)
    redirect: str | None = None


def _option(setting: str) -> str:
    return "no-page" if setting == "page" else setting.replace("_", "-")


@dataclass(frozen=True, slots=True)
class Network:
    """Settings of the WebSocket server, of the client that follows remote agents, or of a relay,
    which is both. Files are given by path. Raises UsageError."""

    listen: tuple[ListenAddress, ...] = ()
    connect: tuple[str, ...] = ()  # URLs of remote agents. If set, no local sockets are read.
    publish: str | None = None  # URL of a broker.
    publish_encoding: str = ENCODINGS[0]
    nats_creds: str | None = None
    token_file: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None
    tls_ca: str | None = None
    connect_token_file: str | None = None
    connect_tls_cert: str | None = None
    connect_tls_key: str | None = None
    connect_tls_ca: str | None = None
    filter_file: str | None = None
    allow_host: tuple[str, ...] = ()
    allow_origin: tuple[str, ...] = ()
    insecure: bool = False
    page: bool = True  # Whether the page for browsers is served.
    local_page: LocalPage | None = None
    socket_mode: int = SOCKET_MODE
    max_clients: int = 1000
    max_clients_per_address: int = 250
    max_handshakes: int = 200

    def __post_init__(self) -> None:
        self._check_role()
        self._check_names()
        self._check_certificates()
        for name in ("max_clients", "max_clients_per_address", "max_handshakes"):
            if getattr(self, name) < 1:
                raise UsageError(_option(name), "must be at least 1")
        if not 0 <= self.socket_mode <= 0o777:
            raise UsageError("socket-mode", "must be an octal mode up to 777, for example 660")
        for url in self.connect:
            broker = _check_url(url)
            if broker is not None and not (self.is_safe_broker(broker) or self.insecure):
                raise UsageError("connect", f"{url}: {BROKER_INSECURE}")
        if self.publish is not None:
            self._check_publish(self.publish)
        for listen in self.listen:
            if not (listen.is_local or self.insecure or (self.token_file and self.tls_cert)):
                raise UsageError("listen", f"{listen}: {INSECURE}")

    def _check_certificates(self) -> None:
        for prefix in ("", "connect_"):
            cert, key = f"{prefix}tls_cert", f"{prefix}tls_key"
            for missing, given in ((cert, key), (key, cert)):
                if getattr(self, missing) is None and getattr(self, given) is not None:
                    raise UsageError(_option(missing), f"required with --{_option(given)}")
        if self.listen and self.tls_ca is not None and self.tls_cert is None:
            # A server without a certificate requires none of its clients.
            if not (self.connect or self.publish):
                raise UsageError("tls-ca", "requires --tls-cert and --tls-key")
            if self.connect_tls_ca is not None:
                raise UsageError("tls-ca", "requires --tls-cert; --connect-tls-ca is given too")

    def _check_publish(self, url: str) -> None:
        from .stream.fleet import parse_broker

        try:
            broker = parse_broker(url)
        except ValueError as error:
            raise UsageError("publish", str(error)) from error
        if not (self.is_safe_broker(broker) or self.insecure):
            raise UsageError("publish", f"{url}: {BROKER_INSECURE}")
        if broker.user is not None and self.nats_creds is None:
            raise UsageError("publish", f"the password of {broker.user} requires --nats-creds")
        if self.publish_encoding not in ENCODINGS:
            raise UsageError("publish-encoding", f"expected {' or '.join(ENCODINGS)}")
        if self.connect and (self.listen or len(self.connect) > 1):
            raise UsageError("publish", "publishes one agent; give one URL with --connect")

    @staticmethod
    def is_safe_broker(broker: Broker) -> bool:
        """Return whether the connection to a broker is encrypted, or does not leave the machine."""
        hosts = (ListenAddress(host, 0) for host in broker.hosts)
        return broker.is_encrypted or all(host.is_local for host in hosts)

    def _check_role(self) -> None:
        """Check that each setting belongs to the role of this agent, server or client."""
        for name, setting in Network.__dataclass_fields__.items():
            if getattr(self, name) == setting.default or name in ("listen", "connect", "publish"):
                continue
            if self.publish is not None and name in _BROKER_SETTINGS:
                continue
            if name in ("nats_creds", "insecure") and self.has_fleet:
                continue
            if name in _PUBLISH_SETTINGS:
                other = f", or {FLEET}" if name == "nats_creds" else ""
                raise UsageError(_option(name), f"requires --publish{other}")
            if name in _CONNECT_SETTINGS:
                if not self.connect:
                    raise UsageError(_option(name), "requires --connect")
                other = name.removeprefix("connect_")
                if not self.listen and getattr(self, other) is not None:
                    raise UsageError(_option(name), f"cannot be combined with --{_option(other)}")
            elif not (self.listen or (self.connect and name in _CLIENT_SETTINGS)):
                role = "--listen or --connect" if name in _CLIENT_SETTINGS else "--listen"
                raise UsageError(_option(name), f"requires {role}")

    @property
    def has_fleet(self) -> bool:
        """Whether records are read from a broker."""
        from .stream.fleet import is_broker_url

        return any(map(is_broker_url, self.connect))

    @property
    def client(self) -> ClientFiles:
        """The files of the client."""
        own = ClientFiles(*(getattr(self, name) for name in _CONNECT_SETTINGS))
        if self.listen:
            # Beside a server without a certificate, --tls-ca is of the client.
            is_shared = self.tls_ca is not None and self.tls_cert is None
            return own._replace(tls_ca=self.tls_ca) if is_shared else own
        shared = (getattr(self, name) for name in _CLIENT_SETTINGS)
        return ClientFiles(*(one or other for one, other in zip(own, shared, strict=True)))

    def _check_names(self) -> None:
        if len(set(self.connect)) < len(self.connect):
            raise UsageError("connect", "the same URL is given twice")
        for origin in self.allow_origin:
            if not _ORIGIN.fullmatch(origin):
                raise UsageError(
                    "allow-origin",
                    f"invalid origin {origin!r}; expected for example https://dash.example",
                )
        for host in self.allow_host:
            if not _HOST.fullmatch(host):
                raise UsageError(
                    "allow-host",
                    f"invalid name {host!r}; expected a name without port, "
                    "for example proxy.example",
                )


def _check_seconds(option: str, seconds: float, minimum: float) -> None:
    if not minimum <= seconds <= MAX_SECONDS:
        raise UsageError(option, f"must be a number of seconds from {minimum} to {MAX_SECONDS:.0f}")


def _check_url(url: str) -> Broker | None:
    """Return the broker of a URL of one. Raises UsageError."""
    if url.startswith("unix:") and len(url) > len("unix:"):
        return None
    from .stream.fleet import is_broker_url, parse_broker

    if is_broker_url(url):
        try:
            return parse_broker(url)
        except ValueError as error:
            raise UsageError("connect", str(error)) from None
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(url)
        is_valid = parts.scheme in ("ws", "wss") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_valid = False
    if not is_valid or parts.fragment:
        raise UsageError(
            "connect",
            f"invalid URL {url!r}; expected ws://HOST:PORT, wss://HOST:PORT, unix:PATH, "
            "nats://HOST:PORT or tls://HOST:PORT",
        )
    if parts.username is not None:
        raise UsageError(
            "connect", "every user can see a password in a URL with ps(1); use --token-file"
        )
    return None


@dataclass(frozen=True, slots=True)
class View:
    """What is printed, and how. Raises UsageError.

    ``output`` is one of FORMATS, None: whatever suits standard output. ``targets``: a target or
    filter is given. ``answers``: the exit status says whether something matched. ``read`` is the
    path of a recording, ``at`` the time at which it is shown, as text. ``top``: nothing is printed,
    a screen shows it; ``read_only``: the screen sends no signals.
    """

    output: str | None = None
    columns: tuple[str, ...] = ()
    sort: str | None = None
    header: bool = True
    color: str = "auto"
    utc: bool = False
    resolve: bool = False
    services: bool = False
    quiet: bool = False
    timeout: float | None = None  # Seconds after which following ends.
    targets: bool = False
    answers: bool = False
    read: str | None = None
    at: str | None = None
    top: bool = False
    read_only: bool = False

    def __post_init__(self) -> None:
        if self.timeout is not None:
            _check_seconds("timeout", self.timeout, MIN_TIMEOUT_SECONDS)
        if self.quiet and self.output is not None:
            raise UsageError("quiet", f"prints nothing; remove -o {self.output}")
        if self.sort is not None and not self.sort.removeprefix("-"):
            raise UsageError("sort", "empty name; expected for example pid or -recv_q")
        if self.output is not None:
            for name in ("columns", "sort"):
                if getattr(self, name) and self.output not in _WITH_COLUMNS:
                    raise UsageError(name, f"{self.output} has no columns; use -o table or csv")
            if not self.header and self.output not in (*_WITH_COLUMNS, "summary"):
                raise UsageError("no-header", f"{self.output} has no header; remove --no-header")
        if self.at is not None and self.read is None:
            raise UsageError("at", "shows a recording; add --read FILE")
        if self.at is not None and self.output == "log":
            raise UsageError("at", "shows one moment; use -o table")


@dataclass(frozen=True, slots=True)
class Config:
    """The settings of one run. Raises UsageError, which names the option at fault."""

    follow: bool = False
    interval: float = INTERVAL_SECONDS  # Seconds from one poll to the next.
    sweep: float = SWEEP_SECONDS  # Seconds in which every descriptor is read again.
    stats: float | None = None  # Seconds between two log lines about the cost of polls.
    all: bool = False
    cmdline: bool = False
    proc: str = "/proc"
    # Where socket tables are read: procfs, netlink (sock_diag), or auto: netlink if it works.
    source: str = "auto"
    # Whether trace events are read: on, off, or auto: where they can be read.
    events: str = "auto"
    checkpoint: float | None = None  # Seconds from one snapshot in the stream to the next.
    events_udp: bool = False  # Whether to read the events that show who sends datagrams, too.
    # What one user other than root may have before the rest is read late.
    max_user_descriptors: int = _USER_LIMITS.descriptors
    max_user_holdings: int = _USER_LIMITS.holdings
    max_user_namespaces: int = _USER_LIMITS.namespaces
    filter: Filter = field(default_factory=Filter)
    network: Network = field(default_factory=Network)
    view: View = field(default_factory=View)
    fleet: FleetSettings = field(default_factory=FleetSettings)

    @property
    def limits(self) -> Limits:
        """The limits of each user."""
        return Limits(self.max_user_descriptors, self.max_user_holdings, self.max_user_namespaces)

    @property
    def is_continuous(self) -> bool:
        """Whether the agent keeps running after the first snapshot."""
        network = self.network
        return self.follow or bool(network.listen or network.connect or network.publish)

    @property
    def prints_stream(self) -> bool:
        """Whether the stream is printed, of this machine or of remote agents."""
        network = self.network
        return self.follow or bool(network.connect and not (network.listen or network.publish))

    def __post_init__(self) -> None:
        _check_seconds("interval", self.interval, MIN_INTERVAL_SECONDS)
        _check_seconds("sweep", self.sweep, MIN_INTERVAL_SECONDS)
        for name in _USER_LIMIT_SETTINGS:
            if getattr(self, name) < 1:
                raise UsageError(_option(name), "must be at least 1")
        if self.stats is not None:
            _check_seconds("stats", self.stats, MIN_STATS_SECONDS)
        if self.events == "on" and not self.is_continuous:
            raise UsageError("events", "on requires --follow or --listen")
        if self.events_udp and self.events == "off":
            raise UsageError("events-udp", "cannot be combined with --events off")
        if self.events_udp and not self.is_continuous:
            raise UsageError("events-udp", "requires --follow or --listen")
        if self.stats is not None and not self.is_continuous:
            raise UsageError("stats", "requires --follow or --listen")
        is_short = not (self.is_continuous or self.view.read)
        if "snapshot" not in self.filter.events and is_short:
            raise UsageError("event", "records other than snapshot require --follow")
        if self.network.connect:
            self._check_nothing_is_read(_READ_SETTINGS, "--connect; set it on the remote agent")
        if self.view.read is not None:
            self._check_recording()
        self._check_view()
        self._check_checkpoint()
        if self.network.publish:
            self._check_publish()
        self._check_fleet()
        if self.all and self.is_continuous:
            raise UsageError("all", "cannot be combined with --follow or --listen")

    def _check_nothing_is_read(self, settings: Iterable[str], option: str) -> None:
        for name in settings:
            if getattr(self, name) != Config.__dataclass_fields__[name].default:
                raise UsageError(_option(name), f"cannot be combined with {option}")

    def _check_checkpoint(self) -> None:
        if self.checkpoint is None:
            return
        _check_seconds("checkpoint", self.checkpoint, MIN_CHECKPOINT_SECONDS)
        if not (self.prints_stream or self.network.publish):
            raise UsageError("checkpoint", "requires --follow, --connect or --publish")
        if "snapshot" not in self.filter.events:
            raise UsageError("checkpoint", "repeats the snapshot, which --event excludes")
        if self.view.output not in (None, "ndjson") or self.view.quiet:
            raise UsageError("checkpoint", "requires -o ndjson")

    def _check_publish(self) -> None:
        if "snapshot" not in self.filter.events:
            raise UsageError("event", "--publish requires snapshot: readers begin with one")
        if self.network.connect and self.follow:
            raise UsageError("follow", "--publish with --connect prints nothing; remove --follow")

    def _check_recording(self) -> None:
        for name in ("listen", "connect", "publish"):
            if getattr(self.network, name) and self.network.local_page is None:
                raise UsageError("read", f"cannot be combined with --{name}")
        if self.follow:
            raise UsageError("read", "cannot be combined with --follow; use -o log")
        # What --all adds to a summary is in the recording.
        settings = (name for name in _READ_SETTINGS if name != "all")
        self._check_nothing_is_read(settings, "--read; a recording shows what it has")

    def _check_fleet(self) -> None:
        """Check what is asked of a fleet."""
        fleet, connect = self.fleet, self.network.connect
        if fleet == FleetSettings():
            return
        from .stream.fleet import is_broker_url

        if fleet.since != "now" and not self.network.has_fleet:
            raise UsageError("since", f"requires {FLEET}")
        if fleet.record is None:
            return
        if len(connect) != 1 or not is_broker_url(connect[0]):
            raise UsageError("record", f"requires {FLEET}, once")
        view = self.view
        if self.network.listen or self.follow or view.output or view.quiet:
            raise UsageError("record", "prints and serves nothing; remove --listen, -f, -o and -q")

    def _check_view(self) -> None:
        """Check that what is printed can be printed of a snapshot, a stream or a recording."""
        view = self.view
        if view.timeout is not None and not self.prints_stream:
            raise UsageError("timeout", "ends --follow; add --follow")
        if not self.is_continuous:
            if view.output == "log" and view.read is None:
                raise UsageError("output", "log shows changes; add --follow, or use -o table")
            return
        if not self.prints_stream:
            for name in ("output", "quiet"):
                if getattr(view, name):
                    option = "publish" if self.network.publish else "listen"
                    raise UsageError(name, f"--{option} prints nothing; add --follow")
        if view.output is not None and view.output not in ENDLESS_FORMATS:
            other = "ndjson" if view.output in ("json", "csv", "tsv") else "log"
            what = f"{view.output} shows one snapshot"
            if self.network.connect and not self.network.listen:
                raise UsageError(
                    "output",
                    f"{what}; with --connect use -o {other}, or pipe what --connect URL "
                    f"--timeout 3 prints into sockagent --read - -o {view.output}",
                )
            raise UsageError("output", f"{what}; with --follow use -o {other}")
        for name in ("columns", "sort"):
            if getattr(view, name):
                raise UsageError(name, "cannot be combined with --follow; it is for one snapshot")
