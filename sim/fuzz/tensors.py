"""`.safetensors` files of others, and the folders of finished trainings."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from safetensors.numpy import save

from compiler.compressed import CompressedModel
from compiler.compressible import compress_network
from compiler.plain_tensors import read_tensors
from sim.fuzz.lies import lie_bytes, lie_value, parse_tensors, text, write_tensors
from sim.fuzz.target import Finding, Target

__all__ = ["Runs", "Tensors"]

_TYPES = ("F64", "F32", "F16", "BF16", "F8_E4M3", "I64", "I32", "I16", "I8", "U8", "BOOL", "C64", "X9")


def _lying(random: Random, whole: bytes) -> bytes:
    """A file whose header lies about its tensors, or whose bytes are damaged."""
    if random.random() < 0.2:
        return lie_bytes(random, whole)
    header, content = parse_tensors(whole)
    for _ in range(random.choice((1, 1, 2))):
        name = random.choice([key for key in header if key != "__metadata__"])
        entry = dict(header[name])
        match random.randrange(5):
            case 0:
                entry["dtype"] = random.choice(_TYPES)
            case 1:
                entry["shape"] = random.choice((entry["shape"][::-1], [], [1, *entry["shape"]], [1 << 32, 1 << 32, 0]))
            case 2:
                entry = {**entry, **header[random.choice([key for key in header if key != "__metadata__"])]}
            case 3:
                header = {**header, text(random): entry}
            case _:
                return write_tensors(lie_value(random, header), content)
        header = {**header, name: entry}
    if random.random() < 0.3:
        content = lie_bytes(random, content)
    return write_tensors(header, content)


class Tensors(Target):
    """Weights that somebody else wrote, as `eie compress` and ``--weights`` read them."""

    name = "safetensors"
    text = "weights as .safetensors"
    suffix = ".safetensors"
    share = 100

    def prepare(self) -> None:
        """Files with tensors of several types."""
        rng = np.random.default_rng(1)
        shared = rng.choice(np.array([0, 0, 0, -0.5, 0.25, 1.5], np.float32), (6, 9))
        state: dict[str, Any] = {
            "a.weight": shared, "a.bias": rng.normal(size=6).astype(np.float32),
            "b.weight": rng.normal(size=(4, 6)).astype(np.float16), "n": np.array(7), "m": np.zeros((0, 3), np.float32),
            "flags": np.array([True, False]),
        }  # fmt: skip
        halves = parse_tensors(save({"h": np.arange(8, dtype=np.int16), "a.weight": shared}))
        halves[0]["h"]["dtype"] = "BF16"
        self._files = [save(state, {"made": "by a test"}), save({"a.weight": shared}), write_tensors(*halves)]

    def make(self, random: Random) -> bytes:
        """One whose header lies."""
        return _lying(random, random.choice(self._files))

    def check(self, path: Path, random: Random) -> None:
        """What is read is compressed without loss."""
        state = read_tensors(path)
        for name, array in state.items():
            if array.dtype.hasobject or (array.dtype.kind == "f" and array.dtype != np.float32):
                raise Finding(f"{name} is read as {array.dtype}")
        if sum(array.size for array in state.values()) < 4000:
            compress_network(CompressedModel.from_state(state), "huffman")


class Runs(Target):
    """Folders of `eie train`: the network with its recipe, and calibration data."""

    name = "run"
    text = "folders of finished trainings, checksums of theirs there are none"
    suffix = ".safetensors"
    share = 4

    def prepare(self) -> None:
        """Networks of two recipes, as they are before any training."""
        import tempfile

        from compiler.train import checkpoint, structure
        from compiler.train.data import DATASETS
        from compiler.train.models import build
        from compiler.train.recipe import parse

        self._folder = Path(tempfile.mkdtemp(prefix="eie-fuzz-"))
        stages = [{"kind": "dense", "epochs": 1, "batch": 8, "learning_rate": 1e-3}]
        models: tuple[dict[str, Any], ...] = (
            {"name": "mlp", "hidden": [5, 4]}, {"name": "lenet-5", "channels": [2, 3], "hidden": 4, "padding": 2},
            {"name": "lstm", "hidden": 3},
        )  # fmt: skip
        self._files, self._calibration = [], (self._folder / "calibration.npy")
        data = DATASETS["digits"]
        for model in models:
            recipe = parse(
                {"name": "small", "data": {"name": "digits"}, "model": model, "stages": stages}, "the recipe"
            )
            module = build(recipe.model, data.shape, data.classes)
            path = self._folder / "made.safetensors"
            content = {"recipe": recipe.asdict(), "structure": structure.describe(module)}
            checkpoint.save(path, module.state_dict(), content)
            self._files.append(path.read_bytes())
        np.save(self._calibration, np.zeros((2, int(np.prod(data.shape))), np.float32))

    def make(self, random: Random) -> bytes:
        """One whose recipe or structure lies, or its tensors."""
        whole = random.choice(self._files)
        if random.random() < 0.3:
            return _lying(random, whole)
        header, content = parse_tensors(whole)
        told = json.loads(header["__metadata__"]["eie"])
        part = random.choice(("recipe", "recipe", "structure", "format"))
        told = {**told, part: lie_value(random, told[part])} if random.random() < 0.9 else lie_value(random, told)
        said = json.dumps(told)
        if random.random() < 0.05:
            said = random.choice(("[" * 100_000, lie_bytes(random, said.encode()).decode("utf-8", "replace")))
        return write_tensors({**header, "__metadata__": {**header["__metadata__"], "eie": said}}, content)

    def check(self, path: Path, random: Random) -> None:
        """The network that is read computes finite numbers, as many as there are classes, from zeros."""
        from compiler.train.run import load_run

        folder = self._folder / "run"
        folder.mkdir(exist_ok=True)
        shutil.copyfile(path, folder / "model.safetensors")
        shutil.copyfile(self._calibration, folder / "calibration.npy")
        (folder / "report.json").write_text('{"stages": []}')
        run = load_run(folder)
        if run.calibration.shape[1] != run.example_inputs[0].shape[1]:
            raise Finding("calibration data of another width than its inputs")

    def close(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self._folder, ignore_errors=True)
