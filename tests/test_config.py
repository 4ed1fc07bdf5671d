import dataclasses
import math

import pytest

from agent.config import Config
from agent.errors import UsageError
from agent.filters import Filter


def test_by_default_it_is_one_snapshot_of_everything() -> None:
    config = Config()
    assert (config.follow, config.all, config.cmdline) == (False, False, False)
    assert (config.interval, config.proc, config.filter) == (1.0, "/proc", Filter())


@pytest.mark.parametrize("interval", [0.05, 1, 3600.5])
def test_intervals(interval: float) -> None:
    assert Config(interval=interval).interval == interval


@pytest.mark.parametrize("interval", [0.049, 0, -1, math.nan, math.inf, -math.inf])
def test_an_interval_too_short_or_no_number_is_refused(interval: float) -> None:
    with pytest.raises(UsageError) as caught:
        Config(interval=interval)
    assert caught.value.argument == "interval"


@pytest.mark.parametrize("name", ["sweep", "stats"])
@pytest.mark.parametrize("seconds", [0, -1, math.nan, math.inf])
def test_seconds_that_are_none_are_refused(name: str, seconds: float) -> None:
    with pytest.raises(UsageError) as caught:
        Config(**{name: seconds})  # type: ignore[arg-type]
    assert caught.value.argument == name


def test_lines_about_itself_come_not_too_often() -> None:
    assert Config(follow=True, stats=0.1).stats == 0.1
    with pytest.raises(UsageError) as caught:
        Config(follow=True, stats=0.09)
    assert caught.value.argument == "stats"


def test_all_is_for_one_snapshot() -> None:
    assert Config(all=True).all
    with pytest.raises(UsageError) as caught:
        Config(all=True, follow=True)
    assert caught.value.argument == "all"


def test_it_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().follow = True  # type: ignore[misc]
