"""Trained networks stage by stage, and in integers: what pruning, sharing and the array's number formats cost.

Each row is the folder of a training run: accuracies on its test set of the network as each stage left it, in floats,
and of the compiled network, by the golden model. A few of those samples may run as Verilog too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compiler.lower.pipeline import lower
from compiler.network import Network
from compiler.options import DEFAULT, Options
from compiler.source import fit, load
from hw.params import Params
from sim.compare import compare_networks
from sim.network import run_network

__all__ = ["AT_ONCE", "golden_outputs", "interval", "measure_runs"]

AT_ONCE = 250
"""Samples that the golden model takes at a time; bounds the memory of the values of all layers."""


def measure_runs(
    folders: Sequence[Path],
    params: Params,
    *,
    options: Options = DEFAULT,
    samples: int | None = None,
    rtl_samples: int = 0,
    progress: Callable[[str], None] = lambda text: None,
) -> Iterator[dict[str, Any]]:
    """A row a run: accuracies 0 … 1, weights, and which layers the compiler had to share anew.

    Those of the stages are of the whole test set; "floats" and "golden" are of the same samples, "interval" is where
    the accuracy "golden" lies for 95 of 100 test sets of this size.

    Parameters
    ----------
    folders : that ``eie train`` wrote.
    samples : of the test set, the first ones, that the golden model computes; None for all.
    rtl_samples : of the test set, the first ones, whose array parts run as Verilog too, and are compared with the
        models in every bit and cycle.

    Raises
    ------
    InputError
        A folder holds no finished run.
    ToolError
        Verilator is missing.
    """
    from compiler.train.run import load_run

    for folder in folders:
        run = load_run(folder)
        progress(f"{folder}: compiling")
        source = load(str(folder))
        network, reports = lower(source.graph, params, source.calibration, options)
        test = run.test.take(slice(samples))
        inputs = fit(source.graph, (test.inputs,))[0]
        outputs = golden_outputs(network, inputs, partial(_tell, progress, folder))
        golden = float(np.mean(outputs.argmax(axis=-1) == test.labels))
        report = run.report
        row: dict[str, Any] = {
            "run": str(folder),
            "network": report["recipe"]["model"],
            "data": report["data"],
            "seed": report["seed"],
            "command": report["command"],
            "versions": report["versions"],
            "cpu_seconds": report["cpu_seconds"],
            "weights": report["size"]["weights"],
            "nonzeros": report["size"]["nonzeros"],
            "stages": [
                {"stage": stage["stage"], "kind": stage["kind"], "epochs": stage["epochs"], **stage["accuracy"]}
                for stage in report["stages"]
            ],
            "floats": 1 - run.wrong(run.module, test) / len(test),
            "golden": golden,
            "golden_samples": len(test),
            "interval": interval(golden, len(test)),
            "shared_anew": [each.name for each in reports if each.clustered],
        }
        if rtl_samples and network.images:
            progress(f"{folder}: Verilog")
            row["rtl"] = _in_verilog(network, inputs[:rtl_samples])
        yield row


def _tell(progress: Callable[[str], None], folder: Path, done: int, total: int) -> None:
    progress(f"{folder}: golden, {done} of {total} samples")


def golden_outputs(
    network: Network, inputs: NDArray[Any], progress: Callable[[int, int], None] = lambda done, total: None
) -> NDArray[np.float64]:
    """The first output, float64 (n, *shape), of any number of samples (n, …), by the golden model.

    progress : called with (samples done, samples) before each part.
    """
    parts = []
    for first in range(0, len(inputs), AT_ONCE):
        progress(first, len(inputs))
        parts.append(run_network(network, inputs[first : first + AT_ONCE]).value)
    return np.concatenate(parts)


def _in_verilog(network: Network, inputs: NDArray[Any]) -> dict[str, Any]:
    """What of these samples is equal in Verilog and in the models: values, and times and counters of all layers.

    "products" are those of two nonzeros, "utilization" is their share of PEs times cycles.
    """
    ran = run_network(network, inputs, engine="rtl")
    compared = compare_networks(ran, run_network(network, inputs, engine="cycles"))
    return {
        "samples": len(inputs),
        "cycles": ran.cycles,
        "products": ran.products,
        "utilization": ran.utilization,
        "values": compared.values,
        "values_different": compared.values_different,
        "records": compared.records,
        "records_different": compared.records_different,
        "equal": compared.equal,
    }


def interval(share: float, samples: int) -> tuple[float, float]:
    """Wilson's interval of 95 % of a share that was counted on so many samples (Wilson, JASA 1927)."""
    z = 1.959964
    middle = share + z * z / (2 * samples)
    half = z * math.sqrt(share * (1 - share) / samples + (z / (2 * samples)) ** 2)
    return (middle - half) / (1 + z * z / samples), (middle + half) / (1 + z * z / samples)
