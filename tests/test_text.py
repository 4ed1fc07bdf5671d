import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.text import decode, escape_controls, nearest, safe_lines


def test_bytes_that_are_not_utf8_become_escapes() -> None:
    assert decode(b"caf\xe9 \xff\xe2\x98\x83") == "caf\\xe9 \\xff☃"


@given(st.binary())
def test_decoded_bytes_can_be_encoded(raw: bytes) -> None:
    decode(raw).encode()


@given(st.text(st.characters(max_codepoint=0x100)))
def test_escaped_json_has_no_control_character_and_the_same_value(any_text: str) -> None:
    encoded = escape_controls(json.dumps(any_text, ensure_ascii=False))
    assert not [char for char in encoded if char < " " or "\x7f" <= char <= "\x9f"]
    assert json.loads(encoded) == any_text


def test_lines_of_other_programs_get_no_control_character_either() -> None:
    lines = b'{"a":\r "\x7f\xc2\x9b\\r\xe2\x98\x83"}\r\n{}\n'
    assert safe_lines(lines) == b'{"a": "\\u007f\\u009b\\r\xe2\x98\x83"}\n{}\n'
    assert safe_lines(b"{}\n{}") == b"{}\n{}\n"


@pytest.mark.parametrize(
    ("word", "expected"),
    [("ngnix", "nginx"), ("NGINX", "nginx"), ("redis", "Redis"), ("zzz", None), ("", None)],
)
def test_the_nearest_word(word: str, expected: str | None) -> None:
    assert nearest(word, ["sshd", "nginx", "Redis"]) == expected


def test_no_word_is_nearest_to_a_word_where_there_are_none() -> None:
    assert nearest("a", []) is None
