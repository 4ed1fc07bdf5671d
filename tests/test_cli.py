"""The grammar of the command line."""

import re
from dataclasses import fields

import pytest

from agent.cli import build_parser
from agent.config import Config, Network

DEFAULTS = {field.name: field.default for cls in (Config, Network) for field in fields(cls)}
HELP = {action.dest: str(action.help) for action in build_parser()._actions}


@pytest.mark.parametrize("name", HELP)
def test_help_is_a_sentence(name: str) -> None:
    # A list of values begins with the first one.
    assert re.fullmatch(r"([A-Z]|tcp, |inet, |inbound, |external ).*\.", HELP[name])


@pytest.mark.parametrize("name", sorted(DEFAULTS.keys() & HELP.keys()))
def test_help_names_the_default(name: str) -> None:
    default = DEFAULTS[name]
    found = re.search(r"\(default (.*?)\)", HELP[name])
    shown = found and found[1]
    if name == "socket_mode":
        assert int(shown or "", 8) == default
    elif type(default) in (int, float):
        assert float(shown or "nan") == default
    elif shown is not None:
        assert shown == default
