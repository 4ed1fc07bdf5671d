"""Half a minute of random sockets and processes: the folded stream is what is there in the end."""

from __future__ import annotations

import pytest

from .conftest import CHURN


def test_after_random_churn_the_fold_is_what_is_there(request: pytest.FixtureRequest) -> None:
    request.config.stash[CHURN].result()
