"""Operators, accounts and users of a NATS server, as nsc makes them: JWTs signed by nkeys."""

from __future__ import annotations

import base64
import json
import os
import time
from pathlib import Path
from typing import Any, NamedTuple

import nkeys

_HEADER = {"typ": "JWT", "alg": "ed25519-nkey"}
# -1: without a limit.
_USER_LIMITS = {"subs": -1, "data": -1, "payload": -1}
_ACCOUNT_LIMITS = {
    **_USER_LIMITS, "imports": -1, "exports": -1, "wildcards": True, "conn": -1, "leaf": -1,
    "mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1,
}  # fmt: skip
_CREDENTIALS = """-----BEGIN NATS USER JWT-----
{jwt}
------END NATS USER JWT------

-----BEGIN USER NKEY SEED-----
{seed}
------END USER NKEY SEED------
"""


class Key(NamedTuple):
    """A pair of keys: the seed, and the name of the public key."""

    seed: bytes
    name: str

    @classmethod
    def new(cls, prefix: int) -> Key:
        """Return a new pair."""
        seed = bytes(nkeys.encode_seed(os.urandom(32), prefix))
        return cls(seed, nkeys.from_seed(bytearray(seed)).public_key.rstrip(b"=").decode())

    def sign(self, subject: str, name: str, claims: dict[str, Any], **more: object) -> str:
        """Return a JWT about a subject."""
        body = {
            "jti": os.urandom(16).hex(), "iat": int(time.time()), "iss": self.name, "name": name,
            "sub": subject, "nats": {**claims, "version": 2}, **more,
        }  # fmt: skip
        text = b".".join(_encode(json.dumps(part).encode()) for part in (_HEADER, body))
        signature = nkeys.from_seed(bytearray(self.seed)).sign(text)
        return b".".join((text, _encode(signature))).decode()


def _encode(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


class Account:
    """An account of an operator, with a role for its hosts."""

    def __init__(self, publish: list[str], subscribe: list[str]) -> None:
        """``publish`` and ``subscribe`` are the permissions of hosts."""
        operator = Key.new(nkeys.PREFIX_BYTE_OPERATOR)
        self._key, self._role = (Key.new(nkeys.PREFIX_BYTE_ACCOUNT) for _ in range(2))
        template = {"pub": {"allow": publish}, "sub": {"allow": subscribe}, **_USER_LIMITS}
        role = {
            "kind": "user_scope", "key": self._role.name, "role": "sockagent", "template": template,
        }  # fmt: skip
        claims = {"limits": _ACCOUNT_LIMITS, "signing_keys": [role], "type": "account"}
        account = operator.sign(self._key.name, "fleet", claims)
        # JetStream requires one that the operator made.
        system = Key.new(nkeys.PREFIX_BYTE_ACCOUNT).name
        of_system = operator.sign(system, "SYS", {"limits": _USER_LIMITS, "type": "account"})
        self.config = (
            f"operator: {operator.sign(operator.name, 'operator', {'type': 'operator'})}\n"
            f"resolver: MEMORY\nsystem_account: {system}\n"
            f"resolver_preload: {{ {self._key.name}: {account}\n {system}: {of_system} }}\n"
        )

    def host(self, name: str) -> str:
        """Return the credentials of a host."""
        claims = {"issuer_account": self._key.name, "type": "user"}
        return self._credentials(self._role, name, claims)

    def user(self, publish: list[str], subscribe: list[str], **more: object) -> str:
        """Return the credentials of another user. ``more``: further claims."""
        permissions = {"pub": {"allow": publish}, "sub": {"allow": subscribe}}
        claims = {**permissions, **_USER_LIMITS, "type": "user"}
        return self._credentials(self._key, "user", claims, **more)

    @staticmethod
    def _credentials(by: Key, name: str, claims: dict[str, Any], **more: object) -> str:
        user = Key.new(nkeys.PREFIX_BYTE_USER)
        jwt = by.sign(user.name, name, claims, **more)
        return _CREDENTIALS.format(jwt=jwt, seed=user.seed.decode())


def store(path: Path, credentials: str) -> str:
    """Store credentials in a file; return its path."""
    path.write_text(credentials)
    path.chmod(0o600)
    return str(path)
