"""What the README shows is what happens."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


@pytest.mark.rtl
@pytest.mark.slow
def test_python_example_runs(tmp_path):
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    done = subprocess.run([sys.executable, "-c", example], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert re.match(r"\[\d( \d){7}\] \d+\n", done.stdout)
    assert (tmp_path / "net.eie").exists()


def test_commands_shown_exist():
    from click.testing import CliRunner

    from eie.cli import cli

    shown = set(re.findall(r"^eie (\w+)", README, re.MULTILINE))
    assert shown >= {"compile", "info", "run", "diff", "verilog", "verify"}
    for command in shown:
        assert CliRunner().invoke(cli, [command, "--help"]).exit_code == 0
