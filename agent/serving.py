"""The WebSocket server as it is configured: listening sockets, rules from files, HTTP answers."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from .browser import open_page
from .config import INSECURE, Config, LocalPage, Network
from .errors import ConfigFailure, FilterError, RuntimeFailure
from .log import log
from .publish.http.assets import asset_pages
from .publish.http.pages import PLAIN, Page, Reply, fixed, health
from .publish.http.recordings import RECORDING_PATH
from .publish.websocket.listen import Listener, open_listeners
from .publish.websocket.registry import Limits, Registry
from .publish.websocket.router import EVENTS_PATH
from .publish.websocket.server import Rules, Server
from .secrets import access_rules, load_certificates, read_file, server_tls
from .service.credentials import CredentialPaths, current_paths
from .stream.feed import Feed
from .stream.filters import Filter, is_filter, split_filter
from .stream.merged import MergedFeed
from .stream.publication import Subscribable

_NO_METRICS = fixed(Reply(501, PLAIN, b"metrics are not installed; run pip install '.[metrics]'\n"))


class ConfiguredServer:
    """A server with the settings of one run. The files that these name can be read again."""

    def __init__(
        self,
        config: Config,
        feed: Subscribable,
        passed: Mapping[str, Sequence[int]],
        pages: Callable[[Registry], Mapping[str, Page]] = lambda _registry: {},
    ) -> None:
        """Listen. ``passed`` are the descriptors of sockets that systemd passed, by name; ``pages``
        returns the pages by path. Raises RuntimeFailure and ConfigFailure."""
        self._config = config
        network = config.network
        self._tls = server_tls(network)
        rules = _rules(config, network)
        self.registry = _registry(network)
        served = dict(pages(self.registry))
        if network.page:
            served |= asset_pages()
        listeners = listen(network, self._tls, passed)
        self.server = Server(feed, listeners, rules, self.registry, served)
        if network.local_page is None:
            self._log_listeners(listeners)
        else:
            _announce(listeners[0], network.local_page)

    def reload(self) -> None:
        """Read the files again: tokens and certificates apply to new connections, filters to all.
        If one of them cannot be used, nothing changes. Raises ConfigFailure."""
        network = self._config.network
        paths = current_paths(
            CredentialPaths(network.token_file, network.tls_cert, network.tls_key, network.tls_ca)
        )
        network = replace(network, **paths._asdict())
        rules = _rules(self._config, network)
        if self._tls is not None:
            # Try in another context first: a failure may leave a context with half of the files.
            server_tls(network)
            load_certificates(self._tls, network)
        self.server.set_rules(rules)

    def _log_listeners(self, listeners: Sequence[Listener]) -> None:
        network, tls = self._config.network, self._tls
        token = "token required" if network.token_file else "no token required"
        for listener in listeners:
            address = listener.address
            if address.path is not None:
                log(f"listening on {address}, {token}")
            else:
                log(f"listening on {'wss' if tls else 'ws'}://{address}/events, {token}")
            if not (address.is_local or (network.token_file and tls)):
                log(
                    f"warning: {address} accepts remote clients without token or without TLS; "
                    "other hosts may read or intercept the feed"
                )


def recording_server(network: Network, feed: Feed, recording: Page) -> Server:
    """Return a server of the page with a recording, which has no feed: ``feed`` is an empty one.
    Raises RuntimeFailure, ConfigFailure and OSError."""
    no_feed = f"this is a recording, at {RECORDING_PATH}; there is no feed\n".encode()
    pages = {
        **asset_pages(),
        RECORDING_PATH: recording,
        EVENTS_PATH: fixed(Reply(404, PLAIN, no_feed)),
    }
    listeners = listen(network, None, {})
    if network.local_page is not None:
        _announce(listeners[0], network.local_page, "?recording")
    return Server(feed, listeners, Rules(access_rules(network)), _registry(network), pages)


def _announce(listener: Listener, page: LocalPage, query: str = "") -> None:
    """Print the URL of the page of ``sockagent page``, and open it if that is wanted."""
    url = f"http://{listener.address}/{query}#token={page.token}"
    log(f"until ^C, the page is at {url}")
    if page.redirect is not None:
        open_page(url, page.redirect, os.environ)


def _registry(network: Network) -> Registry:
    return Registry(
        Limits(network.max_clients, network.max_clients_per_address, network.max_handshakes)
    )


def _rules(config: Config, network: Network) -> Rules:
    return Rules(access_rules(network), config.filter & read_filter(network.filter_file))


def agent_pages(feed: Feed, interval: float, registry: Registry) -> dict[str, Page]:
    """Return the pages of an agent that polls every ``interval`` seconds."""
    try:
        from .publish.http.metrics import metrics
    except ImportError:
        page = _NO_METRICS
    else:
        page = metrics(feed, registry)
    healthz = Page(partial(health, feed, interval), is_public=True)
    return {"/healthz": healthz, "/metrics": page}


def relay_metrics(merged: MergedFeed, registry: Registry) -> Page:
    """Return the page with the metrics of a relay."""
    try:
        from .publish.http.metrics import relay_metrics as metrics
    except ImportError:
        return _NO_METRICS
    return metrics(merged, registry)


def read_filter(path: str | None) -> Filter:
    """Read a filter file, which limits what subscribers may see; without a file they see all.
    Raises ConfigFailure. Messages do not quote the file, which may be one with secrets."""
    if path is None:
        return Filter()
    values: dict[str, list[str]] = {}
    name = f"filter file {path}"
    for number, line in enumerate(read_file(path, name).splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        filter_name, value = split_filter(line)
        if not is_filter(filter_name):
            raise ConfigFailure(
                f"{name}, line {number}: not a filter; expected for example proto=tcp"
            )
        values.setdefault(filter_name, []).append(value)
    if not values:
        raise ConfigFailure(f"{name}: no filter found; expected for example proto=tcp")
    try:
        return Filter(values)
    except FilterError as error:
        raise ConfigFailure(f"{name}: {error.argument}: {error}") from error


def listen(
    network: Network, tls: ssl.SSLContext | None, passed: Mapping[str, Sequence[int]]
) -> list[Listener]:
    """Open the listening sockets; take those that systemd passed. Raises RuntimeFailure and
    ConfigFailure, with all of them closed."""
    listeners: list[Listener] = []
    try:
        for address in network.listen:
            if address.name is None:
                listeners += open_listeners(address, network.socket_mode, tls)
            elif address.name in passed:
                for descriptor in passed[address.name]:
                    opened = socket.socket(fileno=descriptor)
                    is_unix = opened.family == socket.AF_UNIX
                    listeners.append(Listener(address, opened, None if is_unix else tls))
            else:
                raise ConfigFailure(
                    f"systemd passed no socket named {address.name!r}; "
                    "run systemctl restart sockagent.socket"
                )
        for listener in listeners:
            if not (listener.address.is_local or network.insecure or (network.token_file and tls)):
                raise ConfigFailure(f"{listener.address}: {INSECURE}")
    except (RuntimeFailure, ConfigFailure):
        for listener in listeners:
            if listener.listen.name is None:
                listener.close()
            else:  # systemd goes on to use it.
                listener.socket.detach()
        raise
    return listeners
