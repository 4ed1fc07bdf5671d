"""What serving WebSocket subscribers takes, and what being one: secrets in files → rules and TLS.

It knows the configuration and the feed, and nothing of polls and records.
"""

from __future__ import annotations

import os
import ssl
import stat
from functools import partial
from urllib.parse import urlsplit

from .config import Config, Network
from .connect import Remote
from .errors import RuntimeFailure
from .feed import Feed
from .publish.access import Access, parse_tokens
from .publish.health import health
from .publish.listening import Listen, Listener, opened
from .publish.websocket import Answer, Limits, Server
from .say import say

# A longer file is none of tokens.
_TOKEN_FILE_BYTES = 64 * 1024
# Where a token for --connect may be, too.
TOKEN_VARIABLE = "SOCKAGENT_TOKEN"  # noqa: S105 (a name)
# A token that can be guessed is none.
SHORTEST_TOKEN = 16


async def serve(config: Config, feed: Feed) -> Server:
    """A server that listens. Raises RuntimeFailure."""
    network = config.network
    access, tls = access_of(network), tls_of(network)
    limits = Limits(network.max_clients, network.max_clients_per_address, network.max_handshakes)
    answers: dict[str, Answer] = {"/healthz": partial(health, feed, config.interval)}
    server = Server(feed, access, limits, answers, narrowed=config.filter)
    try:
        from .publish.metrics import metrics

        answers["/metrics"] = metrics(feed, server)
    except ImportError:
        answers["/metrics"] = lambda: (
            501,
            "text/plain; charset=utf-8",
            b"metrics take the extra: pip install 'sockagent[metrics]'\n",
        )
    listeners = listeners_of(network)
    await server.listen(listeners, tls)
    for listener in listeners:
        scheme = "" if listener.listen.path else "wss://" if tls else "ws://"
        say(f"listening on {scheme}{listener.url}{'' if listener.listen.path else '/events'}")
    for listen in network.listen:
        if not listen.is_local and not (network.token_file and tls):
            say(f"warning: whoever reaches {listen} may read the feed, or listen in (--insecure)")
    return server


def listeners_of(network: Network) -> list[Listener]:
    """The listening sockets. Raises RuntimeFailure."""
    listeners: list[Listener] = []
    try:
        for listen in network.listen:
            listeners += opened(listen, network.socket_mode)
    except RuntimeFailure:
        for listener in listeners:
            listener.socket.close()
            listener.remove()
        raise
    return listeners


def access_of(network: Network) -> Access:
    """The rules. Raises RuntimeFailure where the tokens cannot be read."""
    hosts = {"localhost", os.uname().nodename.lower(), *map(str.lower, network.allow_host)}
    hosts |= {listen.host.lower() for listen in network.listen if listen.path is None}
    return Access(
        tokens=() if network.token_file is None else _tokens(network.token_file),
        origins=frozenset(origin.lower().rstrip("/") for origin in network.allow_origin),
        hosts=frozenset(hosts),
    )


def _tokens(path: str) -> tuple[str, ...]:
    try:
        with open(path, encoding="ascii") as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read(_TOKEN_FILE_BYTES)
    except OSError as error:
        raise RuntimeFailure(f"the token file {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise RuntimeFailure(f"the token file {path}: tokens are ASCII") from error
    tokens = parse_tokens(content)
    if not tokens:
        raise RuntimeFailure(f"the token file {path}: there is no token in it")
    if any(len(token) < SHORTEST_TOKEN or not token.isprintable() for token in tokens):
        raise RuntimeFailure(
            f"the token file {path}: a token has at least {SHORTEST_TOKEN} printable characters"
        )
    if stat.S_ISREG(mode) and mode & stat.S_IROTH:
        say(f"warning: everybody may read the token file {path}")
    return tokens


def tls_of(network: Network) -> ssl.SSLContext | None:
    """What TLS takes; None without. Raises RuntimeFailure."""
    if network.tls_cert is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    if network.tls_ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
    _load(context, network)
    return context


def _load(context: ssl.SSLContext, network: Network) -> None:
    """Load our certificate and the CA of the others', where there are any."""
    what = ""
    try:
        if network.tls_cert is not None:
            what = f"{network.tls_cert} with {network.tls_key}"
            context.load_cert_chain(network.tls_cert, network.tls_key, password=_no_password)
        if network.tls_ca is not None:
            what = network.tls_ca
            context.load_verify_locations(what)
    except ssl.SSLError as error:
        raise RuntimeFailure(f"the certificate {what}: {error.reason or error}") from error
    except OSError as error:
        raise RuntimeFailure(f"the certificate {what}: {error.strerror}") from error
    except ValueError as error:
        raise RuntimeFailure(f"the certificate {what}: {error}") from error


def _no_password() -> str:
    raise ValueError("its key is encrypted")


def remotes(config: Config) -> list[Remote]:
    """The agents to follow. Raises RuntimeFailure."""
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
            say(f"warning: the token goes to {url} for everybody to read; wss:// hides it")
    return [Remote(url, query, token, tls, snapshots) for url in network.connect]


def is_local(url: str) -> bool:
    """Whether a URL leads to this machine."""
    return Listen(urlsplit(url).hostname or "", 0).is_local


def _client_tls(network: Network) -> ssl.SSLContext:
    context = ssl.create_default_context()
    _load(context, network)
    return context
