"""Globs match as ``fnmatch`` does."""

from fnmatch import fnmatchcase

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agent.stream.globs import Globs

# Few characters, so that patterns match now and then.
patterns = st.text(st.sampled_from("ab-]![*?^\\c"), max_size=12)
texts = st.text(st.sampled_from("ab-]![*?^\\c\n"), max_size=8)


@given(patterns, texts)
@example("[]", "[]")
@example("[!]", "[!]")
@example("[!]a]", "b")
@example("[]-a]", "^")
@example("[b-a]", "b")
@example("[!b-a]", "b")
@example("[a-b-c]", "-")
@example("[a-]", "-")
@example("[!-a]", "a")
@example("[-a]", "-")
@example("[[]", "[")
@example("[^a]", "^")
@example("a[", "a[")
@example("**", "")
@example("", "")
@settings(max_examples=2000)
def test_a_glob_matches_as_fnmatch_does(pattern: str, text: str) -> None:
    assert Globs([pattern]).match(text) is fnmatchcase(text, pattern)


@given(st.lists(patterns, max_size=5), texts)
@settings(max_examples=500)
def test_globs_match_if_any_of_them_does(given: list[str], text: str) -> None:
    assert Globs(given).match(text) is any(fnmatchcase(text, one) for one in given)


@given(st.text(max_size=8), st.text(max_size=8))
def test_a_quoted_text_matches_itself_only(one: str, other: str) -> None:
    literal = "".join(f"[{char}]" if char in "[*?" else char for char in one)
    assert Globs([literal]).match(one)
    assert Globs([literal]).match(other) is (one == other)
    assert Globs([literal + "*"]).match(one + other)


@pytest.mark.parametrize("pattern", ["*a" * 127 + "b", "*?" * 128, "[" * 256, "[a-z]*" * 42])
def test_patterns_that_cause_backtracking_elsewhere_are_matched_in_time(pattern: str) -> None:
    # 256 tokens against 10,000 characters: with backtracking this does not end.
    assert Globs([pattern] * 32).match("a" * 10_000) is ("b" not in pattern and "[[" not in pattern)


def test_more_characters_than_are_cached_match() -> None:
    globs = Globs(["[!a]*"])
    assert all(globs.match(chr(point)) for point in range(0x4E00, 0x4E00 + 1000))
    assert not globs.match("a")
