"""The command line as a whole: help, imports, errors, exit codes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import click
import pytest

import eie.doctor
from eie.cli import cli

ROOT = Path(__file__).parents[2]
COMMANDS = sorted(cli.commands)
HEAVY = ("torch", "numpy", "scipy", "numba", "amaranth", "cocotb", "rich", "hw", "compiler", "sim")


def run_python(*arguments: str, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=env, capture_output=True, text=True, check=False, timeout=120
    )


@pytest.mark.verifies("commands-help-versions-exit-codes")
def test_commands_are_those_of_the_manual() -> None:
    assert COMMANDS == [
        "bench", "compile", "compress", "compress-auto", "cost", "decompress", "diff", "doctor", "experiment", "export",
        "fpga", "fuzz", "info", "init", "presets", "report", "run", "search", "train", "verify", "verilog", "watch",
    ]  # fmt: skip


def test_version_is_told_installed_or_not(invoke) -> None:
    result = invoke("--version")
    assert result.exit_code == 0
    assert result.stdout.startswith("eie")


def test_help_is_immediate() -> None:
    times = []
    for _ in range(3):  # of the processor: a busy machine makes a command wait, not work
        before = os.times()
        result = run_python("-m", "eie", "--help")
        after = os.times()
        times.append(sum(after[2:4]) - sum(before[2:4]))
        assert result.returncode == 0
        assert all(command in result.stdout for command in COMMANDS)
    assert min(times) < 0.3


@pytest.mark.verifies("commands-help-versions-exit-codes")
def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from eie.cli import cli\n"
        f"for words in [[], *([name] for name in {COMMANDS})]:\n"
        "    cli([*words, '--help'], standalone_mode=False)\n"
        f"print('LOADED', [name for name in {HEAVY} if name in sys.modules])\n"
    )
    result = run_python("-c", code)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == "LOADED []"


@pytest.mark.verifies("info-is-remembered")
def test_info_of_a_file_that_was_seen_needs_no_model(layer, tmp_path) -> None:
    file = tmp_path / "n.eie"
    file.write_bytes(layer.image.read_bytes())
    code = (
        "import sys\n"
        "from eie.cli import cli\n"
        f"cli(['info', {str(file)!r}, '--json=-'], standalone_mode=False)\n"
        "print('LOADED', [n for n in ('numba', 'scipy', 'torch', 'amaranth') if n in sys.modules], file=sys.stderr)\n"
    )
    first, second = (run_python("-c", code, EIE_CACHE=str(tmp_path / "cache")) for _ in range(2))
    assert "amaranth" in first.stderr
    assert not {"numba", "torch"} & set(re.findall(r"\w+", first.stderr)), "half a second and more, for a small network"
    assert second.stderr.strip() == "LOADED []"
    assert first.stdout == second.stdout
    (kept,) = (tmp_path / "cache" / "described").iterdir()
    kept.write_text("{")  # damaged: made again
    third = run_python("-c", code, EIE_CACHE=str(tmp_path / "cache"))
    assert "amaranth" in third.stderr
    assert third.stdout == first.stdout
    file.write_bytes(file.read_bytes()[:-1])  # another file
    assert "expected an .eie file" in run_python("-c", code, EIE_CACHE=str(tmp_path / "cache")).stderr


def test_import_of_the_package_is_light_and_complete() -> None:
    code = (
        "import sys, eie\n"
        f"print([name for name in {HEAVY} if name in sys.modules])\n"
        "from eie import compile, load, run, save\n"
        "print(*map(callable, (compile, load, run, save)))"
    )
    result = run_python("-c", code)
    assert result.stdout.splitlines() == ["[]", "True True True True"], result.stderr


def options(command: click.Command, path: str = "eie") -> Iterator[tuple[str, click.Option]]:
    """All options of a command and its subcommands, with the command."""
    yield from ((path, each) for each in command.params if isinstance(each, click.Option))
    if isinstance(command, click.Group):
        for name in command.list_commands(click.Context(command)):
            found = command.get_command(click.Context(command), name)
            assert found is not None
            yield from options(found, f"{path} {name}")


@pytest.mark.verifies("commands-help-versions-exit-codes")
def test_every_option_says_what_it_does() -> None:
    assert [f"{path} {each.opts[-1]}" for path, each in options(cli) if not each.help] == []


@pytest.mark.verifies("commands-help-versions-exit-codes")
@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_each_command_shows_an_example(command, invoke) -> None:
    result = invoke(command, "--help")
    assert result.exit_code == 0
    assert f"Example:\n    eie {command}" in result.stdout
    assert "--json" in result.stdout


@pytest.mark.verifies("commands-help-versions-exit-codes")
@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["--set", "pe=4"], ["'pe'", "queue_depth"]),
        (["--set", "pes=three"], ["pes=three", "integer"]),
        (["--set", "pes=3"], ["pes is 3", "power of two"]),
        (["--set", "index_bits=9"], ["index_bits is 9", "4 to 8"]),
        (["--set", "queue_depth=5"], ["queue_depth is 5", "6"]),
        (["--set", "balanced=1"], ["balanced is 1", "true or false"]),
        (["--set", "pes"], ["'pes'", "key=value"]),
        (["--preset", "EIE"], ["'EIE'", "EIE_64", "BALANCED_16"]),
    ],
)
def test_wrong_parameters_name_the_legal_ones(settings, words, invoke, tmp_path) -> None:
    result = invoke("verilog", *settings, "-o", tmp_path / "rtl")
    assert result.exit_code == 2
    assert all(word in result.stderr for word in words), result.stderr
    assert result.stdout == ""
    assert not (tmp_path / "rtl").exists()


def test_verilog_writes_all_files_and_says_which(invoke, tmp_path) -> None:
    result = invoke("verilog", "--set", "pes=1", "-o", tmp_path / "rtl", "--json")
    assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout)
    assert answer["params"]["pes"] == 1
    assert {Path(file).name for file in answer["files"]} >= {"accelerator.v", "eie_ram.v", "registers.md", "eie.h"}
    assert all(Path(file).stat().st_size for file in answer["files"])
    assert answer["hash"] in (tmp_path / "rtl" / "accelerator.v").read_text()


def test_verilog_says_how_to_lint_it(invoke, tmp_path) -> None:
    result = invoke("verilog", "--set", "pes=1", "-o", tmp_path / "rtl")
    (line,) = (line for line in result.stdout.splitlines() if "--lint-only" in line)
    words = line.split()
    assert all((tmp_path / "rtl" / name).exists() for name in ("lint.vlt", "accelerator.v", "eie_ram.v"))
    assert words.index("lint.vlt") < words.index("accelerator.v")  # waivers hold for what follows them


def test_verilog_refuses_a_file_as_folder(invoke, tmp_path) -> None:
    (tmp_path / "rtl").write_text("precious")
    result = invoke("verilog", "-o", tmp_path / "rtl")
    assert result.exit_code == 2
    assert "is a file" in result.stderr
    assert (tmp_path / "rtl").read_text() == "precious"


def fail(*arguments: object, **named: object) -> NoReturn:
    raise RuntimeError("the sky fell")


def test_an_internal_error_is_short_and_tells_how_to_see_more(invoke, tmp_path, monkeypatch) -> None:
    import hw.export

    monkeypatch.setattr(hw.export, "verilog_files", fail)
    result = invoke("verilog", "-o", tmp_path / "rtl")
    assert result.exit_code == 70
    assert "RuntimeError: the sky fell" in result.stderr
    assert "EIE_DEBUG=1" in result.stderr
    assert "Traceback" not in result.stderr
    monkeypatch.setenv("EIE_DEBUG", "1")
    result = invoke("verilog", "-o", tmp_path / "rtl")
    assert result.exit_code == 70
    assert "Traceback" in result.stderr
    assert "in fail" in result.stderr


def test_an_interrupt_is_no_failed_comparison(invoke, tmp_path, monkeypatch) -> None:
    import hw.export

    def interrupt(*arguments: object) -> NoReturn:
        raise KeyboardInterrupt

    monkeypatch.setattr(hw.export, "verilog_files", interrupt)
    assert invoke("verilog", "-o", tmp_path / "rtl").exit_code == 130


def test_a_closed_pipe_is_no_failed_comparison(layer) -> None:
    command = f"{sys.executable} -m eie info {layer.image} | true; exit ${{PIPESTATUS[0]}}"
    result = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert result.returncode == 141
    assert result.stderr == ""


def test_doctor_reports_and_ends_with_three_when_a_tool_is_missing(invoke, monkeypatch) -> None:
    tools = eie.doctor.check(packages=False)
    monkeypatch.setattr(eie.doctor, "check", lambda *_: [tool._replace(ok=True, problem="") for tool in tools])
    result = invoke("doctor", "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["ok"] is True
    missing = tools[0]._replace(ok=False, required=True, problem="not found")
    monkeypatch.setattr(eie.doctor, "check", lambda *_: [missing, *tools[1:]])
    result = invoke("doctor")
    assert result.exit_code == 3
    assert missing.name in result.stdout
    assert json.loads(invoke("doctor", "--json").stdout)["ok"] is False


WITHOUT_TORCH = (
    "import sys\n"
    "class Missing:\n"
    "    def find_spec(self, name, path=None, target=None):\n"
    "        if name.partition('.')[0] in ('torch', 'sklearn'):\n"
    "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
    "sys.meta_path.insert(0, Missing())\n"
    "from eie.cli import main\n"
    "sys.argv = ['eie', *sys.argv[1:]]\n"
    "main()\n"
)


@pytest.mark.verifies("commands-help-versions-exit-codes")
def test_without_torch_layers_compile_and_run(layer, tmp_path) -> None:
    compiled = run_python("-c", WITHOUT_TORCH, "compile", str(layer.npz), "-o", "l.eie", cwd=tmp_path)
    assert compiled.returncode == 0, compiled.stderr
    ran = run_python(
        "-c", WITHOUT_TORCH, "run", "l.eie", "--input", str(layer.inputs), "--output", "y.npz", cwd=tmp_path
    )
    assert ran.returncode == 0, ran.stderr
    assert (tmp_path / "y.npz").exists()


def test_without_torch_a_module_is_refused_with_the_name_of_the_extra(tmp_path) -> None:
    result = run_python("-c", WITHOUT_TORCH, "compile", "mine:net", "-o", "l.eie", cwd=tmp_path)
    assert result.returncode == 3
    assert "eie-kit[torch]" in result.stderr
    assert "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_verify_names_its_suites(invoke) -> None:
    from sim.verify import suites

    assert all(name in invoke("verify", "--list").stdout for name in suites())
    assert suites().items() <= json.loads(invoke("verify", "--list", "--json", "-").stdout).items()
    result = invoke("verify", "nonsense")
    assert result.exit_code == 2
    assert all(name in result.stderr for name in suites())


@pytest.mark.verifies("commands-help-versions-exit-codes")
def test_verify_ends_with_one_when_a_case_differs(invoke, monkeypatch) -> None:
    import sim.verify
    from sim.verify import Mismatch, Report

    asked: dict[str, object] = {}

    def pretend(suite: str, **options: object) -> Report:
        asked.update(suite=suite, **options)
        failures = [Mismatch(77, "output of fc1, vector 0, neuron 3: 1, golden 2")] if options["seed"] == 7 else []
        return Report(suite, 1, trials=3, values=9, failures=failures)

    monkeypatch.setattr(sim.verify, "verify", pretend)
    good = invoke("verify", "amaranth", "--seed", 4, "--jobs", 2, "--json")
    assert good.exit_code == 0
    assert json.loads(good.stdout)["passed"] is True
    assert (asked["suite"], asked["seed"], asked["jobs"]) == ("amaranth", 4, 2)
    bad = invoke("verify", "amaranth", "--seed", 7)
    assert bad.exit_code == 1
    assert "case 77: output of fc1" in bad.stdout
