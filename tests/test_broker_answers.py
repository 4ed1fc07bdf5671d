"""What a broker answers, which may be any program."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.broker_answers import (
    InvalidAnswer,
    Refusal,
    digits,
    field_of,
    parse_answer,
    refusal,
    whole,
)

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["err_code", "x"]), inner),
)


def test_a_refusal_of_jetstream() -> None:
    answer = {"error": {"code": 404, "err_code": 10059, "description": "stream not found"}}
    assert refusal(parse_answer(json.dumps(answer).encode())) == (10059, "stream not found")
    assert refusal({"error": {"code": 503}}) == (0, "")
    assert refusal({"seq": 3}) is None


@pytest.mark.parametrize(
    "data",
    [
        b"", b"[]", b"3", b"\xff", b"{", b"[" * 100_000, b'{"seq":Infinity}', b'{"a":' * 100_000,
        b'{"seq":1e400}',
    ],
)  # fmt: skip
def test_what_is_no_answer(data: bytes) -> None:
    with pytest.raises(InvalidAnswer, match=r"^the broker's answer is not understood$"):
        parse_answer(data)


@given(st.binary() | VALUES.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_an_answer_or_not(data: bytes) -> None:
    try:
        answer = parse_answer(data)
        found = refusal(answer)
    except InvalidAnswer:
        return
    assert isinstance(answer, dict)
    assert found is None or isinstance(found, Refusal)


@given(VALUES)
def test_any_field_is_an_object_or_not(value: object) -> None:
    try:
        assert field_of({"x": value}, "x") is value
    except InvalidAnswer:
        assert not isinstance(value, dict)


@given(VALUES | st.sampled_from([True, 1e300, float("inf"), -1, 2**63, 10**5000]))
def test_a_number_is_whole_and_not_too_large(value: object) -> None:
    try:
        assert 0 <= whole(value) < 2**63
    except InvalidAnswer:
        assert not (type(value) is int and 0 <= value < 2**63)


@given(st.text() | st.sampled_from(["²", "٣", "1_0", " 1", "+1", "9" * 5000, "1\n"]))
def test_a_number_that_is_a_text_has_ascii_digits_only(text: str) -> None:
    try:
        found = digits(text)
    except InvalidAnswer:
        assert not (text.isascii() and text.isdigit() and len(text) <= 19)
    else:
        assert text.isascii()
        assert found == int(text)
