import pytest

from agent.kernel.capabilities import is_privileged


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
