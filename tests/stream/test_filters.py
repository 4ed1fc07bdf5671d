import ipaddress
import socket
from contextlib import suppress
from ipaddress import ip_network
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agent.errors import FilterError
from agent.model import (
    CgroupInfo,
    Closed,
    Delta,
    Holding,
    Opened,
    Owner,
    TcpFigures,
    Updated,
)
from agent.stream.filters import EVENTS, FILTERS, Filter, is_filter, split_filter

from ..make import FULL_COVERAGE, holding, process, tcp, without_holder
from ..strategies import holdings

ID = "3f4a9c07d2b1" + "0" * 52
CONNECTION = Holding(
    tcp(
        11,
        "ESTABLISHED",
        local_addr="10.1.2.3",
        local_port=40000,
        remote_addr="::ffff:192.0.2.7",
        remote_port=443,
        direction="outbound",
        netns=4026531833,
    )._replace(family="inet6"),
    process(
        7,
        comm="nginx: worker",
        exe="/usr/sbin/web-server (deleted)",
        unit="nginx.service",
        container=ID,
    ),
    (3,),
    Owner(33, "www-data"),
)
UNIX = holding(
    tcp()._replace(proto="unix", family="unix", local_addr=None, local_port=None, state="CONNECTED")
)
NETLINK = holding(
    tcp()._replace(proto="netlink", family="netlink", local_addr="route", local_port=443)
)


def matches(name: str, *values: str, one: Holding = CONNECTION) -> bool:
    return Filter({name: values}).matches(one)


@pytest.mark.parametrize(
    ("name", "value", "passes"),
    [
        ("pid", "7", True),
        ("pid", "77", False),
        ("pid", "1,7", True),
        ("comm", "nginx: worker", True),
        ("comm", "nginx", False),
        ("comm", "nginx*", True),
        ("comm", "ngin?: w[a-o]rker", True),
        ("comm", "NGINX*", False),
        ("user", "www-data", True),
        ("user", "www*", True),
        ("user", "33", True),
        ("user", "root,34", False),
        ("proto", "tcp", True),
        ("proto", "t*", True),
        ("proto", "udp", False),
        ("family", "inet6", True),
        ("family", "inet", False),
        ("state", "ESTABLISHED", True),
        ("state", "established", True),
        ("state", "LISTEN", False),
        ("state", "SYN_*,CLOS*", False),
        ("state", "E*", True),
        ("port", "443", True),
        ("port", "40000", True),
        ("port", "44", False),
        ("port", "440-450", True),
        ("port", "0-442", False),
        ("port", "1, 443", True),
        ("addr", "10.1.2.3", True),
        ("addr", "10.1.2.4", False),
        ("addr", "10.0.0.0/8", True),
        ("addr", "10.9.9.9/8", True),
        ("addr", "192.0.2.0/24", True),
        ("addr", "192.0.2.7", True),
        ("addr", "::ffff:192.0.2.7", True),
        ("addr", "::ffff:0:0/96", True),
        ("addr", "[::1],2001:db8::/32", False),
        ("addr", "0.0.0.0/0", True),
        ("unit", "nginx.service", True),
        ("unit", "*.scope", False),
        ("container", ID, True),
        ("container", "3f4a9c", True),
        ("container", "4a9c", False),
        ("container", "*4a9c*", True),
        ("netns", "4026531833", True),
        ("netns", "1", False),
        ("direction", "outbound", True),
        ("direction", "inbound,listen", False),
        ("state", "estab", True),
        ("state", "ESTAB", True),
        ("state", "connected", True),
        ("state", "listening,close-wait", False),
        ("name", "nginx", True),
        ("name", "nginx.service", True),
        ("name", "nginx: worker", True),
        ("name", "web-server", True),
        ("name", "/usr/sbin/web-server", False),
        ("name", "ngin*", True),
        ("name", "NGINX", False),
        ("name", "worker", False),
        ("name", "3f4a9c", True),
        ("name", "3f4a9", False),
        ("name", ID, True),
        ("name", "3f*", True),
        ("endpoint", "10.1.2.3:40000", True),
        ("endpoint", "192.0.2.7:443", True),
        ("endpoint", "[::ffff:192.0.2.7]:443", True),
        ("endpoint", "10.0.0.0/8:39000-40000", True),
        ("endpoint", "[::ffff:0:0/96]:443", True),
        ("endpoint", "10.1.2.3:443", False),
        ("endpoint", "192.0.2.7:40000", False),
        ("endpoint", "10.1.2.3:1,192.0.2.7:443", True),
        ("path", "*", False),
        ("scope", "external", True),
        ("scope", "LOCAL", False),
    ],
)
def test_a_single_filter(name: str, value: str, passes: bool) -> None:
    assert matches(name, value) is passes


