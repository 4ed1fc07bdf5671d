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
def test_it_takes_both_capabilities(effective: str, expected: bool) -> None:
    status = f"Name:\tsh\nCapPrm:\t000001ffffffffff\nCapEff:\t{effective}\nCapBnd:\t0\n"
    assert is_privileged(status.encode()) is expected


def test_without_a_status_there_is_none() -> None:
    assert not is_privileged(b"")
