"""Who may import whom. Independence of the golden model from the packer is worth something only while it holds."""

from __future__ import annotations

import ast
import sys
from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("hw", "compiler", "sim", "eie")
STANDARD = set(sys.stdlib_module_names)
# Loading these runs code from the file.
PICKLERS = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}


def modules_named(source: str, module: str) -> set[str]:
    """Every dotted name that a file imports; ``from a import b`` gives both ``a`` and ``a.b``."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = module.split(".")[: -node.level]
                base = ".".join([*parents, base] if base else parents)
            names.add(base)
            names.update(f"{base}.{alias.name}" for alias in node.names)
    return names


def top(name: str) -> str:
    return name.split(".", 1)[0]


def within(name: str, *allowed: str) -> bool:
    return any(name == module or name.startswith(module + ".") for module in allowed)


def violations(module: str, source: str) -> list[str]:
    """What `module` imports and must not."""
    names = modules_named(source, module)
    own = {name for name in names if top(name) in PACKAGES}
    other = {name for name in names if top(name) not in PACKAGES and top(name) not in STANDARD}
    bad: set[str] = {name for name in names if top(name) in PICKLERS or top(name) == "tests"}

    if within(module, "hw.rtl"):  # what `eie verilog` copies beside the Verilog; no part of the kit imports it
        bad |= own | {name for name in other if not within(name, "litex", "migen")}
    elif within(module, "hw"):
        bad |= {name for name in other if not within(name, "amaranth")}
        bad |= {name for name in own if not within(name, "hw")}
    if within(module, "compiler"):
        bad |= {name for name in own if not within(name, "compiler", "hw.params", "hw.layouts") and name != "hw"}
    if within(module, "sim"):
        bad |= {name for name in own if within(name, "eie")}
    if within(module, "sim.golden", "sim.golden_ops", "sim.decode", "compiler.cycles"):
        hidden = ("compiler.lower.encode", "compiler.lower.pack")
        bad |= {name for name in own if within(name, *hidden) or name in ("compiler.*", "compiler.lower.*")}
    if within(module, "sim.golden", "sim.golden_ops"):
        bad |= {name for name in own if not within(name, "sim.golden", "sim.golden_ops")}
        bad |= {name for name in other if not within(name, "numpy", "scipy")}
    if within(module, "sim.decode"):
        bad |= {
            name for name in own if within(name, "hw") and not within(name, "hw.params", "hw.layouts") and name != "hw"
        }
    # sim.benchmarks.anchors times torch for comparison, where it is installed.
    uses_torch = within(module, "compiler.train", "compiler.experiments", "sim.benchmarks.anchors")
    if not uses_torch and not module.startswith("compiler.frontend.torch_"):
        bad |= {name for name in other if within(name, "torch", "sklearn")}
    if module != "compiler.clusters":
        bad |= {name for name in other if within(name, "ray")}
    if not module.startswith("compiler.frontend.onnx"):
        bad |= {name for name in other if within(name, "onnx")}
    if module == "eie.doctor":  # runs before anything is installed
        bad |= own | other
    return sorted(bad)


def sources() -> list[tuple[str, Path]]:
    found = []
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found.append((".".join(parts[:-1] if parts[-1] == "__init__" else parts), path))
    return found


@pytest.mark.verifies("import-rules-golden-model-decoder")
@pytest.mark.parametrize(("module", "path"), [pytest.param(*item, id=item[0]) for item in sources()])
def test_import_rules_hold(module: str, path: Path) -> None:
    assert violations(module, path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("module", "source", "caught"),
    [
        ("hw.pe", "import numpy as np", ["numpy"]),
        ("hw.pe", "from compiler.image.image import Image", ["compiler.image.image", "compiler.image.image.Image"]),
        ("compiler.lower.pack", "from hw import params, pe", ["hw.pe"]),
        ("compiler.lower.pack", "import sim.golden", ["sim.golden"]),
        ("compiler.lower.pipeline", "def f():\n    import torch", ["torch"]),
        ("compiler.train.loop", "import torch", []),
        ("compiler.frontend.onnx", "import onnx.inliner", []),
        ("compiler.frontend.torch_export", "import onnx", ["onnx"]),
        ("compiler.frontend.torch_export", "import torch", []),
        ("compiler.frontend.gate", "import torch", ["torch"]),
        ("compiler.clusters", "import ray", []),
        ("sim.executors", "import ray", ["ray"]),
        ("sim.golden", "from hw.params import Params", ["hw.params", "hw.params.Params"]),
        ("sim.golden", "from .timing import works", ["sim.timing", "sim.timing.works"]),
        ("sim.golden", "import numba", ["numba"]),
        ("sim.decode", "from compiler.lower import pack", ["compiler.lower.pack"]),
        (
            "sim.decode",
            "from compiler.lower.pack import memory_words",
            ["compiler.lower.pack", "compiler.lower.pack.memory_words"],
        ),
        ("sim.decode", "from compiler.lower import *", ["compiler.lower.*"]),
        ("sim.decode", "from hw.layouts import ENTRY\nfrom compiler.image.image import Image", []),
        ("sim.decode", "import hw.pe", ["hw.pe"]),
        (
            "compiler.cycles.model",
            "from compiler.lower.encode import encode",
            ["compiler.lower.encode", "compiler.lower.encode.encode"],
        ),
        ("sim.run", "import pickle", ["pickle"]),
        ("sim.benchmarks.speed", "import torch", ["torch"]),
        ("sim.benchmarks.anchors", "import torch", []),
        ("sim.run", "from tests.sim import helper", ["tests.sim", "tests.sim.helper"]),
        ("sim.run", "import eie", ["eie"]),
        ("eie.doctor", "import numpy", ["numpy"]),
        ("eie.cli", "from sim.run import run", []),
    ],
)
def test_planted_violation_is_caught(module: str, source: str, caught: list[str]) -> None:
    assert violations(module, source) == caught


def cycle(texts: Mapping[str, str]) -> list[str]:
    """Modules that import each other in a circle, the first one repeated at the end; empty if there is none.

    Imports count wherever they stand: in a function or under TYPE_CHECKING they hide a circle and do not break it.
    """
    graph = TopologicalSorter[str]()
    for module, source in texts.items():
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Import | ast.ImportFrom):
                for alias in node.names:
                    node.names = [alias]
                    names = modules_named(ast.unparse(node), module) & texts.keys()
                    # `from a import b` names both a and a.b; where a.b is a module, a is only the way to it.
                    graph.add(module, *sorted(names, key=len)[-1:])
    try:
        graph.prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


@pytest.mark.verifies("modules-import-depth")
def test_no_modules_import_each_other() -> None:
    assert cycle({module: path.read_text(encoding="utf-8") for module, path in sources()}) == []


@pytest.mark.verifies("modules-import-depth")
@pytest.mark.parametrize(
    ("texts", "members"),
    [
        ({"a.x": "import a.y", "a.y": "import a.x"}, {"a.x", "a.y"}),
        (
            {"a.x": "from a import y", "a.y": "def f():\n    from a.z import f", "a.z": "import a.x"},
            {"a.x", "a.y", "a.z"},
        ),
        ({"a.x": "from a.y import f", "a.y": "if TYPE_CHECKING:\n    from a.x import T"}, {"a.x", "a.y"}),
        ({"a.x": "from .y import f", "a.y": "from .x import T"}, {"a.x", "a.y"}),
        ({"a": "from a.x import f", "a.x": "from a import T"}, {"a", "a.x"}),
        ({"a": "from a.x import f", "a.x": "from a import y, T", "a.y": ""}, {"a", "a.x"}),
        ({"a": "from a.x import f", "a.x": "from a import y", "a.y": ""}, set()),
    ],
)
def test_planted_cycle_is_caught(texts: dict[str, str], members: set[str]) -> None:
    assert set(cycle(texts)) == members


def test_doctor_reads_on_old_python() -> None:
    # It has to be able to say that the Python is too old.
    source = (ROOT / "eie" / "doctor.py").read_text(encoding="utf-8")
    ast.parse(source, feature_version=(3, 6))
    assert "annotations" not in {name.split(".")[-1] for name in modules_named(source, "eie.doctor")}