def test_every_filter_is_tested_here() -> None:
    assert FILTERS.keys() == {
        "pid", "name", "comm", "user", "proto", "family", "state", "port", "addr", "endpoint",
        "path", "unit", "container", "netns", "direction", "scope", "host", "event",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value", "passes"),
    [
        ("host", "web1", True),
        ("host", "db1,web1", True),
        ("host", "web*", True),
        ("host", "web", False),
        ("host", "WEB1", False),
        ("host!", "web1", False),
        ("host!", "db*", True),
    ],
)
def test_the_filter_of_a_host(name: str, value: str, passes: bool) -> None:
    chosen = Filter({name: [value], "pid": ["7"]})
    assert chosen.matches_host("web1") is passes
    there = chosen.of_host("web1")
    assert there.matches(CONNECTION) is passes
    assert (there.apply(Opened(CONNECTION)) is not None) is passes
    assert not chosen.passes_all
    assert chosen.of_host("web1") is there


def test_filters_of_hosts_are_combined() -> None:
    both = Filter({"host": ["web*"]}) & Filter({"host!": ["web2"]})
    assert [both.matches_host(host) for host in ("web1", "web2", "db1")] == [True, False, False]
    assert both == Filter({"host": ["web*"], "host!": ["web2"]})
    assert both.without("host") == Filter()
    assert Filter({"host": ["a"], "event": ["open"]}).without("event") == Filter({"host": ["a"]})
    assert Filter().of_host("web1").passes_all


def test_repeated_values_are_alternatives() -> None:
    assert matches("pid", "1", "7")
    assert not matches("pid", "1", "2")


def test_different_filters_must_all_match() -> None:
    assert Filter({"pid": ["7"], "proto": ["tcp"]}).matches(CONNECTION)
    assert not Filter({"pid": ["7"], "proto": ["udp"]}).matches(CONNECTION)


@pytest.mark.parametrize("one", [UNIX, NETLINK])
def test_ports_and_addresses_are_of_inet_sockets_only(one: Holding) -> None:
    assert not matches("port", "0-65535", one=one)
    assert not matches("addr", "0.0.0.0/0,::/0", one=one)
    assert not matches("endpoint", "0.0.0.0/0:0-65535,[::/0]:0-65535", one=one)
    assert not matches("scope", "external", one=one)


@pytest.mark.parametrize("name", ["pid", "name", "comm", "unit", "container", "path"])
def test_an_unknown_field_matches_nothing(name: str) -> None:
    value = "1" if name == "pid" else "*"
    assert not matches(name, value, one=without_holder())


def test_a_socket_without_a_holder_is_matched_by_its_cgroup() -> None:
    hidden = without_holder()._replace(cgroup=CgroupInfo("/x", "nginx.service", ID))
    assert matches("unit", "nginx*", one=hidden)
    assert matches("container", "3f4a9c", one=hidden)
    assert not matches("unit", "sshd.service", one=hidden)


def test_a_socket_without_a_holder_is_matched_by_the_names_of_its_cgroup() -> None:
    hidden = without_holder()._replace(cgroup=CgroupInfo("/x", "nginx.service", ID))
    for value in ("nginx", "nginx.service", "3f4a9c"):
        assert matches("name", value, one=hidden)
    assert not matches("name", "app", one=hidden)


@pytest.mark.parametrize("path", ["/run/app.sock", "@app/bus"])
def test_a_unix_socket_is_matched_by_its_path(path: str) -> None:
    one = UNIX._replace(socket=UNIX.socket._replace(path=path))
    assert matches("path", path, one=one)
    assert matches("path", "?*app*", one=one)
    assert not matches("path", path[:-1], one=one)


@pytest.mark.parametrize(
    ("value", "state", "passes"),
    [
        ("listening", "LISTEN", True),
        ("close-wait", "CLOSE_WAIT", True),
        ("CloseWait", "CLOSE_WAIT", True),
        ("close_wait", "CLOSE_WAIT", True),
        ("fin-wait-1", "FIN_WAIT1", True),
        ("connected", "ESTABLISHED", True),
        ("connected", "CONNECTED", True),
        ("connected", "CONNECTING", False),
        ("connected", "CLOSE_WAIT", False),
        ("CONNECTED", "CONNECTED", True),
        ("CONNECTED", "ESTABLISHED", False),
        ("unconn", "UNCONNECTED", True),
        ("CONN*", "ESTABLISHED", False),
    ],
)
def test_states_have_other_words(value: str, state: str, passes: bool) -> None:
    assert matches("state", value, one=holding(tcp(state=state))) is passes


