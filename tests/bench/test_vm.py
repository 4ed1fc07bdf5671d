import subprocess
from pathlib import Path

import pytest

from bench import vm
from bench.vm import shell_script


def test_shell_script_runs_the_command_and_writes_its_outputs_and_status_to_the_ports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a directory").mkdir()
    (tmp_path / "vport0p1").touch()
    changed = vm._SCRIPT.replace("/dev/vport", f"{tmp_path}/vport").replace(
        "/run/vm/busybox", "echo"
    )
    monkeypatch.setattr(vm, "_SCRIPT", changed)
    command = ["sh", "-c", 'pwd; echo "$NAME" >&2; exit 3']
    script = shell_script(command, tmp_path / "a directory", {"NAME": "two words", "LANG": "C"})
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "poweroff -f\n"
    assert [(tmp_path / f"vport0p{port}").read_text() for port in (1, 2, 3)] == [
        f"{tmp_path}/a directory\n", "two words\n", "3\n",
    ]  # fmt: skip
