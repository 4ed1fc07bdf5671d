import os
import pwd

import pytest

from agent.kernel import users
from agent.kernel.users import Users, is_privileged
from agent.model import Owner


def unknown_uid() -> int:
    known = {entry.pw_uid for entry in pwd.getpwall()}
    return next(uid for uid in range(50_000, 60_000) if uid not in known)


def test_a_known_uid_has_a_name() -> None:
    assert Users().find_owner(0) == Owner(0, pwd.getpwuid(0).pw_name)


def test_an_unknown_uid_has_no_name() -> None:
    uid = unknown_uid()
    assert Users().find_owner(uid) == Owner(uid, None)


@pytest.mark.parametrize("uid", [2**32 - 1, 2**32, 2**70])
def test_an_impossible_uid_has_no_name(uid: int) -> None:
    assert Users().find_owner(uid) == Owner(uid, None)


def test_answers_are_cached_until_they_expire(monkeypatch: pytest.MonkeyPatch) -> None:
    cache = Users()
    first = cache.find_owner(os.getuid())
    cache.expire()
    assert cache.find_owner(os.getuid()) is first
    monkeypatch.setattr(users, "MAX_AGE_SECONDS", -1.0)
    cache.expire()
    assert cache.find_owner(os.getuid()) is not first
    assert cache.find_owner(os.getuid()) == first


@pytest.mark.parametrize(
    ("effective", "expected"),
    [
        ("000001ffffffffff", True),
        ("0000000000080004", True),
        ("0000000000080000", False),
        ("0000000000000004", False),
        ("00000000a80425fb", False),  # Root in a container, as docker starts it.
        ("0000000000000000", False),
    ],
)
def test_both_capabilities_are_needed(effective: str, expected: bool) -> None:
    status = f"Name:\tsh\nCapPrm:\t000001ffffffffff\nCapEff:\t{effective}\nCapBnd:\t0\n"
    assert is_privileged(status.encode()) is expected


def test_an_empty_status_is_not_privileged() -> None:
    assert not is_privileged(b"")