@pytest.mark.parametrize(
    ("fields", "passes"),
    [
        ({}, True),
        ({"proto": "udplite"}, True),
        ({"proto": "raw"}, False),
        ({"state": "ESTABLISHED"}, False),
        ({"local_port": 0}, False),
        ({"local_port": None}, False),
    ],
)
def test_bound_selects_udp_without_a_peer(fields: dict[str, Any], passes: bool) -> None:
    udp = tcp(state="UNCONNECTED")._replace(proto="udp")
    one = holding(udp._replace(**fields))
    assert matches("direction", "bound", one=one) is passes
    assert matches("direction", "listen,bound", one=one) is passes
    assert not matches("direction", "*", one=one)
    assert matches("direction", "bound,listen", one=holding(tcp(direction="listen")))


@pytest.mark.parametrize(
    ("local", "remote", "is_external"),
    [
        ("10.0.0.1", "192.0.2.1", True),
        ("0.0.0.0", None, True),
        ("127.0.0.1", None, False),
        ("127.8.8.8", "127.0.0.1", False),
        ("10.0.0.1", "127.0.0.1", False),
        ("::", None, True),
        ("::1", None, False),
        ("::ffff:127.0.0.1", None, False),
        ("fe80::1%eth0", None, True),
    ],
)
def test_a_socket_without_a_loopback_address_is_external(
    local: str, remote: str | None, is_external: bool
) -> None:
    one = holding(tcp(local_addr=local, remote_addr=remote))
    assert matches("scope", "external", one=one) is is_external
    assert matches("scope", "local", one=one) is not is_external


def test_an_address_and_a_port_of_different_ends_are_no_endpoint() -> None:
    given = ("10.0.0.7:443", "10.0.0.8:80")
    one = tcp(local_addr="10.0.0.7", local_port=80, remote_addr="10.0.0.8", remote_port=443)
    assert not matches("endpoint", *given, one=holding(one))
    assert matches("endpoint", *given, one=holding(one._replace(remote_port=80)))


# Exclusion.


@pytest.mark.parametrize(
    ("name", "value", "passes"),
    [
        ("comm!", "a,b", True),
        ("comm!", "a,nginx*", False),
        ("port!", "22", True),
        ("port!", "22,443", False),
        ("addr!", "127.0.0.0/8", True),
        ("proto!", "tcp", False),
        ("path!", "*", True),
        ("state!", "estab", False),
        ("scope!", "local", True),
        ("netns!", "4026531833", False),
    ],
)
def test_a_filter_that_excludes(name: str, value: str, passes: bool) -> None:
    assert matches(name, value) is passes


def test_a_filter_can_both_select_and_exclude() -> None:
    both = Filter({"port": ["440-450"], "port!": ["443"]})
    assert not both.matches(CONNECTION)
    other = CONNECTION.socket._replace(remote_port=444)
    assert both.matches(CONNECTION._replace(socket=other))


def test_excluded_events_are_not_reported() -> None:
    assert Filter({"event!": ["snapshot,update"]}).events == {"open", "close"}
    assert Filter({"event": ["open,close"], "event!": ["close"]}).events == {"open"}


def test_filters_that_exclude_are_equal_to_themselves_only() -> None:
    one, same = Filter({"comm!": ["a,b"]}), Filter({"comm!": ["b", "a"]})
    assert one == same
    assert hash(one) == hash(same)
    assert one != Filter({"comm": ["a,b"]})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("comm=a", ("comm", "a")),
        ("comm!=a=b", ("comm!", "a=b")),
        (" comm ! = a", ("comm!", " a")),
        ("comm", ("comm", "")),
        ("=a", ("", "a")),
    ],
)
def test_the_name_of_a_filter_is_split_off(text: str, expected: tuple[str, str]) -> None:
    assert split_filter(text) == expected


@pytest.mark.parametrize("name", ["!", "comm!!", "!comm", "colour!", ""])
def test_what_is_not_the_name_of_a_filter(name: str) -> None:
    assert not is_filter(name)


