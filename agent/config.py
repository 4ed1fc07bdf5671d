"""What the agent is asked to do: one frozen value, validated once. It knows no argparse."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from .address import ListenAddress
from .errors import UsageError
from .publish.websocket.limits import LIMITS
from .snapshot.plan import SWEEP_SECONDS
from .snapshot.quota import Limits
from .stream.filters import Filter

INTERVAL_SECONDS = 1.0
# Below this a poll of a large machine takes longer than the time between two.
SHORTEST_INTERVAL_SECONDS = 0.05
# Below this the lines are of no use to a reader.
SHORTEST_STATS_SECONDS = 0.1

# A day: whoever looks less often has no use for an agent.
LONGEST_SECONDS = 86_400.0
SOCKET_MODE = 0o600
_HOST = re.compile(r"[\w.-]+")
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://([\w.-]+|\[[0-9a-f:.]+\])(:\d+)?/?", re.IGNORECASE)

# Where the tables are read: text in procfs, sock_diag over netlink, or netlink where it works.
SOURCES = ("auto", "procfs", "netlink")
LIMITS_OF_USERS = Limits()
# Settings of what is read, and how.
_READING = ("interval", "sweep", "stats", "all", "cmdline", "proc", "source")
_USER_LIMITS = ("max_user_descriptors", "max_user_holdings", "max_user_namespaces")


@dataclass(frozen=True, slots=True)
class Network:
    """How WebSocket subscribers are served, or others' feeds asked for. The files are paths.

    Raises UsageError.
    """

    listen: tuple[ListenAddress, ...] = ()
    connect: tuple[str, ...] = ()  # URLs: then others are asked, and nothing is read here.
    token_file: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None
    tls_ca: str | None = None
    filter_file: str | None = None
    allow_host: tuple[str, ...] = ()
    allow_origin: tuple[str, ...] = ()
    insecure: bool = False
    socket_mode: int = SOCKET_MODE
    max_clients: int = LIMITS.clients
    max_clients_per_address: int = LIMITS.clients_per_address
    max_handshakes: int = LIMITS.handshakes

    def __post_init__(self) -> None:
        if self.listen and self.connect:
            raise UsageError("connect", "it does not go with --listen")
        self._check_places()
        self._check_names()
        if (self.tls_cert is None) != (self.tls_key is None):
            missing = "tls-cert" if self.tls_cert is None else "tls-key"
            raise UsageError(missing, "certificate and key are given together")
        if self.listen and self.tls_ca is not None and self.tls_cert is None:
            raise UsageError("tls-ca", "it takes --tls-cert and --tls-key")
        for name in ("max_clients", "max_clients_per_address", "max_handshakes"):
            if getattr(self, name) < 1:
                raise UsageError(name.replace("_", "-"), "must be at least 1")
        if not 0 <= self.socket_mode <= 0o777:
            raise UsageError("socket-mode", "must be an octal number up to 777")
        for url in self.connect:
            _check_url(url)
        for listen in self.listen:
            if not (listen.is_local or self.insecure):
                self._check_exposed(listen)

    def _check_places(self) -> None:
        """Each setting is for one side, or for both."""
        ours = ["token_file", "tls_cert", "tls_key", "tls_ca"]  # Of a client, too.
        for name, setting in Network.__dataclass_fields__.items():
            if self.listen or name in ("listen", "connect") or (self.connect and name in ours):
                continue
            if getattr(self, name) != setting.default:
                which = "--listen or --connect" if name in ours else "--listen"
                raise UsageError(name.replace("_", "-"), f"it goes with {which}")

    def _check_names(self) -> None:
        if len(set(self.connect)) < len(self.connect):
            raise UsageError("connect", "the same URL is given twice")
        for origin in self.allow_origin:
            if not _ORIGIN.fullmatch(origin):
                raise UsageError("allow-origin", f"{origin!r} is none, as https://dash.example is")
        for host in self.allow_host:
            if not _HOST.fullmatch(host):
                raise UsageError("allow-host", f"{host!r} is no name, which has no port")

    def _check_exposed(self, listen: ListenAddress) -> None:
        missing = [] if self.token_file else ["--token-file"]
        if self.tls_cert is None:
            missing += ["--tls-cert", "--tls-key"]
        if missing:
            raise UsageError(
                "listen",
                f"other machines reach {listen}: that takes {' and '.join(missing)}; "
                "--insecure does without",
            )


def _check_seconds(name: str, seconds: float, least: float) -> None:
    if not least <= seconds <= LONGEST_SECONDS:
        raise UsageError(name, f"must be a number of seconds, {least} to {LONGEST_SECONDS:.0f}")


def _check_url(url: str) -> None:
    if url.startswith("unix:") and len(url) > len("unix:"):
        return
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(url)
        fine = parts.scheme in ("ws", "wss") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        fine = False
    if not fine or parts.fragment:
        raise UsageError("connect", f"{url!r} is none of ws://HOST:PORT, wss://… and unix:PATH")
    if parts.username is not None:
        raise UsageError("connect", "a URL shows in every list of processes: --token-file is safe")


@dataclass(frozen=True, slots=True)
class Config:
    """The settings of one run. Raises UsageError, naming the option at fault."""

    follow: bool = False
    interval: float = INTERVAL_SECONDS  # Seconds from one poll to the next.
    sweep: float = SWEEP_SECONDS  # Seconds in which everything is read again.
    stats: float | None = None  # Seconds between two lines about the agent itself.
    all: bool = False
    cmdline: bool = False
    proc: str = "/proc"
    source: str = "auto"  # One of SOURCES.
    # What one user but root may have before the rest is read late.
    max_user_descriptors: int = LIMITS_OF_USERS.descriptors
    max_user_holdings: int = LIMITS_OF_USERS.holdings
    max_user_namespaces: int = LIMITS_OF_USERS.namespaces
    filter: Filter = field(default_factory=Filter)
    network: Network = field(default_factory=Network)

    @property
    def limits(self) -> Limits:
        """What one user may have before the rest is read late."""
        return Limits(self.max_user_descriptors, self.max_user_holdings, self.max_user_namespaces)

    @property
    def polls(self) -> bool:
        """Whether it goes on after the first snapshot."""
        return self.follow or bool(self.network.listen or self.network.connect)

    def __post_init__(self) -> None:
        _check_seconds("interval", self.interval, SHORTEST_INTERVAL_SECONDS)
        _check_seconds("sweep", self.sweep, SHORTEST_INTERVAL_SECONDS)
        for name in _USER_LIMITS:
            if getattr(self, name) < 1:
                raise UsageError(name.replace("_", "-"), "must be at least 1")
        if self.stats is not None:
            _check_seconds("stats", self.stats, SHORTEST_STATS_SECONDS)
        if self.stats is not None and not self.polls:
            raise UsageError("stats", "there are polls to tell of only with --follow or --listen")
        if "snapshot" not in self.filter.events and not self.polls:
            raise UsageError("event", "without --follow there are only snapshot records")
        if self.network.connect:
            settings = Config.__dataclass_fields__
            for name in (*_READING, *_USER_LIMITS):
                if getattr(self, name) != settings[name].default:
                    raise UsageError(
                        name.replace("_", "-"), "it is for the agent that reads, not for --connect"
                    )
        if self.all and self.polls:
            raise UsageError("all", "only a one-shot snapshot has rows that no process can hold")
