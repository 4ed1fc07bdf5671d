"""The commands of docs/fleet.md in a machine with systemd: a broker, and a host that publishes."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..documents import DOCUMENTS, ROOT
from .conftest import ROOT_OF_CONTAINER
from .container import TOOLS, Container
from .helpers import must_have, need_root, need_tool

BLOCK = re.compile(r"^<!-- fleet: (\w+) -->\n```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCKS = dict(BLOCK.findall(DOCUMENTS["docs/fleet.md"]))
ADDRESS = "192.0.2.7"
# Each of the other hosts is a directory.
SSH = """\
host=${1#*@}; mkdir -p /hosts/$host/etc; cd /hosts/$host
eval "$(echo "$2" | sed s,/etc,etc,g)\"
"""
SCP = 'target=${3#*@}; cp -p "$2" "/hosts/${target%%:*}${target#*:}"'


@pytest.fixture(scope="module")
def box(request: pytest.FixtureRequest) -> Iterator[Container]:
    """A machine named web1, with the package, where the document begins."""
    need_root()
    for tool in (*TOOLS, "dpkg-buildpackage", "dh"):
        need_tool(tool)
    must_have(Path("/usr/bin/python3").exists(), "/usr/bin/python3 is not installed")
    done = subprocess.run(
        ["make", "--no-print-directory", "deb"], cwd=ROOT, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    root = request.config.stash[ROOT_OF_CONTAINER].result()
    with Container(root) as booted:
        package = ROOT / done.stdout.splitlines()[-1]
        shutil.copy(package, Path(f"/proc/{booted.leader}/root/root/{package.name}"))
        booted.run(f"hostname web1; ip address add {ADDRESS}/32 dev lo")
        for name, script in (("ssh", SSH), ("scp", SCP)):
            path = Path(f"/proc/{booted.leader}/root/usr/bin/{name}")
            path.write_text(f"#!/bin/sh -e\n{script}\n")
            path.chmod(0o755)
        booted.run(f"dpkg -i /root/{package.name}")
        yield booted


def run(box: Container, block: str) -> None:
    """Run a block of the document; its packages are installed."""
    first, rest = BLOCKS[block].split("\n", 1)
    assert first.startswith("apt install ")
    # The container has little storage.
    box.run(f"cd /root; {rest.replace('fleet init', 'fleet init --keep 100M')}")


def test_there_are_ten_commands() -> None:
    text = "\n".join(BLOCKS.values())
    files_and_loops = re.compile(r"<<'END'\n.*?^END$|^for .*?(?=^done$)", re.MULTILINE | re.DOTALL)
    text = re.sub(r"(\\|\|)\n", " ", files_and_loops.sub("", text))
    assert len([line for line in text.splitlines() if line]) == 10


def test_the_commands_of_the_document(box: Container) -> None:
    run(box, "broker")
    for host in ("web1", "app1", "db1"):
        box.run(f"test -s /hosts/{host}/etc/sockagent/ca.crt")
        mode = box.run(f"stat -c %a /hosts/{host}/etc/sockagent/nats.creds").stdout.strip()
        assert mode == "600"
    assert box.run("stat -c %U:%a /etc/nats-server.conf").stdout.strip() == "nats:600"
    box.run("cp -rp /hosts/web1/etc/sockagent /etc")
    run(box, "host")
    reader = (
        f"cd /root; sockagent --connect tls://reader@{ADDRESS} --nats-creds reader.creds "
        "--tls-ca /var/lib/nats/tls.crt --since start"
    )
    with box.start(reader) as reading:
        assert reading.stdout
        hosts = set()
        for line in reading.stdout:
            record = json.loads(line)
            hosts.add(record["host"])
            if record["event"] == "snapshot_end":
                break
        reading.terminate()
    assert hosts == {"web1"}
    assert box.show("Result", "sockagent-publish.service") == "success"
    journal = box.run("journalctl -u sockagent-publish -o cat --no-pager").stdout
    assert "retrying" not in journal


def test_the_page_of_the_document(box: Container) -> None:
    command = BLOCKS["reader"].replace("\\\n", " ")
    page = (
        "from urllib.request import urlopen; "
        "print(urlopen('http://127.0.0.1:8766/').read().decode()[:15])"
    )
    with box.start(f"cd /root; exec {command}") as serving:
        box.until(f'/usr/lib/sockagent/bin/python -c "{page}" | grep -qi doctype')
        serving.terminate()


def test_the_publisher_reaches_the_broker_alone(box: Container) -> None:
    exposure = box.run("systemd-analyze security --no-pager sockagent-publish.service").stdout
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", exposure)
    assert found
    assert float(found[1]) <= 1.5
    addresses = box.show("IPAddressAllow", "sockagent-publish.service").split()
    assert sorted(addresses) == ["127.0.0.0/8", f"{ADDRESS}/32", "::1/128"]
