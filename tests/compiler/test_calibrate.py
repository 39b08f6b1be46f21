from __future__ import annotations

import numpy as np
import pytest

from compiler.errors import ModelError
from compiler.ir import Graph, Linear
from compiler.lower.calibrate import quantize_calibrated
from compiler.lower.quantize import quantize
from hw.params import Params


def graph(rng):
    first = Linear("a", rng.standard_normal((20, 30)).astype(np.float32), np.zeros(20), "relu")
    second = Linear("b", rng.standard_normal((5, 20)).astype(np.float32), None, "none")
    return Graph((first, second))


def test_one_wild_value_does_not_cost_all_others_their_bits(rng):
    x = rng.standard_normal((400, 30))
    x[7, 3] = 3e6
    network = graph(rng)
    chosen = quantize_calibrated(network, Params(), x)
    widest = quantize(network, Params(), x)
    assert chosen.layers[0].input_exponent < widest.layers[0].input_exponent - 5


def test_tame_data_and_integers_keep_the_maximum(rng):
    network = graph(rng)
    tame = rng.uniform(-1, 1, (50, 30))
    assert quantize_calibrated(network, Params(), tame).layers[0].input_exponent == -15
    raw = rng.integers(-300, 300, (50, 30)).astype(np.int16)
    for calibration in (raw, None):
        a, b = quantize_calibrated(network, Params(), calibration), quantize(network, Params(), calibration)
        assert [layer.shift for layer in a.layers] == [layer.shift for layer in b.layers]


def test_bad_calibration_is_a_model_error(rng):
    for bad in (np.zeros((0, 30)), np.zeros((3, 29)), np.full((3, 30), np.nan)):
        with pytest.raises(ModelError):
            quantize_calibrated(graph(rng), Params(), bad)