def test_a_user_without_a_name_is_matched_by_id() -> None:
    one = CONNECTION._replace(owner=Owner(5000, None))
    assert matches("user", "5000", one=one)
    assert not matches("user", "*", one=one)
    assert not matches("user", "5000", one=CONNECTION._replace(owner=None))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("pid", "x"),
        ("pid", "-1"),
        ("pid", ""),
        ("pid", "1,,2"),
        ("pid", "٣"),
        ("pid", "9" * 30),
        ("port", "65536"),
        ("port", "-1"),
        ("port", "80-"),
        ("port", "90-80"),
        ("port", "http"),
        ("addr", "10.0.0.0/33"),
        ("addr", "localhost"),
        ("addr", "10.*"),
        ("state", "OPEN"),
        ("direction", "up"),
        ("event", "hello"),
        ("netns", "net:[1]"),
        ("endpoint", "10.0.0.7"),
        ("endpoint", "::1:443"),
        ("endpoint", "[::1]"),
        ("endpoint", "[::1:443"),
        ("endpoint", "10.0.0.7:x"),
        ("endpoint", "web1:443"),
        ("endpoint", ":443"),
        ("scope", "remote"),
        ("port!", "x"),
        ("event!", "hello"),
        ("colour!", "red"),
        ("colour", "red"),
        ("comm", "[" * 8000),
        ("unit", "*" * 257),
        ("state", "*a" * 200),
    ],
)
def test_an_invalid_value_is_an_error_of_its_filter(name: str, value: str) -> None:
    with pytest.raises(FilterError) as caught:
        Filter({name: [value]})
    assert caught.value.argument == name
    assert str(caught.value)


@pytest.mark.parametrize("name", sorted(FILTERS))
def test_the_message_of_an_empty_value_has_valid_examples(name: str) -> None:
    with pytest.raises(FilterError, match=r"^empty value; expected for example (.+)$") as caught:
        Filter({name: [""]})
    examples = str(caught.value).partition("example ")[2].split(" or ")
    assert Filter({name: examples})


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("pid", "x", "'x' is not a pid; expected for example 1234"),
        ("port", "x", "'x' is not a port or range of ports; expected for example 443 or 8000-8100"),
        (
            "addr",
            "x",
            "'x' is not an address or CIDR; expected for example 192.0.2.1 or 10.0.0.0/8",
        ),
        ("direction", "up", "'up' is not one of inbound, outbound, listen, bound"),
        (
            "port!",
            "x",
            "'x' is not a port or range of ports; expected for example 443 or 8000-8100",
        ),
        (
            "endpoint",
            "x",
            (
                "'x' is not an address with a port; expected for example 192.0.2.1:443 or "
                "[2001:db8::1]:443"
            ),
        ),
        ("unit", "*" * 257, "a pattern has more than 256 characters"),
    ],
)
def test_a_message_says_what_was_expected(name: str, value: str, message: str) -> None:
    with pytest.raises(FilterError) as caught:
        Filter({name: [value]})
    assert str(caught.value) == message


def test_an_unknown_filter_is_an_error_that_lists_all() -> None:
    with pytest.raises(
        FilterError, match=r"^unknown filter; expected one of pid, name, comm, "
    ) as caught:
        Filter({"colour": ["red"]})
    assert caught.value.argument == "colour"


def test_a_filter_without_values_is_an_error() -> None:
    with pytest.raises(FilterError):
        Filter({"pid": []})


def test_event_selects_records_and_not_holdings() -> None:
    one = Filter({"event": ["open", "clo*"]})
    assert one.events == {"open", "close"}
    assert one.passes_all
    assert one.matches(CONNECTION)


FIGURES = TcpFigures(1, 2, 3, 4, 5, None)
LISTENING, CLOSED = holding(tcp(state="LISTEN")), holding(tcp(state="CLOSE"))


@pytest.mark.parametrize(
    ("delta", "expected"),
    [
        (Opened(LISTENING), Opened(LISTENING)),
        (Opened(CLOSED), None),
        (Closed(LISTENING, "exited", 1.5), Closed(LISTENING, "exited", 1.5)),
        (Closed(CLOSED, "exited", 1.5), None),
        (Updated(LISTENING, LISTENING, 1.5), Updated(LISTENING, LISTENING, 1.5)),
        (Updated(LISTENING, CLOSED, 1.5), Opened(LISTENING)),
        (Updated(CLOSED, LISTENING, 1.5), Closed(LISTENING, "filtered", 1.5)),
        (Updated(CLOSED, CLOSED, 1.5), None),
        (Opened(LISTENING, 9.5), Opened(LISTENING, 9.5)),
        (Updated(LISTENING, CLOSED, 1.5, 9.5), Opened(LISTENING, 9.5)),
        (Updated(CLOSED, LISTENING, 1.5, 9.5), Closed(LISTENING, "filtered", 1.5, 9.5)),
        (
            Closed(LISTENING, "exited", 1.5, 9.5, FIGURES),
            Closed(LISTENING, "exited", 1.5, 9.5, FIGURES),
        ),
        (FULL_COVERAGE, FULL_COVERAGE),
    ],
)
def test_a_delta_through_a_filter(delta: Delta, expected: Delta | None) -> None:
    values = {"state": ["LISTEN"]}
    assert Filter(values).apply(delta) == expected
    event = {Opened: "open", Closed: "close", Updated: "update"}.get(type(expected))
    others = sorted({*EVENTS} - {event})
    assert Filter({**values, "event": others}).apply(delta) == (None if event else expected)


