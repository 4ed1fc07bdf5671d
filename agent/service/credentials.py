"""The service's credentials, systemd.exec(5): where systemd put copies of secrets as it started
us, and where the administrator keeps them. It knows what they stand for, not their content.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Container
from contextlib import suppress
from dataclasses import replace

from ..config import Network
from ..errors import ConfigFailure

# Where the copies are, and, as our unit tells, where they come from.
COPIES_VARIABLE, SOURCE_VARIABLE = "CREDENTIALS_DIRECTORY", "SOCKAGENT_CREDENTIALS"
# Credentials by the setting that they stand for.
_NAMES = {
    "token_file": "tokens",
    "tls_cert": "tls.crt",
    "tls_key": "tls.key",
    "tls_ca": "tls-ca.crt",
}
# What our unit gives in place of a file that is not there: it may not be empty.
_NOTHING = b"(none)"


def find_credentials(options: Container[str]) -> dict[str, str]:
    """The copies that there are, by setting, but for those that ``options`` set.

    Raises ConfigFailure where one of certificate and key is missing, or is no file.
    """
    copies, source = os.environ.get(COPIES_VARIABLE), os.environ.get(SOURCE_VARIABLE)
    found = _found(copies)
    for setting, name in _NAMES.items() if source else ():
        if setting in found or setting in options or not os.path.exists(f"{copies}/{name}"):
            continue
        # systemd could make nothing of it: a directory, or a link to nowhere.
        if os.path.lexists(f"{source}/{name}"):
            raise ConfigFailure(f"{source}/{name} is no file that can be read")
    for one, other in (("tls_cert", "tls_key"), ("tls_key", "tls_cert")):
        if one in found and not (other in found or other in options or one in options):
            there, missing = found[one], f"{os.path.dirname(found[one])}/{_NAMES[other]}"
            raise ConfigFailure(
                f"{original_path(there)} is there, but {original_path(missing)} is not"
            )
    return {setting: path for setting, path in found.items() if setting not in options}


def current_paths(network: Network) -> Network:
    """The settings, with the secrets from where systemd took them: it hands over no new copies.

    Raises ConfigFailure where a secret is gone, or comes that takes a restart: what was in force is
    to stay so.
    """
    copies, source = os.environ.get(COPIES_VARIABLE), os.environ.get(SOURCE_VARIABLE)
    if not copies or not source:
        return network
    fresh = _found(source)

    def now(setting: str, path: str | None) -> str | None:
        if path is not None and os.path.dirname(path) != copies:
            return path  # No credential: the administrator's own choice.
        if path is None and not os.path.exists(f"{copies}/{_NAMES[setting]}"):
            return None  # None that the unit hands over.
        if path is not None and setting not in fresh:
            raise ConfigFailure(f"{original_path(path)} is gone; to do without it takes a restart")
        if path is None and setting in fresh and setting != "token_file":
            raise ConfigFailure(f"{fresh[setting]} is new; TLS begins with a restart")
        return fresh.get(setting)

    return replace(
        network,
        token_file=now("token_file", network.token_file),
        tls_cert=now("tls_cert", network.tls_cert),
        tls_key=now("tls_key", network.tls_key),
        tls_ca=now("tls_ca", network.tls_ca),
    )


def original_path(path: str) -> str:
    """A path as the administrator knows it: of a copy, where it came from."""
    copies, source = os.environ.get(COPIES_VARIABLE), os.environ.get(SOURCE_VARIABLE)
    if copies and source and os.path.dirname(path) == copies:
        return f"{source}/{os.path.basename(path)}"
    return path


def is_world_readable(path: str) -> bool:
    """Whether any user may read the file, or that which a copy came from."""
    path = original_path(path)
    try:
        file, directory = os.stat(path), os.stat(os.path.dirname(path) or ".")
    except OSError:
        return False
    opened = stat.S_ISREG(file.st_mode) and directory.st_mode & stat.S_IXOTH
    return bool(opened and file.st_mode & stat.S_IROTH)


def _found(directory: str | None) -> dict[str, str]:
    """The files of a directory that are there, by setting; an empty one is."""
    found: dict[str, str] = {}
    for setting, name in _NAMES.items() if directory else ():
        path = f"{directory}/{name}"
        with suppress(OSError), open(path, "rb") as file:
            if file.read(len(_NOTHING) + 1) != _NOTHING:
                found[setting] = path
    return found
