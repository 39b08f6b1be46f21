"""`.onnx` files: messages whose fields lie."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from random import Random

import numpy as np

from compiler.graph.operators import types
from compiler.options import DEFAULT
from compiler.source import load
from sim.fuzz.lies import lie_bytes
from sim.fuzz.networks import ARRAY, run_both
from sim.fuzz.protobuf import lie_fields, parse, write
from sim.fuzz.target import Finding, Target
from sim.graph_cases import lower_case

__all__ = ["Models"]


class Models(Target):
    """Models that somebody else exported, as `eie compile` reads them."""

    name = "onnx"
    text = "models as .onnx; some of those that are accepted are compiled and run"
    suffix = ".onnx"
    share = 25

    def prepare(self) -> None:
        """Small models, each with other operators."""
        folder = resources.files("sim.fuzz") / "corpus"
        self._files = [path.read_bytes() for path in sorted(folder.iterdir(), key=lambda each: each.name)]
        self._models = [parse(each) for each in self._files]

    def make(self, random: Random) -> bytes:
        """A model with one to three lies, or with damaged bytes."""
        if random.random() < 0.1:
            return lie_bytes(random, random.choice(self._files))
        model = random.choice(self._models)
        for _ in range(random.choice((1, 1, 2, 3))):
            model = lie_fields(random, model)
        return write(model)

    def check(self, path: Path, random: Random) -> None:
        """It becomes a graph whose passes change nothing; one of twenty such is compiled and run."""
        graph = load(str(path)).graph
        found = types(graph)
        if random.random() > 0.05 or any(found[node.output].kind == "index" for node in graph.inputs):
            return
        if len(graph.inputs) != 1 or np.prod(found[graph.inputs[0].output].shape) > 1000:
            return
        rng = np.random.default_rng(random.getrandbits(32))
        data = rng.normal(size=(4, *found[graph.inputs[0].output].shape)).astype(np.float32)
        lowered = lower_case(graph, data, ARRAY, DEFAULT)
        if lowered is not None:
            result = run_both(lowered[1], random)
            if any(raw.dtype not in (np.int16, np.int64) for raw in result.values.values()):
                raise Finding("a value is not of 16 bits")
