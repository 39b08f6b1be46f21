"""Torch modules through the command line: from a user's function, an exported program, a training run."""

from __future__ import annotations

import json
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import eie
import sim.run

torch = pytest.importorskip("torch")
from safetensors.torch import save_file  # noqa: E402

SOURCE = """
import torch
from torch import nn

calls = 0

def net():
    return nn.Sequential(nn.Linear(12, 9), nn.ReLU(), nn.Linear(9, 4))

def with_inputs():
    return nn.Sequential(nn.Flatten(), *net()), torch.zeros(2, 3, 4)

class Unsupported(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Linear(12, 9), nn.Softsign())
        self.head = nn.Sequential(nn.Linear(9, 4), nn.LayerNorm(4))

    def forward(self, x):
        return self.head(self.stem(x))

def unsupported():
    return Unsupported()

class Pixels(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 2, 3)
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        return self.head(self.stem(x).flatten(1))

class Shortcut(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 2, 3, padding=1)
        self.second = nn.Conv2d(2, 2, 3, padding=1)
        self.short = nn.Conv2d(1, 2, 1)

    def forward(self, x):
        block = torch.relu(self.second(self.first(x).relu()) + self.short(x))
        return torch.relu(self.second(block) + block)

def shortcut():
    torch.manual_seed(0)
    return Shortcut()

class Words(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(9, 6)
        self.head = nn.Linear(10, 3)

    def forward(self, word, x):
        return self.head(torch.cat([self.table(word), x], -1))

def number():
    return 3

def needs_an_argument(x):
    return net()

def no_layers():
    return nn.ReLU()

constant = 5
"""


