import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.publish.terminal.safe import pad, safe, shorten, width

# Lone surrogates too: they stand for bytes that are not UTF-8.
TEXTS = st.text(st.characters(exclude_categories=()), max_size=30)
NAMES = st.text("ab…日\u0301é", max_size=30)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("nginx: worker", "nginx: worker"),
        ("café 日本 ñ", "café 日本 ñ"),
        ("e\u0301", "e\u0301"),
        ("\x1b[31m", r"\x1b[31m"),
        ("a\nb\tc\x00", r"a\x0ab\x09c\x00"),
        ("\x7f\x80\x9b", r"\x7f\x80\x9b"),
        ("\u202eexe", r"\x{202e}exe"),
        ("\u2066\u2069\u200b\u200d\ufeff", r"\x{2066}\x{2069}\x{200b}\x{200d}\x{feff}"),
        ("\u2028\u2029\xa0\xad", r"\x{2028}\x{2029}\xa0\xad"),
        ("\u3164\u115f\u034f\ufe0f\u2800", r"\x{3164}\x{115f}\x{34f}\x{fe0f}\x{2800}"),
        ("\U000e0041\U000e0100", r"\x{e0041}\x{e0100}"),
        ("\ud800\udc80", r"\x{d800}\x{dc80}"),
        ("\ue000\U0010ffff", r"\x{e000}\x{10ffff}"),
    ],
)
def test_unsafe_characters_are_escaped(text: str, shown: str) -> None:
    assert safe(text) == shown


def test_ascii_escapes_all_others() -> None:
    assert safe("café 日\x1b", ascii=True) == r"caf\xe9 \x{65e5}\x1b"


@given(TEXTS)
def test_nothing_unsafe_remains(text: str) -> None:
    shown = safe(text)
    shown.encode()  # No lone surrogate.
    assert shown.isprintable()
    assert not {unicodedata.category(char) for char in shown} & {"Cc", "Cf", "Cs", "Co", "Cn"}
    assert safe(text, ascii=True).isascii()
    assert safe(safe(text)) == safe(text)


def test_the_width_is_that_on_the_terminal() -> None:
    assert [width(text) for text in ("", "abc", "日本", "\uff21", "e\u0301", "é…")] == [
        0,
        3,
        4,
        2,
        1,
        2,
    ]


@given(NAMES, st.integers(0, 40), st.booleans())
def test_padding_fills_the_width(text: str, columns: int, right: bool) -> None:
    padded = pad(text, columns, right=right)
    assert width(padded) == max(columns, width(text))
    assert padded.strip(" ") == text


def test_the_middle_is_left_out() -> None:
    assert shorten("systemd-resolved.service", 16, "…") == "systemd-…service"
    assert shorten("systemd-resolved.service", 16, "...") == "systemd...ervice"
    assert shorten("nginx", 5, "…") == "nginx"
    assert shorten("日本語日本語", 6, "…") == "日…語"


@given(NAMES, st.integers(3, 20), st.sampled_from(["…", "..."]))
def test_shortened_text_fits(text: str, columns: int, ellipsis: str) -> None:
    short = shorten(text, columns, ellipsis)
    assert width(short) <= columns
    if short != text:
        head, found, tail = short.partition(ellipsis)
        assert found
        assert width(text) > columns
        if ellipsis not in text:
            assert text.startswith(head)
            assert text.endswith(tail)
