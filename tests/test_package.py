"""The wheel, installed where there is nothing but what it says it needs: no clone, no torch, no test tools."""

from __future__ import annotations

import importlib.metadata as metadata
import json
import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PACKAGES = ("hw", "compiler", "sim", "eie")


def run(*command: str | Path, cwd: Path, expect: int = 0) -> str:
    """Standard output of a command that sees nothing of this environment."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV"))}
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == expect, f"{command}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def distributions(requirements: list[str]) -> set[str]:
    """Names of the distributions that these requirements need here, and that those need in turn."""
    names: set[str] = set()
    todo = [(line, "") for line in requirements]
    while todo:
        line, extra = todo.pop()
        requirement = Requirement(line)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = requirement.name.lower().replace("_", "-")
        if name not in names or requirement.extras:
            names.add(name)
            for wanted in ("", *requirement.extras):
                todo += [(child, wanted) for child in metadata.requires(name) or []]
    return names


def requires(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        text = archive.read(name).decode()
    return [line.removeprefix("Requires-Dist: ") for line in text.splitlines() if line.startswith("Requires-Dist: ")]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ".", cwd=ROOT)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the commands of a new environment that holds the wheel and the packages it requires.

    Those are linked from this environment, which spares a download of them; what the wheel does not ask for,
    directly or through others, is not there.
    """
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=True)
    commands = folder / "bin"
    site = Path(
        run(commands / "python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip()
    )
    names = distributions(requires(wheel))
    assert "torch" not in names
    assert "hypothesis" not in names
    for name in names:
        distribution = metadata.distribution(name)
        for part in {Path(file).parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}:
            if not (site / part).exists():
                (site / part).symlink_to(Path(str(distribution.locate_file(part))))
    pip = [sys.executable, "-m", "pip", "-qq", "--python", commands / "python", "install"]
    run(*pip, "--no-deps", "--no-index", "--disable-pip-version-check", wheel, cwd=folder)
    return commands


def test_wheel_holds_every_file_of_the_packages_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    kept = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.suffix not in (".vcd", ".fst")
    }
    kept |= {f"eie/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / "recipes").rglob("*.toml")}
    assert packed == kept
    assert {f"{package}/py.typed" for package in PACKAGES} <= packed
    assert any(name.endswith(".v") for name in packed)


def test_kit_works_without_a_clone_and_without_torch(
    environment: Path, rng: np.random.Generator, tmp_path: Path
) -> None:
    eie, python = environment / "eie", environment / "python"
    place = run(python, "-c", "import sim.golden; print(sim.golden.__file__)", cwd=tmp_path).strip()
    assert Path(place).is_relative_to(environment.parent)
    run(python, "-c", "import torch", cwd=tmp_path, expect=1)

    # More values than 4 bits can tell apart would be clustered; these few are kept exactly.
    weight = rng.choice([-3, -2, 1, 2, 5], size=(37, 50)) * (rng.random((37, 50)) < 0.2)
    x = rng.integers(-1000, 1000, size=(6, 50), dtype=np.int16)
    np.savez(tmp_path / "layer.npz", weight=weight.astype(np.int16), activation="relu")
    np.save(tmp_path / "x.npy", x)

    report = json.loads(run(eie, "doctor", "--engine", "golden", "--json", cwd=tmp_path))
    assert {tool["name"]: tool["ok"] for tool in report["tools"]}["torch"] is False
    run(eie, "compile", "layer.npz", "-o", "layer.eie", "--preset", "BALANCED_4", "--calibrate", "x.npy", cwd=tmp_path)
    options = ("--input", "x.npy", "--output", "y.npz", "--engine", "golden", "--json")
    assert json.loads(run(eie, "run", "layer.eie", *options, cwd=tmp_path))["batch"] == 6

    with np.load(tmp_path / "y.npz") as y:
        raw, exponent = y["raw"].astype(np.int64), int(y["exponent"])
    exact = np.maximum(x.astype(np.int64) @ weight.T, 0)
    expected = np.clip(np.floor(exact / 2.0**exponent + 0.5), -32768, 32767)
    np.testing.assert_array_equal(raw, expected.astype(np.int64))
    assert np.count_nonzero(raw) > 0


def test_init_works_without_a_clone_and_without_torch(environment: Path, tmp_path: Path) -> None:
    eie = environment / "eie"
    run(eie, "init", "my", "--recipes", cwd=tmp_path)
    recipes = {path.relative_to(ROOT).as_posix() for path in (ROOT / "recipes").rglob("*.toml")}
    written = {path.relative_to(tmp_path / "my").as_posix() for path in (tmp_path / "my" / "recipes").rglob("*")}
    assert recipes <= written
    options = ("--preset", "BALANCED_4", "--calibrate", "x.npy")
    run(eie, "compile", "layer.npz", "-o", "layer.eie", *options, cwd=tmp_path / "my")
    assert "largest" in run(eie, "run", "layer.eie", "--input", "x.npy", cwd=tmp_path / "my")
