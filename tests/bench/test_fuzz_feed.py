"""A short run of ``python -m bench fuzz_feed``."""

from bench.fuzz_feed import Target


async def test_mutated_requests_and_frames_cause_no_error() -> None:
    outcome = await Target().run(seed=7, count=2000)
    assert outcome.wrong == []
    assert outcome.sent >= 2000
