from hypothesis import given
from hypothesis import strategies as st

from agent.text import text


def test_bytes_that_are_no_utf8_show_as_escapes() -> None:
    assert text(b"caf\xe9 \xff\xe2\x98\x83") == "caf\\xe9 \\xff☃"


@given(st.binary())
def test_all_bytes_become_text_that_can_be_encoded(raw: bytes) -> None:
    text(raw).encode()
