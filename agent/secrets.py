"""What serving WebSocket subscribers takes, and what being one: secrets in files → rules and TLS.

It knows the configuration and the feed, and nothing of polls and records.
"""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from urllib.parse import urlsplit

from .address import ListenAddress
from .config import Config, Network
from .errors import ConfigFailure, FilterError, RuntimeFailure
from .log import log
from .publish.http.health import health
from .publish.http.page import PLAIN, Page, Reply
from .publish.websocket.access import Access, parse_tokens
from .publish.websocket.limits import Limits
from .publish.websocket.listen import Listener, open_listeners
from .publish.websocket.registry import Registry
from .publish.websocket.server import Rules, Server
from .remote.client import RemoteAgent
from .service.credentials import CredentialPaths, current_paths, is_world_readable, original_path
from .stream.feed import Feed
from .stream.filters import FILTERS, Filter

# A longer file is none of tokens or filters.
_FILE_BYTES = 64 * 1024
# Where a token for --connect may be, too.
TOKEN_VARIABLE = "SOCKAGENT_TOKEN"  # noqa: S105 (a name)
# What OpenSSL says of a file without a certificate or key.
_NO_PEM = frozenset({"NO_START_LINE", "NO_CERTIFICATE_OR_CRL_FOUND", "BAD_BASE64_DECODE"})
# A token that can be guessed is none.
SHORTEST_TOKEN = 16


class Serving:
    """A server with the rules that it was given, which may be read again."""

    def __init__(
        self, config: Config, feed: Feed, handed: Mapping[str, Sequence[int]] | None = None
    ) -> None:
        """``handed`` are the descriptors that systemd handed over, by name.

        Raises RuntimeFailure and ConfigFailure.
        """
        self._config = config
        network = config.network
        self._tls = tls = tls_of(network)
        rules = rules_of(config, network)
        self.registry = Registry(
            Limits(network.max_clients, network.max_clients_per_address, network.max_handshakes)
        )
        pages: dict[str, Page] = {"/healthz": partial(health, feed, config.interval)}
        try:
            from .publish.http.metrics import metrics

            pages["/metrics"] = metrics(feed, self.registry)
        except ImportError:
            pages["/metrics"] = lambda: Reply(
                501, PLAIN, b"metrics are not installed; run pip install '.[metrics]'\n"
            )
        listeners = listeners_of(network, tls, handed or {})
        self.server = Server(feed, listeners, rules, self.registry, pages)
        for listener in listeners:
            address = listener.address
            asked = "asks for a token" if rules.access.tokens else "asks for no token"
            if address.path is not None:
                log(f"listening on {address}, {asked}")
            else:
                log(f"listening on {'wss' if tls else 'ws'}://{address}/events, {asked}")
            if not (address.is_local or (network.token_file and tls)):
                log(f"warning: whoever reaches {address} may read the feed, or listen in")

    def reload(self) -> None:
        """Read tokens and certificates again, for who connects from now on, and filters, for all.

        What cannot be used leaves all as it was. Raises ConfigFailure.
        """
        network = self._config.network
        paths = current_paths(
            CredentialPaths(network.token_file, network.tls_cert, network.tls_key, network.tls_ca)
        )
        network = replace(network, **paths._asdict())
        rules = rules_of(self._config, network)
        if self._tls is not None:
            tls_of(network)  # First into another one, lest half of it counts.
            load(self._tls, network)
        self.server.set_rules(rules)


def rules_of(config: Config, network: Network) -> Rules:
    """The rules of the server. Raises ConfigFailure."""
    return Rules(access_of(network), config.filter & filter_of(network))


