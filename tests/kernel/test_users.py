import os
import pwd

import pytest

from agent.kernel import users
from agent.kernel.users import Users
from agent.model import Owner


def unknown_uid() -> int:
    known = {entry.pw_uid for entry in pwd.getpwall()}
    return next(uid for uid in range(50_000, 60_000) if uid not in known)


def test_a_user_has_a_name() -> None:
    assert Users().find_owner(0) == Owner(0, pwd.getpwuid(0).pw_name)


def test_a_user_that_nobody_knows_has_none() -> None:
    uid = unknown_uid()
    assert Users().find_owner(uid) == Owner(uid, None)


@pytest.mark.parametrize("uid", [2**32 - 1, 2**32, 2**70])
def test_a_uid_that_no_user_can_have(uid: int) -> None:
    assert Users().find_owner(uid) == Owner(uid, None)


def test_answers_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    found = Users()
    first = found.find_owner(os.getuid())
    found.expire()
    assert found.find_owner(os.getuid()) is first
    monkeypatch.setattr(users, "MAX_AGE_SECONDS", -1.0)
    found.expire()
    assert found.find_owner(os.getuid()) is not first
    assert found.find_owner(os.getuid()) == first
