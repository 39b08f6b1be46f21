"""What is left of a run in the end: the plain and the compressed model, calibration inputs, plots, the report."""

from __future__ import annotations

import io
import json
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from compiler.coding.container import decompress
from compiler.command_line import command
from compiler.train import checkpoint, quantize, structure
from compiler.train.data import Dataset, is_own
from compiler.train.layers import uncovered, weights
from compiler.train.packing import compressed_files
from compiler.train.progress import fresh
from compiler.train.recipe import Recipe
from compiler.train.runfolder import CALIBRATION, COMPRESSED, MODEL, REPORT
from compiler.train.sizes import layer_size

__all__ = ["calibration", "dense_bytes", "finish", "layers_of", "versions"]

_CALIBRATION_SAMPLES = 1024
_SUMMED = ("weights", "nonzeros", "sparse_bytes")


def finish(
    recipe: Recipe,
    module: nn.Module,
    plain: nn.Module,
    dataset: Dataset,
    records: list[dict[str, Any]],
    out: Path,
    more: Mapping[str, Any] | None = None,
    plots: bool = True,
) -> dict[str, Any]:
    """Write all that a run leaves; the report comes last and says that everything is there.

    plain : the same network as `module`, masks applied and shared weights written out.
    more : what the report holds besides. plots : whether pictures are drawn.
    """
    content = {"recipe": recipe.asdict(), "structure": structure.describe(plain)}
    if is_own(dataset.name):  # which reading the file does not run
        content["data"] = {"shape": list(dataset.shape), "classes": dataset.classes}
    checkpoint.save(out / MODEL, plain.state_dict(), content)
    buffer = io.BytesIO()
    np.save(buffer, calibration(dataset), allow_pickle=False)
    checkpoint.write_atomic(out / CALIBRATION, buffer.getvalue())
    report = {
        "recipe": recipe.asdict(),
        "seed": recipe.seed,
        "data": {
            "name": dataset.name,
            "train": len(dataset.train),
            "validation": len(dataset.validation),
            "test": len(dataset.test),
            "refit": dataset.refit,
            "augmentation": recipe.augment is not None,
        },
        "distillation": [
            {"stage": stage.name, "teacher": stage.distill.teacher} for stage in recipe.stages if stage.distill
        ],
        "stages": records,
        "size": _sizes(plain, records, dense_bytes(recipe, dataset), out),
        **{key: round(sum(record[key] for record in records), 3) for key in ("seconds", "cpu_seconds")},
        **(more or {}),
        "command": command(),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions(),
    }
    if plots:
        from compiler.train.plots import run_plots

        for name, picture in run_plots(report, module).items():
            checkpoint.write_atomic(out / "plots" / name, picture)
    checkpoint.write_atomic(out / REPORT, (json.dumps(report, indent=2) + "\n").encode())
    return report


def calibration(dataset: Dataset) -> NDArray[np.float32]:
    """Training inputs to choose fixed-point ranges with, float32 (n, in): 1024 at most, from all over the set."""
    spread = np.linspace(0, len(dataset.train) - 1, min(_CALIBRATION_SAMPLES, len(dataset.train))).astype(np.intp)
    return dataset.train.inputs[spread]


def layers_of(module: nn.Module) -> list[dict[str, Any]]:
    """Weights, zeros and estimated bytes of every layer."""
    found = []
    for site in weights(module):
        shared = quantize.find(site.module, site.name)
        bias = getattr(site.module, "bias", None)
        count = int(bias.numel()) if isinstance(bias, Tensor) else 0
        value = site.value.detach().flatten(1).contiguous().numpy()
        found.append({"name": site.key, **layer_size(value, count, None if shared is None else shared.bits)})
    return found


def dense_bytes(recipe: Recipe, dataset: Dataset) -> int:
    """Bytes of the recipe's network, dense in float32, before anything was removed from it."""
    return 4 * sum(parameter.numel() for parameter in fresh(recipe.model, dataset, 0).parameters())


def versions() -> dict[str, str]:
    """What the bits of a result depend on."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "platform": platform.platform(),
        "processor": torch.backends.cpu.get_cpu_capability(),
    }


def _sizes(plain: nn.Module, records: list[dict[str, Any]], dense: int, out: Path) -> dict[str, Any]:
    """Write the compressed file; sizes of it, of the dense network, and of the layers without entropy coding."""
    files = compressed_files(plain)
    data = min(files.values(), key=len)
    checkpoint.write_atomic(out / COMPRESSED, data)
    layers = records[-1]["layers"]
    sums: Mapping[str, int] = {key: sum(layer[key] for layer in layers) for key in _SUMMED}
    return {
        **sums,
        "not_counted": uncovered(plain),
        "density": sums["nonzeros"] / max(1, sums["weights"]),
        "dense_bytes": dense,
        "file_bytes": len(data),
        "ratio": dense / len(data),
        "bytes_by_coder": {coder: len(file) for coder, file in files.items()},
        "parts": decompress(data).sizes.asdict(),
    }
