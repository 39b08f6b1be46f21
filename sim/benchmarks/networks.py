"""Whole networks from torch and from ONNX: what is left of their accuracy in integers, and what the array computes.

Each network of `compiler.train.zoo` is trained, read by both frontends, compiled without retraining, and run by the
golden model on the whole test set. The float network itself stands beside it.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compiler.errors import InputError
from compiler.graph.ir import Graph
from compiler.lower.pipeline import compile_graph
from compiler.network import Network
from compiler.options import DEFAULT, Options
from compiler.source import from_module, load
from hw.params import Params
from sim.compare import compare_networks
from sim.decode import decode
from sim.golden_array import Layer
from sim.network import run_network

__all__ = ["CALIBRATION", "measure"]

CALIBRATION = 128
"""Training samples on which fixed-point ranges are chosen."""


def measure(
    names: Sequence[str],
    params: Params,
    *,
    dataset: str = "digits",
    seed: int = 1,
    epochs: int | None = None,
    onnx: bool = True,
    rtl_samples: int = 0,
    options: Options = DEFAULT,
    progress: Callable[[str], None] = lambda text: None,
) -> Iterator[dict[str, Any]]:
    """A row a network: accuracy (of the autoencoder: error over variance) of torch and of the golden model.

    Parameters
    ----------
    names : of networks; none: all.
    params : the array.
    options : how the compiler lays the networks out.
    dataset : images of the convolutional networks, "digits" or "fashion-mnist".
    epochs : instead of those of the zoo.
    onnx : read each network through ONNX as well.
    rtl_samples : test samples whose array parts run as Verilog too, and are compared in every bit and cycle.

    Raises
    ------
    InputError
        There is no such network.
    """
    from compiler.train import foreign, zoo

    if unknown := [name for name in names if name not in zoo.NETWORKS]:
        raise InputError(f"unknown network {', '.join(unknown)}; expected some of {', '.join(zoo.NETWORKS)}")
    for name in names or zoo.NETWORKS:
        entry = zoo.NETWORKS[name]
        samples = zoo.load(entry.kind, dataset)
        progress(f"{name}: training")
        module = zoo.train(entry, samples, seed, epochs)
        inputs, targets = samples.test
        calibration = (samples.train[0][:CALIBRATION],)
        floats = foreign.all_outputs(module, [inputs])[0]
        progress(f"{name}: from torch")
        example = samples.train[0][:2]
        network = compile_graph(from_module(module, foreign.tensors([example])).graph, params, calibration, options)
        result = run_network(network, inputs)
        row: dict[str, Any] = {
            "network": name,
            "weights": sum(int(part.numel()) for part in module.parameters()),
            "samples": len(inputs),
            "measure": "error" if entry.kind == "frames" else "accuracy",
            "torch": _score(floats, targets),
            "golden": _score(result.value, targets),
            "rms_error": _relative(result.value, floats),
            "host": [f"{node.name} ({node.op})" for node in network.host],
            **_multiplies(network),
        }
        if onnx:
            progress(f"{name}: from ONNX")
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "network.onnx"
                path.write_bytes(zoo.export_onnx(module, example))
                other = compile_graph(load(str(path)).graph, params, calibration, options)
            again = run_network(other, inputs)
            row["onnx"] = _score(again.value, targets)
            row["onnx_equal"] = bool(np.array_equal(again.raw, result.raw))
        if rtl_samples and network.images:
            progress(f"{name}: Verilog")
            few = inputs[:rtl_samples]
            compared = compare_networks(
                run_network(network, few, engine="rtl"), run_network(network, few, engine="cycles")
            )
            row["rtl"] = {"values": compared.values, "records": compared.records, "equal": compared.equal}
        yield row


def _score(outputs: NDArray[Any], targets: NDArray[Any]) -> float:
    """Share of right decisions, or squared error over the variance of the targets."""
    if targets.dtype.kind == "f":
        return float(np.mean(np.square(outputs - targets)) / targets.var())
    return float(np.mean(outputs.argmax(axis=-1) == targets))


def _relative(outputs: NDArray[Any], floats: NDArray[Any]) -> float:
    return float(np.sqrt(np.mean(np.square(outputs - floats)) / np.mean(np.square(floats))))


def _multiplies(network: Network) -> dict[str, int]:
    """Multiplications of one sample with weights that are not zero, on the array and on the host."""
    array = 0
    for image in network.images:
        program = decode(image)
        looped = {n for n, offset in program.rounds if program.rounds.count((n, offset)) > 1 or offset}
        for n, _ in program.rounds:
            layer = program.layers[n]
            if isinstance(layer, Layer):
                result = image.maps[layer.result]
                pixels = 1 if n in looped else result.height * result.width * layer.outputs.pooled
                array += pixels * image.layers[n].nonzeros
    return {"array_multiplies": array, "host_multiplies": _host(network.graph)}


def _host(graph: Graph, steps: int = 1) -> int:
    """Multiplications of the host, those in a loop once for each step."""
    from compiler.graph.integer import integer_types

    types = integer_types(graph)
    total = 0
    for node in graph:
        for name, codes in node.tensors.items():
            if name.startswith("codes"):
                places = math.prod(types[node.output].shape) // len(codes)
                total += steps * places * int(np.count_nonzero(codes))
        if node.body is not None:
            total += _host(node.body, steps * types[node.inputs[0]].shape[0])
    return total
