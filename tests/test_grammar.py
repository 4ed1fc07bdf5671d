"""The grammar of the command line."""

import re
from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.config import FORMATS, Config, Network, View
from agent.errors import CommandError
from agent.grammar import HELP as SHORT_HELP
from agent.grammar import build_parser, parse
from agent.stream.filters import FILTERS
from agent.stream.targets import parse_targets

DEFAULTS = {field.name: field.default for cls in (Config, Network, View) for field in fields(cls)}
HELP = {
    name: str(action.help)
    for action in build_parser()._actions
    for name in action.option_strings or [action.dest]
}


@pytest.mark.parametrize("name", HELP)
def test_help_is_a_sentence(name: str) -> None:
    # A list of values begins with the first one.
    assert re.fullmatch(r"([A-Z]|:PORT, |tcp, |inet, |inbound, |external ).*\.", HELP[name])


@pytest.mark.parametrize("name", sorted(DEFAULTS))
def test_help_names_the_default(name: str) -> None:
    default = DEFAULTS[name]
    found = re.search(r"\(default (.*?)\)", HELP.get("--" + name.replace("_", "-"), ""))
    shown = found and found[1]
    if name == "socket_mode":
        assert int(shown or "", 8) == default
    elif type(default) in (int, float):
        assert float(shown or "nan") == default
    elif shown is not None:
        assert shown == default


@pytest.mark.parametrize("line", ["-h", "--help", "-f --help nginx", "-tulpnh", "--help=x"])
def test_the_short_help_fits_a_terminal(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(line.split())
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert printed == SHORT_HELP
    assert len(printed.splitlines()) <= 15
    assert max(map(len, printed.splitlines())) < 80
    assert all(name in printed for name in FORMATS)


def test_the_examples_of_the_short_help_are_valid() -> None:
    examples = re.findall(r"^  (?:kill \$\()?sockagent(.*?)(?:\)|  ).*$", SHORT_HELP, re.MULTILINE)
    assert len(examples) == 5
    for example in examples:
        parse_targets(parse(example.split()).get("target", ()))


@pytest.mark.parametrize("line", ["--help all", "--help=all", "-h all"])
def test_the_long_help_has_every_option(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(line.split())
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert [name for name in HELP if name.startswith("-") and name not in printed] == []


def test_every_filter_is_an_option() -> None:
    assert {f"--{name}" for name in FILTERS} <= HELP.keys()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("-i :8080", "there is no option -i; type sockagent :8080"),
        ("-i", "there is no option -i; type sockagent :8080"),
        ("-iTCP:80,443 -n", "there is no option -i; type sockagent :80,443"),
        ("-ti :8080", "there is no option -i; type sockagent -o pid :8080"),
        ("-ti:8080", "there is no option -i; type sockagent -o pid :8080"),
        ("-tlnpe", "there is no option -e; type sockagent -o wide"),
        ("--json", "there is no option --json; type sockagent -o json"),
        ("--watch", "there is no option --watch; type sockagent --follow"),
        ("nginx --table", "there is no option --table; type sockagent -o table"),
        ("-tz", "there is no option -z; see sockagent --help"),
        ("--foll", "there is no option --foll; did you mean --follow?"),
        ("--prot=tcp", "there is no option --prot; did you mean --proto?"),
        ("--xyzzy", "there is no option --xyzzy; see sockagent --help"),
        ("-o jsn", "argument -o/--output: there is no format 'jsn'; did you mean json?"),
        ("-o yaml", ("argument -o/--output: there is no format 'yaml'; expected one of ndjson, "
         "json, summary, table, wide, log, csv, tsv, pid; see sockagent --help")),
        ("--columns a,,b", ("argument --columns: empty name; expected for example "
         "comm,pid,local,remote; see sockagent --help")),
        ("--interval -1", "argument --interval: expected one argument; see sockagent --help"),
        ("-1", "there is no option -1; see sockagent --help"),
    ],
)  # fmt: skip
def test_what_is_refused_says_what_to_type(line: str, message: str) -> None:
    with pytest.raises(CommandError) as raised:
        parse(line.split())
    assert str(raised.value) == message


def test_targets_may_stand_between_options() -> None:
    given = parse(["-t", "nginx", "--pid", "7", ":80", "-l", "10.0.0.7"])
    assert given["target"] == ["nginx", ":80", "10.0.0.7"]


words = st.text(max_size=8) | st.from_regex(r"--?[a-z]{1,6}(=\w*)?", fullmatch=True)


@given(st.lists(words.filter(lambda word: not word.startswith(("-h", "--h", "--v"))), max_size=4))
def test_any_words_are_parsed_or_refused_in_a_sentence(arguments: list[str]) -> None:
    try:
        given = parse(arguments)
    except CommandError as error:
        assert str(error)  # noqa: PT017 (any words may be refused)
    except SystemExit:  # The help or the version, in a word such as -th.
        assert any({"h", "V"} & set(word) for word in arguments)
    else:
        assert None not in given.values()