@pytest.fixture
def models(tmp_path, monkeypatch, rng):
    """A folder with the module `own_models`, weights and inputs; it is the current one."""
    (tmp_path / "own_models.py").write_text(SOURCE)
    (tmp_path / "broken_models.py").write_text("import own_models\nraise RuntimeError('half done')\n")
    (tmp_path / "needy_models.py").write_text("import a_package_that_is_not_there\n")
    state = {
        "0.weight": rng.normal(size=(9, 12)),
        "0.bias": rng.normal(size=9),
        "2.weight": rng.normal(size=(4, 9)),
        "2.bias": rng.normal(size=4),
    }
    save_file(
        {name: torch.tensor(value, dtype=torch.float32) for name, value in state.items()}, tmp_path / "w.safetensors"
    )
    header = b'{"w":{"dtype":"F32","shape":[0,18446744073709551615],"data_offsets":[0,0]}}'
    (tmp_path / "long.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    np.save(tmp_path / "x.npy", rng.normal(size=(50, 12)).astype(np.float32))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for name in ("own_models", "broken_models", "needy_models"):
        sys.modules.pop(name, None)


def test_a_function_with_weights_computes_what_torch_computes(models, invoke) -> None:
    compiled = invoke(
        "compile", "own_models:net", "--weights", "w.safetensors", "-o", "n.eie", "--calibrate", "x.npy", "--json"
    )
    assert compiled.exit_code == 0, compiled.output
    assert [layer["name"] for layer in json.loads(compiled.stdout)["layers"]] == ["0", "2"]
    options = ("--model", "own_models:net", "--weights", "w.safetensors", "--json")
    result = invoke("diff", "n.eie", "--input", "x.npy", "--engines", "golden,torch", *options)
    assert result.exit_code == 0, result.output
    errors = json.loads(result.stdout)["quantization"]
    assert [error["layer"] for error in errors] == ["0", "2"]
    # 108 and 36 random weights are shared by 15 values, so the error is theirs; garbage would be near 1.
    assert all(0 < error["relative"] < 0.2 for error in errors)


@pytest.mark.verifies("errors-kit-caught-eie-eieerror")
def test_errors_of_the_kit_are_caught_by_the_public_name(models) -> None:
    with pytest.raises(eie.EieError, match="LayerNorm"):
        eie.compile("own_models:unsupported")


@pytest.mark.verifies("quantized-weights-without-scale-refused")
def test_quantized_weights_without_their_scale_are_refused(models, invoke) -> None:
    state = {"0.weight": torch.ones(9, 12, dtype=torch.int8), "0.bias": torch.ones(9)}
    save_file({**state, "2.weight": torch.ones(4, 9), "2.bias": torch.ones(4)}, "int8.safetensors")
    result = invoke("compile", "own_models:net", "--weights", "int8.safetensors", "-o", "n.eie")
    assert result.exit_code == 2
    for word in ("int8.safetensors", "0.weight is int8", "expected floats", "scale"):
        assert word in result.stderr


def test_without_the_weights_the_error_shows_it(models, invoke) -> None:
    invoke("compile", "own_models:net", "--weights", "w.safetensors", "-o", "n.eie", "--calibrate", "x.npy")
    result = invoke(
        "diff", "n.eie", "--input", "x.npy", "--engines", "golden,torch", "--model", "own_models:net", "--json"
    )
    assert json.loads(result.stdout)["quantization"][-1]["relative"] > 0.5


def test_example_inputs_of_the_function_give_the_shape(models, invoke) -> None:
    compiled = invoke("compile", "own_models:with_inputs", "-o", "n.eie", "--calibrate", "x.npy")
    assert compiled.exit_code == 0, compiled.output
    options = ("--engines", "golden,cycles", "--json")
    assert json.loads(invoke("diff", "n.eie", "--input", "x.npy", *options).stdout)["equal"] is True


@pytest.mark.verifies("module-without-example-inputs-takes")
def test_calibration_data_shows_what_a_module_without_example_inputs_is_given(models, invoke, rng) -> None:
    np.save("maps.npy", rng.uniform(size=(20, 1, 4, 4)).astype(np.float32))
    np.savez("words.npz", x=rng.normal(size=(20, 4)), word=rng.integers(0, 9, 20))  # not in the order of forward
    for function, data in (("Pixels", "maps.npy"), ("Words", "words.npz")):
        compiled = invoke("compile", f"own_models:{function}", "-o", "n.eie", "--calibrate", data)
        assert compiled.exit_code == 0, compiled.output
        assert eie.compile(f"own_models:{function}", calibration=_arrays(data)).types  # the same in Python
        options = ("--input", data, "--engines", "golden,torch", "--model", f"own_models:{function}")
        assert invoke("diff", "n.eie", *options).exit_code == 0


def test_sums_are_compared_as_one_layer(models, invoke, rng, monkeypatch) -> None:
    np.save("maps.npy", rng.normal(size=(20, 1, 4, 4)).astype(np.float32))
    compiled = invoke(
        "compile", "own_models:shortcut", "-o", "n.eie", "--calibrate", "maps.npy", "--set", "code_bits=8",
        "--show-passes",
    )  # fmt: skip
    assert compiled.exit_code == 0, compiled.output
    assert "sums" in compiled.output
    assert "kinds=conv,conv" in compiled.output
    assert "kinds=conv,identity" in compiled.output
    options = ("--input", "maps.npy", "--engines", "golden,torch", "--model", "own_models:shortcut", "--json")

    def errors() -> list[float]:
        found = json.loads(invoke("diff", "n.eie", *options).stdout)["quantization"]
        assert [error["layer"] for error in found] == ["first", "add", "add@2"]
        return [error["relative"] for error in found]

    assert max(errors()) < 0.02
    decode = sim.run.decode

    def first_segment_twice(image):
        program, layers = decode(image), []
        for layer in program.layers:
            first, *others = layer.segments
            twice = [replace(first, weight=first.weight * 2), *others] if others else layer.segments
            layers.append(replace(layer, segments=tuple(twice)))
        return replace(program, layers=tuple(layers))

    monkeypatch.setattr(sim.run, "decode", first_segment_twice)
    assert errors()[0] < 0.02 < min(errors()[1:])


def _arrays(path: str) -> tuple[np.ndarray, ...]:
    content = np.load(path)
    return (content,) if isinstance(content, np.ndarray) else (content["word"], content["x"])


@pytest.mark.verifies("module-without-example-inputs-takes")
@pytest.mark.parametrize(
    ("function", "shape", "words"),
    [
        ("Pixels", None, ["(2, 8)", "--calibrate", "example_inputs"]),
        ("Pixels", (20, 3, 4, 4), ["(2, 3, 4, 4)", "right shape"]),
    ],
)
def test_what_a_module_cannot_be_given_is_said(function, shape, words, models, invoke) -> None:
    data = () if shape is None else ("--calibrate", "maps.npy")
    np.save("maps.npy", np.ones(shape or 1, np.float32))
    result = invoke("compile", f"own_models:{function}", "-o", "n.eie", *data)
    assert result.exit_code == 2
    for word in words:
        assert word in result.stderr
    assert not Path("n.eie").exists()


def test_unsupported_operations_are_all_listed_with_their_paths(models, invoke) -> None:
    result = invoke("compile", "own_models:unsupported", "-o", "n.eie")
    assert result.exit_code == 2
    for word in ("layer_norm", "stem.1", "head.1"):
        assert word in result.stderr
    assert not Path("n.eie").exists()


@pytest.mark.parametrize(
    ("source", "weights", "words"),
    [
        ("own_models:absent", None, ["own_models", "absent"]),
        ("absent_models:net", None, ["absent_models"]),
        ("broken_models:net", None, ["RuntimeError", "half done"]),
        ("own_models:number", None, ["int", "torch.nn.Module"]),
        ("own_models:constant", None, ["int", "function"]),
        ("own_models:needs_an_argument", None, ["argument"]),
        ("own_models:no_layers", None, ["Linear"]),
        ("own_models:net", "absent.safetensors", ["absent.safetensors"]),
        ("own_models:net", "x.npy", ["x.npy", "safetensors"]),
        ("own_models:net", "long.safetensors", ["long.safetensors: not a safetensors file"]),
        ("own_models:with_inputs", "w.safetensors", ["w.safetensors", "1.weight"]),
        ("layer.npz", "w.safetensors", ["--weights"]),
    ],
)
def test_wrong_sources_are_refused(source, weights, words, models, invoke) -> None:
    result = invoke("compile", source, *(["--weights", weights] if weights else []), "-o", "n.eie")
    assert result.exit_code == 2, result.output
    assert all(word in result.stderr for word in words), result.stderr
    assert not Path("n.eie").exists()


def test_a_package_that_the_users_module_needs_is_named(models, invoke) -> None:
    result = invoke("compile", "needy_models:net", "-o", "n.eie")
    assert result.exit_code == 3
    assert "a_package_that_is_not_there" in result.stderr


def test_exported_programs_need_trust(models, invoke) -> None:
    from torch import nn

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, about its internals
        module = nn.Sequential(nn.Linear(12, 9), nn.ReLU(), nn.Linear(9, 4)).eval()
        torch.export.save(torch.export.export(module, (torch.zeros(2, 12),)), "n.pt2")
    result = invoke("compile", "n.pt2", "-o", "n.eie", "--calibrate", "x.npy")
    assert result.exit_code == 2
    assert "--trust" in result.stderr
    assert not Path("n.eie").exists()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = invoke("compile", "n.pt2", "--trust", "-o", "n.eie", "--calibrate", "x.npy", "--json")
    assert result.exit_code == 0, result.output
    assert [layer["name"] for layer in json.loads(result.stdout)["layers"]] == ["0", "2"]
    Path("bad.pt2").write_text("not an archive")
    result = invoke("compile", "bad.pt2", "--trust", "-o", "bad.eie")
    assert result.exit_code == 2
    assert "bad.pt2" in result.stderr


RECIPE = """
name = "tiny"
[data]
name = "digits"
[model]
name = "mlp"
hidden = [16]
[[stages]]
kind = "dense"
epochs = 3
batch = 64
learning_rate = 5e-3
[[stages]]
kind = "prune"
epochs = 2
batch = 64
learning_rate = 5e-3
ramp = 0.6
density = { fc1 = 0.3, fc2 = 0.5 }
[[stages]]
kind = "share"
epochs = 1
batch = 64
learning_rate = 5e-4
code_bits = 4
"""


def test_a_run_is_trained_compiled_with_its_own_calibration_and_close_to_float(models, invoke) -> None:
    Path("tiny.toml").write_text(RECIPE)
    trained = invoke("train", "tiny.toml", "-o", "run", "--json")
    assert trained.exit_code == 0, trained.output
    report = json.loads(trained.stdout)
    assert report["stages"][-1]["accuracy"]["test"] > 0.5  # a tenth would be chance
    assert Path("run/model.safetensors").is_file()
    assert json.loads(Path("run/report.json").read_text()) == report

    again = invoke("train", "tiny.toml", "-o", "run")
    assert again.exit_code == 2
    assert "--resume" in again.stderr
    assert invoke("train", "tiny.toml", "-o", "run", "--resume").exit_code == 0

    compiled = invoke("compile", "run", "-o", "n.eie", "--set", "pes=4")
    assert compiled.exit_code == 0, compiled.output
    assert "--calibrate" not in compiled.stderr  # it brings its own
    np.save("images.npy", np.load("run/calibration.npy")[:20])
    options = ("--input", "images.npy", "--engines", "golden,cycles,torch", "--model", "run", "--json")
    answer = json.loads(invoke("diff", "n.eie", *options).stdout)
    assert answer["equal"] is True
    assert len(answer["comparisons"]) == 1
    assert all(error["relative"] < 0.01 for error in answer["quantization"])


def test_a_wrong_recipe_is_refused(models, invoke) -> None:
    Path("bad.toml").write_text(RECIPE.replace("epochs = 3", "epochs = -3"))
    result = invoke("train", "bad.toml", "-o", "run")
    assert result.exit_code == 2
    assert "epochs" in result.stderr
    assert not Path("run").exists()


def test_python_compiles_a_module_and_calibrates_on_its_example_inputs(models) -> None:
    from torch import nn

    import eie
    from hw.params import Params

    x = np.load("x.npy")
    module = nn.Sequential(nn.Linear(12, 9), nn.ReLU(), nn.Linear(9, 4)).eval()
    image = eie.compile(module, torch.from_numpy(x), params=Params(pes=2))
    result = eie.run(image, x, engine="golden")
    expected = module(torch.from_numpy(x)).detach().numpy()
    error = result.value - expected
    assert np.sqrt(np.mean(error**2)) < 0.2 * np.sqrt(np.mean(expected**2))
    assert result.input_saturated == 0