def test_no_filter_passes_everything() -> None:
    assert Filter().passes_all
    assert Filter().events == set(EVENTS)
    assert not Filter({"pid": ["1"]}).passes_all


def test_filters_of_the_same_values_are_equal() -> None:
    one, same = Filter({"pid": ["1,2"], "comm": ["a"]}), Filter({"comm": ["a"], "pid": ["2", "1"]})
    assert one == same
    assert hash(one) == hash(same)
    assert one != Filter({"pid": ["1"], "comm": ["a"]})
    assert one != Filter()


texts = st.text(max_size=12) | st.text("*?[]!-^&|~\\a0,", max_size=12)


@given(st.sampled_from(sorted(FILTERS)), texts, holdings)
@example("user", "9" * 5000, CONNECTION)
@example("comm", "[[a]", CONNECTION)
@example("addr", "::1%eth0", CONNECTION)
def test_any_text_is_a_filter_or_an_error(name: str, value: str, one: Holding) -> None:
    with suppress(FilterError):
        selects = Filter({name: [value]})
        excludes = Filter({f"{name}!": [value]})
        if name == "event":
            assert selects.events ^ excludes.events == set(EVENTS)
        else:
            assert selects.matches(one) is not excludes.matches(one)


@given(st.ip_addresses(v=4), st.integers(0, 32))
def test_an_ipv4_network_contains_the_mapped_addresses(address: Any, length: int) -> None:
    mapped = holding(tcp(local_addr=f"::ffff:{address}")._replace(family="inet6"))
    assert matches("addr", f"{address}/{length}", one=mapped)


networks = st.builds(
    lambda address, length: f"{address}/{min(length, address.max_prefixlen)}",
    st.ip_addresses(network="10.0.0.0/29") | st.ip_addresses(network="2001:db8::/125"),
    st.integers(26, 128),
)
addresses = (
    st.ip_addresses(network="10.0.0.0/28")
    | st.ip_addresses(network="2001:db8::/124")
    | st.ip_addresses(network="::ffff:10.0.0.0/124")
)


@given(st.lists(networks, min_size=1, max_size=8), addresses)
def test_an_address_matches_the_networks_that_contain_it(given: list[str], address: Any) -> None:
    known = [ip_network(value, strict=False) for value in given]
    mapped = getattr(address, "ipv4_mapped", None)
    expected = any(address in one or (mapped and mapped in one) for one in known)
    family = f"inet{'6' if address.version == 6 else ''}"
    one = holding(tcp(remote_addr=str(address), local_addr=None)._replace(family=family))
    assert matches("addr", *given, one=one) is expected


def test_an_address_is_parsed_once_for_all_filters_and_networks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    filters_ = [
        Filter({"addr": [f"192.0.{number}.0/24,198.51.100.{index}" for number in range(90)]})
        for index in range(50)
    ]
    read = 0
    contains, made = ipaddress.IPv4Network.__contains__, socket.inet_pton

    def counted(*arguments: Any) -> Any:
        nonlocal read
        read += 1
        return (made if isinstance(arguments[0], int) else contains)(*arguments)

    monkeypatch.setattr(ipaddress.IPv4Network, "__contains__", counted)
    monkeypatch.setattr(socket, "inet_pton", counted)
    one = holding(tcp(local_addr="203.0.113.77", remote_addr="203.0.113.78"))
    assert not any(each.matches(one) for each in filters_)
    assert read == 2


def test_text_that_is_not_an_address_is_in_no_network() -> None:
    for text in ("", "x", "1.2.3", "1.2.3.4\0", "::g", "٣.1.1.1"):
        assert not matches("addr", "0.0.0.0/0,::/0", one=holding(tcp(local_addr=text)))


@given(st.integers(0, 65_535), st.integers(0, 65_535), st.integers(0, 65_535))
def test_a_range_includes_both_ends(low: int, high: int, port: int) -> None:
    low, high = sorted((low, high))
    assert matches("port", f"{low}-{high}", one=holding(tcp(local_port=port))) is (
        low <= port <= high
    )
