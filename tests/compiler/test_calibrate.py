from __future__ import annotations

import numpy as np
import pytest

from compiler.errors import ModelError
from compiler.graph.dense import Dense, dense_graph
from compiler.lower.calibrate import quantize_calibrated
from compiler.lower.quantize import quantize_graph
from hw.params import Params


def graph(rng):
    first = Dense("a", rng.standard_normal((20, 30)).astype(np.float32), np.zeros(20), "relu")
    second = Dense("b", rng.standard_normal((5, 20)).astype(np.float32), None, "none")
    return dense_graph([first, second])


def exponent(made):
    return made.graph.inputs[0]["exponent"]


def shifts(made):
    return [node["shift"] for node in made.graph if node.op == "Linear"]


def test_one_wild_value_does_not_cost_all_others_their_bits(rng):
    x = rng.standard_normal((400, 30))
    x[7, 3] = 3e6
    network = graph(rng)
    chosen = quantize_calibrated(network, Params(), [x])
    widest = quantize_graph(network, Params(), [x])
    assert exponent(chosen) < exponent(widest) - 5


def test_tame_data_and_integers_keep_the_maximum(rng):
    network = graph(rng)
    tame = rng.uniform(-1, 1, (50, 30))
    assert exponent(quantize_calibrated(network, Params(), [tame])) == -15
    raw = rng.integers(-300, 300, (50, 30)).astype(np.int16)
    for calibration in ([raw], None):
        a, b = (way(network, Params(), calibration) for way in (quantize_calibrated, quantize_graph))
        assert shifts(a) == shifts(b)


def test_bad_calibration_is_a_model_error(rng):
    for bad in (np.zeros((0, 30)), np.zeros((3, 29)), np.full((3, 30), np.nan)):
        with pytest.raises(ModelError):
            quantize_calibrated(graph(rng), Params(), [bad])
