"""Targets: each kind of text, what is refused, and the sentence where nothing matched."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agent.errors import TargetError
from agent.model import CgroupInfo, Holding, Owner
from agent.stream.filters import FILTERS, Filter, is_filter
from agent.stream.targets import hint, parse_target, parse_targets

from ..make import holding, process, tcp, without_holder
from ..strategies import holdings


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        (":8080", ("port", "8080")),
        (":8000-8100", ("port", "8000-8100")),
        (":80,443", ("port", "80,443")),
        (":80,:443", ("port", "80,443")),
        ("*:443", ("port", "443")),
        ("10.0.0.7", ("addr", "10.0.0.7")),
        ("10.0.0.0/8", ("addr", "10.0.0.0/8")),
        ("10.0.0.7,10.0.0.8", ("addr", "10.0.0.7,10.0.0.8")),
        ("::1", ("addr", "::1")),
        ("::", ("addr", "::")),
        ("[::1]", ("addr", "[::1]")),
        ("2001:db8::/32", ("addr", "2001:db8::/32")),
        ("::ffff:10.0.0.1", ("addr", "::ffff:10.0.0.1")),
        ("10.0.0.7:443", ("endpoint", "10.0.0.7:443")),
        ("10.0.0.0/8:8000-8100", ("endpoint", "10.0.0.0/8:8000-8100")),
        ("[::1]:443", ("endpoint", "[::1]:443")),
        ("[2001:db8::/32]:443", ("endpoint", "[2001:db8::/32]:443")),
        ("localhost:5432", ("endpoint", "127.0.0.1:5432,[::1]:5432")),
        ("localhost:80,8000-8100", ("endpoint",
         "127.0.0.1:80,[::1]:80,127.0.0.1:8000-8100,[::1]:8000-8100")),
        ("localhost", ("addr", "127.0.0.1,::1")),
        ("localhosts", ("name", "localhosts")),
        ("1234", ("pid", "1234")),
        ("1,2", ("pid", "1,2")),
        ("/run/app.sock", ("path", "/run/app.sock")),
        ("/run/*", ("path", "/run/*")),
        ("/run/a=b.service", ("path", "/run/a=b.service")),
        ("@name", ("path", "@name")),
        ("web.service", ("unit", "web.service")),
        ("*.slice", ("unit", "*.slice")),
        ("session-3.scope", ("unit", "session-3.scope")),
        ("docker.socket", ("unit", "docker.socket")),
        ("getty@tty1.service", ("unit", "getty@tty1.service")),
        ("nginx", ("name", "nginx")),
        ("ngin*", ("name", "ngin*")),
        ("[a-z]ginx", ("name", "[a-z]ginx")),
        ("nginx,redis-server", ("name", "nginx,redis-server")),
        ("nginx: worker process", ("name", "nginx: worker process")),
        ("3f4a9c07d2b1", ("name", "3f4a9c07d2b1")),
        ("7z", ("name", "7z")),
        (".service", ("name", ".service")),
        ("comm=nginx", ("comm", "nginx")),
        ("comm!=a,b", ("comm!", "a,b")),
        ("name=top", ("name", "top")),
        ("name=a=b", ("name", "a=b")),
        ("path!=/run/*", ("path!", "/run/*")),
        ("state=close-wait", ("state", "close-wait")),
        ("scope=external", ("scope", "external")),
    ],
)  # fmt: skip
def test_a_target(word: str, expected: tuple[str, str]) -> None:
    assert parse_target(word) == expected


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("", "empty; expected for example :8080, nginx or 10.0.0.0/8"),
        (" ", "empty; expected for example :8080, nginx or 10.0.0.0/8"),
        (":", "empty value; expected for example 443 or 8000-8100"),
        (":http", "'http' is not a port or range of ports; expected for example 443 or 8000-8100"),
        (":99999", ("'99999' is not a port or range of ports; expected for example 443 or "
         "8000-8100")),
        ("10.0.0.0/33", ("'10.0.0.0/33' is not an address or CIDR; expected for example 192.0.2.1 "
         "or 10.0.0.0/8")),
        ("10.0.0", ("'10.0.0' is not an address or CIDR; expected for example 192.0.2.1 or "
         "10.0.0.0/8")),
        ("./app.sock", "not a whole path; expected for example /run/app.sock"),
        ("~/app.sock", "not a whole path; expected for example /run/app.sock"),
        ("localhost:", ("'' is not a port or range of ports; expected for example 192.0.2.1:443 "
         "or [2001:db8::1]:443")),
        ("nginx:80", "not an address; write two targets: nginx :80, or for example 10.0.0.7:443"),
        ("prot=tcp", "there is no filter 'prot'; did you mean 'proto'?"),
        ("Ports!=80", "there is no filter 'Ports'; did you mean 'port'?"),
        ("port=x", "'x' is not a port or range of ports; expected for example 443 or 8000-8100"),
        ("comm!=", "empty value; expected for example nginx*"),
        ("nginx,", "empty value; expected for example nginx or web.service"),
    ],
)  # fmt: skip
def test_what_is_no_target_is_refused_in_a_sentence(word: str, sentence: str) -> None:
    with pytest.raises(TargetError) as raised:
        parse_target(word)
    assert str(raised.value) == sentence
    assert raised.value.argument == word


def test_a_filter_that_is_like_no_other_lists_all() -> None:
    with pytest.raises(TargetError) as raised:
        parse_target("zzz=1")
    assert str(raised.value) == (f"there is no filter 'zzz'; expected one of {', '.join(FILTERS)}")


words = (
    st.text(max_size=20)
    | st.text("*?[]!-=:./@,0123456789abcdef", max_size=20)
    | st.from_regex(r"(\w+)(!?=|:|\.|/|@)[\w.:/]*", fullmatch=True)
)


@given(words)
@example("9" * 5000)
@example("[[::1]:1")
@example("\0:\0")
def test_any_text_is_a_target_or_refused_in_a_sentence(word: str) -> None:
    try:
        name, value = parse_target(word)
    except TargetError as error:
        assert str(error)  # noqa: PT017 (any text may be refused)
    else:
        assert is_filter(name)
        assert Filter({name: [value]})


# Several targets.


def selects(*targets: str, one: Holding) -> bool:
    return Filter(parse_targets(targets)).matches(one)


NGINX = holding(
    tcp(local_addr="10.0.0.7", local_port=443, remote_addr="192.0.2.1", remote_port=50000),
    process(7, comm="nginx", unit="web.service"),
)


def test_targets_of_one_kind_are_alternatives_and_kinds_must_all_match() -> None:
    assert selects(":80", ":443", one=NGINX)
    assert selects("nginx", "redis", ":443", one=NGINX)
    assert not selects("nginx", ":80", one=NGINX)
    assert not selects("redis", ":443", one=NGINX)
    assert selects("web.service", "nginx", "7", "10.0.0.0/8", one=NGINX)
    assert selects(one=NGINX)


def test_a_kind_and_a_filter_of_the_same_name_are_alternatives() -> None:
    assert parse_targets([":80", "port=443", "port!=22"]) == {
        "port": ["80", "443"], "port!": ["22"],
    }  # fmt: skip


def test_addresses_with_ports_do_not_mix() -> None:
    given = ("10.0.0.7:443", "10.0.0.8:80")
    assert selects(*given, one=NGINX)
    other = NGINX.socket._replace(local_port=80)
    assert not selects(*given, one=NGINX._replace(socket=other))
    assert selects(*given, one=NGINX._replace(socket=other._replace(local_addr="10.0.0.8")))


def test_the_machine_itself_has_two_addresses_and_ipv4_may_be_mapped() -> None:
    for address in ("127.0.0.1", "::1", "::ffff:127.0.0.1"):
        one = NGINX._replace(socket=NGINX.socket._replace(local_addr=address))
        assert selects("localhost:443", one=one)
        assert selects("localhost", one=one)
        assert not selects("localhost:80", one=one)
    assert not selects("localhost:443", one=NGINX)


# Where nothing matched.

SHARED = NGINX._replace(process=process(8, comm="nginx"))
SSHD = holding(tcp(12, local_port=8080), process(9, comm="sshd: root@pts/0", unit="ssh.service"))
HIDDEN = without_holder(tcp(13, local_port=8080))._replace(
    cgroup=CgroupInfo("/x", "redis-server.service", None), owner=Owner(5, "games")
)
HELP = holding(tcp(14, local_port=1234), process(10, comm="help"))
ALL = (NGINX, SHARED, SSHD, HIDDEN, HELP)


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        ("8080", "no sockets of process 8080; port 8080 has 2: sockagent :8080"),
        ("443", "no sockets of process 443; port 443 has 1: sockagent :443"),
        ("3", "no sockets of process 3"),
        ("99999999", "no sockets of process 99999999"),
        ("7", None),
        ("nginx", None),
        ("ngnix", "nothing is named 'ngnix'; did you mean 'nginx'? sockagent nginx"),
        ("NGINX", "nothing is named 'NGINX'; did you mean 'nginx'? sockagent nginx"),
        ("redis-server", None),
        ("hepl", "nothing is named 'hepl'; did you mean 'help'? sockagent name=help"),
        ("zzzzzz", "nothing is named 'zzzzzz'"),
        ("zz*", "nothing is named 'zz*'"),
        ("sshd: root", ("nothing is named 'sshd: root'; did you mean 'sshd: root@pts/0'? "
         "sockagent 'sshd: root@pts/0'")),
        ("comm=ngin", ("no sockets of a process named 'ngin'; did you mean 'nginx'? "
         "sockagent comm=nginx")),
        ("wev.service", ("no sockets of the unit 'wev.service'; did you mean 'web.service'? "
         "sockagent unit=web.service")),
        ("ssh.servic", ("nothing is named 'ssh.servic'; did you mean 'ssh.service'? "
         "sockagent name=ssh.service")),
        ("tcp", "nothing is named 'tcp'; it is a protocol: sockagent proto=tcp"),
        ("close-wait", "nothing is named 'close-wait'; it is a state: sockagent state=close-wait"),
        ("games", "nothing is named 'games'; it is a user: sockagent user=games"),
        (":1", None),
        ("127.0.0.2:443", "no sockets with this address; port 443 has 1: sockagent :443"),
        ("localhost:1,443", "no sockets with this address; port 443 has 1: sockagent :443"),
        ("localhost:1", None),
        ("10.0.0.7:443", None),
        ("comm!=ngin", None),
    ],
)  # fmt: skip
def test_the_sentence_where_nothing_matched(target: str, sentence: str | None) -> None:
    assert hint(Filter(parse_targets([target])), ALL) == sentence


@given(words, st.lists(holdings, max_size=4))
def test_there_is_a_sentence_or_none_for_any_target(word: str, found: list[Holding]) -> None:
    try:
        chosen = Filter(parse_targets([word]))
    except TargetError:
        return
    sentence = hint(chosen, found)
    assert sentence is None or not any(map(chosen.matches, found))
