"""Files with secrets: tokens → the rules of access, certificates and keys → TLS contexts."""

from __future__ import annotations

import os
import ssl

from .config import ClientFiles, Network
from .errors import ConfigFailure
from .log import log
from .publish.websocket.access import Access, parse_tokens
from .service.credentials import is_world_readable, original_path

# A larger file was named by mistake.
MAX_FILE_BYTES = 64 * 1024
# Shorter tokens can be guessed.
MIN_TOKEN_CHARS = 16
# The environment variable with the token for --connect.
TOKEN_VARIABLE = "SOCKAGENT_TOKEN"  # noqa: S105 (a name)
# OpenSSL's reasons for a file without a certificate or key.
_NO_PEM = frozenset({"NO_START_LINE", "NO_CERTIFICATE_OR_CRL_FOUND", "BAD_BASE64_DECODE"})


def read_file(path: str, name: str) -> str:
    """Read a text file; ``name`` names the file in messages. Raises ConfigFailure."""
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
        if len(content) > MAX_FILE_BYTES:
            raise ConfigFailure(f"{name}: larger than {MAX_FILE_BYTES} bytes")
        return content.decode()
    except OSError as error:
        raise ConfigFailure(f"{name}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigFailure(f"{name}: not UTF-8 text") from error


def read_tokens(path: str) -> tuple[str, ...]:
    """Read a token file. Raises ConfigFailure."""
    shown = original_path(path)
    name = f"token file {shown}"
    content = read_file(path, name)
    if not content.isascii():
        raise ConfigFailure(f"{name}: tokens must be ASCII")
    tokens = parse_tokens(content)
    if not tokens:
        raise ConfigFailure(f"{name}: no token found; expected one on each line")
    if any(len(token) < MIN_TOKEN_CHARS or not token.isprintable() for token in tokens):
        raise ConfigFailure(
            f"{name}: tokens must have at least {MIN_TOKEN_CHARS} printable characters"
        )
    if is_world_readable(path):
        log(f"warning: {name} is readable by every user; run chmod 600 {shown}")
    return tokens


def client_token(network: Network) -> str | None:
    """Return the token for remote agents: of the token file, or of the environment. Raises
    ConfigFailure."""
    path = network.client.token_file
    if path is not None:
        return read_tokens(path)[0]
    return os.environ.get(TOKEN_VARIABLE)


def access_rules(network: Network) -> Access:
    """Return who may connect to the server. Raises ConfigFailure."""
    hosts = {"localhost", os.uname().nodename.lower(), *map(str.lower, network.allow_host)}
    hosts |= {listen.host.lower() for listen in network.listen if listen.path is None}
    tokens = () if network.token_file is None else read_tokens(network.token_file)
    if network.local_page is not None:
        tokens = (network.local_page.token,)
    return Access(
        tokens=tokens,
        origins=frozenset(origin.lower().rstrip("/") for origin in network.allow_origin),
        hosts=frozenset(hosts),
    )


def server_tls(network: Network) -> ssl.SSLContext | None:
    """Return the TLS context of the server; None without a certificate. Raises ConfigFailure."""
    if network.tls_cert is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    if network.tls_ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
    load_certificates(context, network)
    return context


def client_tls(network: Network) -> ssl.SSLContext:
    """Return the TLS context for remote agents. Raises ConfigFailure."""
    context = ssl.create_default_context()
    load_certificates(context, network.client)
    return context


def load_certificates(context: ssl.SSLContext, files: Network | ClientFiles) -> None:
    """Load the certificate with its key, and the CA of the peers, as far as they are set. Raises
    ConfigFailure."""
    name = ""
    try:
        if files.tls_cert is not None:
            name = f"certificate {original_path(files.tls_cert)}"
            if files.tls_key is not None:
                key = original_path(files.tls_key)
                name += f" with key {key}"
                if is_world_readable(files.tls_key):
                    log(f"warning: key {key} is readable by every user; run chmod 600 {key}")
            context.load_cert_chain(files.tls_cert, files.tls_key, password=_no_password)
        if files.tls_ca is not None:
            name = f"CA certificate {original_path(files.tls_ca)}"
            context.load_verify_locations(files.tls_ca)
    except ssl.SSLError as error:
        raise ConfigFailure(f"{name}: {_reason(error)}") from error
    except OSError as error:
        raise ConfigFailure(f"{name}: {error.strerror}") from error
    except ValueError as error:
        raise ConfigFailure(f"{name}: {error}") from error


def _reason(error: ssl.SSLError) -> str:
    if error.reason == "KEY_VALUES_MISMATCH":
        return "the key does not belong to the certificate"
    if error.reason in _NO_PEM or "PEM lib" in str(error):
        return "not in PEM format"
    return error.reason or str(error)


def _no_password() -> str:
    raise ValueError("the key is encrypted; expected one without a passphrase")
