from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.kernel.procfs.stat import parse_cgroup, parse_cmdline, parse_stat, unescape

from ...captures import CONTAINER_ID, capture, names
from ...strategies import mutated

PROCESSES = names("process")
CGROUPS = names("cgroup")


@pytest.mark.parametrize(
    ("name", "comm", "state", "ppid", "start_ticks"),
    [
        ("plain", "nginx", "S", 9815, 311061),
        ("parentheses", "a) S 1 (b c)", "S", 9815, 311063),
        ("newline", "two\nlines", "S", 9815, 311063),
        ("utf8", "naïve ☃", "S", 9815, 311063),
        ("not_utf8", "caf\\xe9 \\xff", "S", 9815, 311063),
        ("zombie", "nginx", "Z", 9815, 311061),
        ("kernel_thread", "kthreadd", "S", 0, 25),
    ],
)
def test_stat(name: str, comm: str, state: str, ppid: int, start_ticks: int) -> None:
    stat = parse_stat(capture(f"process/{name}/stat"))
    assert (stat.comm, stat.state, stat.ppid, stat.start_ticks) == (comm, state, ppid, start_ticks)
    assert stat.threads == 1


def test_the_image_changes_only_with_an_exec() -> None:
    plain, other = (parse_stat(capture(f"process/{name}/stat")) for name in ("plain", "newline"))
    assert plain.image != other.image
    fields = capture("process/plain/stat").split(b" ")
    fields[13:15] = b"500", b"600"  # utime and stime.
    assert parse_stat(b" ".join(fields)).image == plain.image


@pytest.mark.parametrize(
    "data", [b"", b"1 (a", b"1 a) S 1", b"1 (a) S 1 2 3", capture("broken/stat_cut")]
)
def test_a_malformed_stat_raises_an_error(data: bytes) -> None:
    with pytest.raises(ValueError):
        parse_stat(data)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("utf8", ("--name=caf\\xe9", "with space", "", "two\nlines", "")),
        ("zombie", ()),
        ("kernel_thread", ()),
    ],
)
def test_cmdline(name: str, arguments: tuple[str, ...]) -> None:
    assert parse_cmdline(capture(f"process/{name}/cmdline"))[3:] == arguments


def test_a_cmdline_that_its_process_has_overwritten() -> None:
    assert parse_cmdline(b"nginx: worker process") == ("nginx: worker process",)


@pytest.mark.parametrize(
    "name",
    [
        name
        for name in CGROUPS
        if name.startswith(("docker", "podman", "containerd", "crio")) and "conmon" not in name
    ],
)
def test_the_id_of_a_container(name: str) -> None:
    assert parse_cgroup(capture(f"cgroup/{name}")).container == CONTAINER_ID


@pytest.mark.parametrize(
    ("name", "container"),
    [
        ("nspawn_v1", "web"),
        ("nspawn_v2", "web"),
        ("nspawn_hybrid", "web"),
        ("nspawn_scope_v2", "web-1"),
        ("lxc_v1", "web"),
        ("lxc_v1_payload", "web"),
        ("lxc_v2", "web"),
        ("lxc_hybrid", "web"),
    ],
)
def test_the_name_of_a_container(name: str, container: str) -> None:
    assert parse_cgroup(capture(f"cgroup/{name}")).container == container


@pytest.mark.parametrize(
    "name",
    [
        "podman_conmon_v2", "crio_conmon_v2", "lxc_monitor_v2", "qemu_v2", "service_v1",
        "service_v2", "service_hybrid", "session_v2", "user_app_v2", "root_v2", "root_hybrid",
    ],
)  # fmt: skip
def test_cgroups_outside_of_containers(name: str) -> None:
    assert parse_cgroup(capture(f"cgroup/{name}")).container is None


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        ("service_v1", "nginx.service"),
        ("service_v2", "nginx.service"),
        ("service_hybrid", "nginx.service"),
        ("deleted_v2", "nginx.service"),
        ("template_v2", "getty@tty1.service"),
        ("escaped_v2", "cpu.service"),
        ("session_v2", "session-3.scope"),
        ("user_app_v2", "user@1000.service"),
        ("docker_v2", f"docker-{CONTAINER_ID}.scope"),
        # Not a unit inside the container, of another systemd.
        ("nspawn_v2", "systemd-nspawn@web.service"),
        ("docker_v1", None),
        ("root_v2", None),
    ],
)
def test_the_systemd_unit(name: str, unit: str | None) -> None:
    assert parse_cgroup(capture(f"cgroup/{name}")).unit == unit


@pytest.mark.parametrize(
    ("name", "cgroup"),
    [
        ("docker_v1", f"/docker/{CONTAINER_ID}"),
        ("service_v2", "/system.slice/nginx.service"),
        ("service_hybrid", "/system.slice/nginx.service"),
        ("deleted_v2", "/system.slice/nginx.service"),
        ("nspawn_v1", "/machine.slice/systemd-nspawn@web.service"),
        ("root_v2", "/"),
        ("root_hybrid", "/"),
    ],
)
def test_the_most_informative_cgroup_is_chosen(name: str, cgroup: str) -> None:
    assert parse_cgroup(capture(f"cgroup/{name}")).cgroup == cgroup


@pytest.mark.parametrize("name", PROCESSES)
def test_the_cgroups_of_this_kernel(name: str) -> None:
    info = parse_cgroup(capture(f"process/{name}/cgroup"))
    assert info.cgroup is not None
    assert (info.unit, info.container) == (None, None)


@pytest.mark.parametrize("data", [b"", b"\n", b"garbage\n", b"0:no colon", b"x::/a\n", b"0::a\n"])
def test_without_a_valid_line_the_cgroup_is_unknown(data: bytes) -> None:
    assert parse_cgroup(data) == (None, None, None)


def test_malformed_lines_among_cgroups_are_skipped() -> None:
    data = b"\xff\xfe\n" + capture("cgroup/service_v2") + b"12"
    assert parse_cgroup(data).unit == "nginx.service"


def test_unescape() -> None:
    assert unescape(r"my\x2dweb\x20app") == "my-web app"


@given(st.binary(max_size=300) | st.sampled_from(PROCESSES).flatmap(
    lambda name: mutated(capture(f"process/{name}/stat"))
))  # fmt: skip
def test_parse_stat_raises_only_value_error(data: bytes) -> None:
    with suppress(ValueError):
        parse_stat(data)


@given(st.binary(max_size=300) | st.sampled_from(CGROUPS).flatmap(
    lambda name: mutated(capture(f"cgroup/{name}"))
))  # fmt: skip
def test_parse_cgroup_raises_for_no_input(data: bytes) -> None:
    parse_cgroup(data)


@given(st.lists(st.binary(max_size=20).filter(lambda argument: b"\0" not in argument), min_size=1))
def test_every_argument_is_kept(arguments: list[bytes]) -> None:
    data = b"".join(argument + b"\0" for argument in arguments)
    assert len(parse_cmdline(data)) == len(arguments)
