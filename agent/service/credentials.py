"""Credentials of the service, systemd.exec(5).

systemd copies the secrets into a directory of the service when it starts the service. It does not
copy them again at a reload, so that a reload reads the files which the copies were made from.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Container
from contextlib import suppress
from typing import NamedTuple

from ..errors import ConfigFailure

# The directory of the copies, set by systemd, and that of the originals, set by our unit.
COPIES_VARIABLE, SOURCE_VARIABLE = "CREDENTIALS_DIRECTORY", "SOCKAGENT_CREDENTIALS"
# Content of the copy of a file that does not exist: the unit cannot give an empty default.
_ABSENT = b"(none)"


class CredentialPaths(NamedTuple):
    """The settings that are paths of secrets; None: not set."""

    token_file: str | None
    tls_cert: str | None
    tls_key: str | None
    tls_ca: str | None


# Names of the credentials by the setting that they are the default of.
_NAMES: dict[str, str] = CredentialPaths("tokens", "tls.crt", "tls.key", "tls-ca.crt")._asdict()


def find_credentials(options: Container[str]) -> dict[str, str]:
    """Return the paths of the copies by setting, without the settings in ``options``.

    Raises ConfigFailure if there is a certificate without a key or a key without a certificate, and
    if systemd could not copy a file.
    """
    copies, source = _directories()
    found = _files(copies)
    for setting, name in _NAMES.items() if source else ():
        if setting in found or setting in options or not os.path.exists(f"{copies}/{name}"):
            continue
        # systemd uses the default for what it cannot copy: a directory or a dangling link.
        if os.path.lexists(f"{source}/{name}"):
            raise ConfigFailure(f"{source}/{name} is not a readable file")
    for one, other in (("tls_cert", "tls_key"), ("tls_key", "tls_cert")):
        if one in found and not (other in found or other in options or one in options):
            missing = f"{os.path.dirname(found[one])}/{_NAMES[other]}"
            there, missing = original_path(found[one]), original_path(missing)
            raise ConfigFailure(f"{there} requires {missing}, which does not exist")
    return {setting: path for setting, path in found.items() if setting not in options}


def current_paths(paths: CredentialPaths) -> CredentialPaths:
    """Replace the paths of copies by those of the originals, for a reload. Raises ConfigFailure if
    an original was removed or added that only a restart can apply."""
    copies, source = _directories()
    if not copies or not source:
        return paths
    originals = _files(source)

    def current(setting: str, path: str | None) -> str | None:
        if path is not None and os.path.dirname(path) != copies:
            return path  # Not a credential: set by an option.
        if path is None and not os.path.exists(f"{copies}/{_NAMES[setting]}"):
            return None  # The unit does not load this credential.
        if path is not None and setting not in originals:
            raise ConfigFailure(
                f"{original_path(path)} was removed; restart the service to run without it"
            )
        if path is None and setting in originals and setting != "token_file":
            raise ConfigFailure(f"{originals[setting]} is new; restart the service to use it")
        return originals.get(setting)

    return CredentialPaths._make(map(current, CredentialPaths._fields, paths))


def original_path(path: str) -> str:
    """Return the path that a copy was made from, for messages; any other path unchanged."""
    copies, source = _directories()
    if copies and source and os.path.dirname(path) == copies:
        return f"{source}/{os.path.basename(path)}"
    return path


def is_world_readable(path: str) -> bool:
    """Return whether every user may read the file, or the original of a copy."""
    path = original_path(path)
    try:
        file, directory = os.stat(path), os.stat(os.path.dirname(path) or ".")
    except OSError:
        return False
    reachable = stat.S_ISREG(file.st_mode) and directory.st_mode & stat.S_IXOTH
    return bool(reachable and file.st_mode & stat.S_IROTH)


def _directories() -> tuple[str | None, str | None]:
    return os.environ.get(COPIES_VARIABLE), os.environ.get(SOURCE_VARIABLE)


def _files(directory: str | None) -> dict[str, str]:
    """Return the credentials in a directory by setting. An empty file counts as one."""
    found: dict[str, str] = {}
    for setting, name in _NAMES.items() if directory else ():
        path = f"{directory}/{name}"
        with suppress(OSError), open(path, "rb") as file:
            if file.read(len(_ABSENT) + 1) != _ABSENT:
                found[setting] = path
    return found