def filter_of(network: Network) -> Filter:
    """What subscribers may see at the most. Raises ConfigFailure."""
    path = network.filter_file
    if path is None:
        return Filter()
    values: dict[str, list[str]] = {}
    where = f"the filter file {path}"
    # Of a file that was named by mistake nothing is told but numbers of lines: it may hold secrets.
    for number, line in enumerate(_content(path, where).splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, _, value = line.partition("=")
        if name.strip() not in FILTERS:
            raise ConfigFailure(f"{where}, line {number}: it is no filter, as proto=tcp is")
        values.setdefault(name.strip(), []).append(value)
    if not values:
        raise ConfigFailure(f"{where}: there is no filter in it")
    try:
        return Filter(values)
    except FilterError as error:
        raise ConfigFailure(f"{where}: {error.argument}: {error}") from error


def _content(path: str, what: str) -> str:
    """A text file, all of it. Raises ConfigFailure."""
    try:
        with open(path, "rb") as file:
            content = file.read(_FILE_BYTES + 1)
        if len(content) > _FILE_BYTES:
            raise ConfigFailure(f"{what}: it is longer than {_FILE_BYTES} bytes")
        return content.decode()
    except OSError as error:
        raise ConfigFailure(f"{what}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigFailure(f"{what}: it is no UTF-8") from error


def listeners_of(
    network: Network, tls: ssl.SSLContext | None, handed: Mapping[str, Sequence[int]]
) -> list[Listener]:
    """The listening sockets. Raises RuntimeFailure and ConfigFailure."""
    listeners: list[Listener] = []
    try:
        for listen in network.listen:
            if listen.name is None:
                listeners += open_listeners(listen, network.socket_mode, tls)
            elif listen.name in handed:
                sockets = [socket.socket(fileno=one) for one in handed[listen.name]]
                listeners += (
                    Listener(listen, one, None if one.family == socket.AF_UNIX else tls)
                    for one in sockets
                )
            else:
                raise ConfigFailure(
                    f"systemd hands over no socket named {listen.name!r}: "
                    "systemctl restart sockagent.socket"
                )
        for listener in listeners:
            address = listener.address
            if not (address.is_local or network.insecure or (network.token_file and tls)):
                raise ConfigFailure(
                    f"other machines reach {address}: that takes a token file and a certificate"
                )
    except (RuntimeFailure, ConfigFailure):
        for listener in listeners:
            if listener.listen.name is None:
                listener.socket.close()
            else:  # It is systemd's.
                listener.socket.detach()
            listener.remove()
        raise
    return listeners


def access_of(network: Network) -> Access:
    """The rules. Raises ConfigFailure where the tokens cannot be read."""
    hosts = {"localhost", os.uname().nodename.lower(), *map(str.lower, network.allow_host)}
    hosts |= {listen.host.lower() for listen in network.listen if listen.path is None}
    return Access(
        tokens=() if network.token_file is None else _tokens(network.token_file),
        origins=frozenset(origin.lower().rstrip("/") for origin in network.allow_origin),
        hosts=frozenset(hosts),
    )


def _tokens(path: str) -> tuple[str, ...]:
    name = original_path(path)
    content = _content(path, f"the token file {name}")
    if not content.isascii():
        raise ConfigFailure(f"the token file {name}: tokens are ASCII")
    tokens = parse_tokens(content)
    if not tokens:
        raise ConfigFailure(f"the token file {name}: there is no token in it")
    if any(len(token) < SHORTEST_TOKEN or not token.isprintable() for token in tokens):
        raise ConfigFailure(
            f"the token file {name}: a token has at least {SHORTEST_TOKEN} printable characters"
        )
    if is_world_readable(path):
        log(f"warning: everybody may read the token file {name}")
    return tokens


def tls_of(network: Network) -> ssl.SSLContext | None:
    """What TLS takes; None without. Raises ConfigFailure."""
    if network.tls_cert is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    if network.tls_ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
    load(context, network)
    return context


def load(context: ssl.SSLContext, network: Network) -> None:
    """Load our certificate and the CA of the others', where there are any."""
    what = ""
    try:
        if network.tls_cert is not None:
            what = original_path(network.tls_cert)
            if network.tls_key is not None:
                what += f" with {original_path(network.tls_key)}"
                if is_world_readable(network.tls_key):
                    log(f"warning: everybody may read the key {original_path(network.tls_key)}")
            context.load_cert_chain(network.tls_cert, network.tls_key, password=_no_password)
        if network.tls_ca is not None:
            what = original_path(network.tls_ca)
            context.load_verify_locations(network.tls_ca)
    except ssl.SSLError as error:
        raise ConfigFailure(f"the certificate {what}: {_reason(error)}") from error
    except OSError as error:
        raise ConfigFailure(f"the certificate {what}: {error.strerror}") from error
    except ValueError as error:
        raise ConfigFailure(f"the certificate {what}: {error}") from error


def _reason(error: ssl.SSLError) -> str:
    """What OpenSSL means."""
    if error.reason == "KEY_VALUES_MISMATCH":
        return "the key is not that of the certificate"
    if error.reason in _NO_PEM or "PEM lib" in str(error):
        return "what it should hold in PEM is not there"
    return error.reason or str(error)


def _no_password() -> str:
    raise ValueError("its key is encrypted")


def remotes(config: Config) -> list[RemoteAgent]:
    """The agents to follow. Raises ConfigFailure."""
    network = config.network
    token = os.environ.get(TOKEN_VARIABLE)
    if network.token_file is not None:
        token = _tokens(network.token_file)[0]
    tls = None
    if any(url.startswith("wss:") for url in network.connect):
        tls = _client_tls(network)
    query = tuple(
        (name, value) for name, values in config.filter.values for value in sorted(values)
    )
    snapshots = "snapshot" in config.filter.events
    for url in network.connect:
        if token is not None and url.startswith("ws:") and not is_local(url):
            log(f"warning: the token goes to {url} for everybody to read; wss:// hides it")
    return [RemoteAgent(url, query, token, tls, snapshots) for url in network.connect]


def is_local(url: str) -> bool:
    """Whether a URL leads to this machine."""
    return ListenAddress(urlsplit(url).hostname or "", 0).is_local


def _client_tls(network: Network) -> ssl.SSLContext:
    context = ssl.create_default_context()
    load(context, network)
    return context
