"""One form for every failure, on every terminal and with a full disk."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from eie.failure import EXTRAS, Reporting

ROOT = Path(__file__).parents[2]


def eie(*arguments: str, stdout: object = subprocess.PIPE, **environment: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "eie", *arguments], stdout=stdout, stderr=subprocess.PIPE, check=False, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment}, timeout=120,
    )  # fmt: skip


@pytest.mark.verifies("form-errors-full-disk-terminals")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["info"], "eie: missing argument 'FILE'\nTry: eie info --help\n"),
        (["info", "--foo", "x"], "eie: no such option '--foo'\nTry: eie info --help\n"),
        (["nope"], "eie: no such command 'nope'\nTry: eie --help\n"),
        (["verify", "rtl", "--seed", "-1"], "eie: invalid value for '--seed'"),
        (["bench", "eie", "--foo"], "Try: eie bench eie --help\n"),
        (["compile", "", "-o", "x.eie"], "eie: INPUT is an empty text"),
    ],
)
def test_wrong_usage_has_the_form_of_all_errors(arguments, words, invoke) -> None:
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert words in result.stderr
    assert result.stderr.startswith("eie: ")
    assert "Usage:" not in result.stderr
    assert result.stdout == ""


def test_without_a_command_the_help_is_shown(invoke) -> None:
    assert "Commands:" in invoke().output


@pytest.mark.verifies("form-errors-full-disk-terminals")
@pytest.mark.parametrize("arguments", [["--help"], ["info", "--help"], ["--version"], ["verify", "--list"]])
def test_a_full_disk_is_no_internal_error(arguments) -> None:
    with open("/dev/full", "wb") as full:
        done = eie(*arguments, stdout=full)
    assert done.returncode == 2
    assert done.stderr == b"eie: standard output cannot be written: No space left on device\n"


@pytest.mark.verifies("form-errors-full-disk-terminals")
@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "cp437"])
def test_a_terminal_without_utf8_gets_the_nearest_signs(encoding) -> None:
    code = (
        "from eie.encoding import encodable\n"
        "from eie.tables import table_text\n"
        "encodable()\n"
        "print(table_text(('a', 'b'), [('→ … × é 中', 1)]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=False, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": encoding},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    text = done.stdout.decode(encoding)
    assert "-> ... x" in text or "-> ... ×" in text
    assert "?" in text.splitlines()[-1]


def test_a_missing_package_is_named_and_a_missing_part_of_the_kit_is_a_fault() -> None:
    def run(name: str) -> tuple[int, str]:
        @click.command(cls=Reporting)
        def command() -> None:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

        result = CliRunner().invoke(command)
        return result.exit_code, result.stderr

    code, text = run("torch.export")
    assert code == 3
    assert "eie-kit[torch]" in text
    code, text = run("compiler.nothing")
    assert code == 70
    assert "pip install" not in text


def test_every_extra_that_is_named_exists() -> None:
    import tomllib

    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(EXTRAS.values()) <= set(extras)


def test_a_recipe_with_a_byte_order_mark_is_read(tmp_path) -> None:
    pytest.importorskip("torch")
    from compiler.train.recipe import load

    text = (ROOT / "recipes" / "digits.toml").read_text()
    (tmp_path / "digits.toml").write_text(text, encoding="utf-8-sig")
    assert load(tmp_path / "digits.toml") == load(ROOT / "recipes" / "digits.toml")
