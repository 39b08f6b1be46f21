"""Trained networks in the repository: sparse, fifteen values a layer, and as good in integers as in floats."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from compiler.lower.pipeline import lower
from compiler.source import fit, from_module
from compiler.train.layers import density, weights
from hw.params import preset
from sim.network import run_network
from tests.compiler.trained_networks import NAMES, load

DENSITY = {"ds-cnn": 0.662, "lstm": 0.406, "resnet-8": 0.3}
LEAST = {"ds-cnn": 0.98, "lstm": 0.25, "resnet-8": 0.98}
"""Accuracy in floats; of letters, as the help texts of this version of Python are."""

SAMPLES = 100


@pytest.mark.verifies("trained-networks-tests-train-nothing")
@pytest.mark.parametrize("name", NAMES)
def test_densities_values_and_accuracy(name: str) -> None:
    trained = load(name)
    assert density(weights(trained.module)) == pytest.approx(DENSITY[name], abs=0.001)
    for site in weights(trained.module):
        assert len(torch.unique(site.value[site.value != 0])) <= 15, site.key
    with torch.no_grad():
        found = trained.module(torch.from_numpy(trained.inputs)).argmax(1).numpy()
    assert np.mean(found == trained.labels) > LEAST[name]


@pytest.mark.verifies("trained-networks-tests-train-nothing")
@pytest.mark.parametrize("name", NAMES)
def test_integers_decide_as_floats_do(name: str) -> None:
    trained = load(name)
    source = from_module(trained.module, trained.example)
    network, reports = lower(source.graph, preset("BALANCED_16"), fit(source.graph, (trained.calibration,)))
    assert [report.name for report in reports if report.clustered] == []
    inputs = trained.inputs[:SAMPLES]
    result = run_network(network, fit(source.graph, (inputs,))[0]).value.argmax(-1)
    with torch.no_grad():
        wanted = trained.module(torch.from_numpy(inputs)).argmax(1).numpy()
    assert np.mean(result == wanted) >= 0.97
