import pytest

from agent.model import Coverage


@pytest.mark.parametrize(
    ("coverage", "complete"),
    [
        (Coverage(3, 0, 1), True),
        (Coverage(3, 1, 1), False),
        (Coverage(3, 0, 1, ("tcp could not be read",)), False),
    ],
)
def test_coverage_is_complete_when_nothing_was_out_of_sight(
    coverage: Coverage, complete: bool
) -> None:
    assert coverage.complete is complete
