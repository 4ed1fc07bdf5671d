"""Half a minute of random sockets and processes: the folded stream equals the final state."""

from __future__ import annotations

import pytest

from .conftest import CHURN


def test_after_random_churn_the_state_is_right(request: pytest.FixtureRequest) -> None:
    request.config.stash[CHURN].result()
