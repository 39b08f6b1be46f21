"""Intrinsic sparse structures: what is in a group, its gradient, and removal that keeps the function."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compiler.errors import ModelError
from compiler.train import iss
from compiler.train.iss import ISS, Units, dead, embedding_units, hidden_units, penalty, threshold
from compiler.train.iss_shrink import shrink, shrink_model
from compiler.train.language import LanguageModel
from compiler.train.loop import fit, reproducible
from compiler.train.prune import prune
from compiler.train.rhn import RHN
from compiler.train.schedule import Schedule
from compiler.train.stack import Stack, split_layers
from compiler.train.words import Words

MODELS: dict[str, Callable[[], LanguageModel]] = {
    "lstm-1": lambda: LanguageModel(20, 5, (8,), "lstm"),
    "lstm-2": lambda: LanguageModel(20, 5, (8, 6), "lstm"),
    "lstm-3": lambda: LanguageModel(20, 5, (6, 8, 7), "lstm"),
    "gru-2": lambda: LanguageModel(20, 5, (8, 6), "gru"),
    "rhn": lambda: LanguageModel(20, 5, (8,), "rhn", depth=3),
    "rhn-tied": lambda: LanguageModel(20, 7, (7,), "rhn", depth=2, tied=True),
    "lstm-tied": lambda: LanguageModel(20, 6, (5, 6), "lstm", tied=True),
}


def make(name: str, seed: int) -> LanguageModel:
    """A model in double precision, with biases that are not zero."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = MODELS[name]().double().eval()
        for key, parameter in model.named_parameters():
            if "bias" in key:
                nn.init.uniform_(parameter, -0.5, 0.5)
    return model


def units_of(model: LanguageModel) -> list[Units]:
    tied = model.embedding if model.tied and isinstance(next(iter(model.rnn)), RHN) else None
    return hidden_units(model.rnn, [model.output], tied)


def silence(units: Units, index: list[int]) -> None:
    """Set the groups of some units to zero, wherever a group's parts lie."""
    with torch.no_grad():
        for part in units.parts:
            part.value.index_fill_(part.dim, part.start + torch.tensor(index, dtype=torch.int64), 0.0)


def words(rng: np.random.Generator) -> Tensor:
    return torch.from_numpy(rng.integers(0, 20, (3, 11)))


# A group by hand: (times counted, parameter) → elements.
@pytest.mark.verifies("groups-lstm-weight-often-published")
def test_each_weight_of_an_lstm_is_covered_as_often_as_published() -> None:
    hidden, width = 3, 2
    model = LanguageModel(4, width, (hidden, hidden))
    one, two = model.rnn
    cover = {name: torch.zeros_like(parameter) for name, parameter in model.named_parameters()}
    for units in units_of(model):
        for part in units.parts:
            name = next(name for name, value in model.named_parameters() if value is part.value)
            cover[name].narrow(part.dim, part.start, units.size).add_(1)
    recurrent = torch.full((4 * hidden, hidden), 2.0)  # in the row of one unit's gate and in the column of one
    assert torch.equal(cover["rnn.cells.0.weight_ih_l0"], torch.ones_like(one.weight_ih_l0))
    assert torch.equal(cover["rnn.cells.0.weight_hh_l0"], recurrent)
    assert torch.equal(cover["rnn.cells.1.weight_ih_l0"], torch.full_like(two.weight_ih_l0, 2))  # rows; columns of 0
    assert torch.equal(cover["rnn.cells.1.weight_hh_l0"], recurrent)
    assert torch.equal(cover["output.weight"], torch.ones_like(model.output.weight))
    alone = [name for name, times in cover.items() if not bool(times.any())]
    assert alone == ["embedding.weight"] + [name for name in cover if "bias" in name]


@pytest.mark.verifies("groups-tied-rhn")
def test_each_weight_of_a_tied_rhn_is_covered_as_often_as_published() -> None:
    model = MODELS["rhn-tied"]()
    (units,) = units_of(model)
    cover = {name: torch.zeros_like(parameter) for name, parameter in model.named_parameters()}
    for part in units.parts:
        name = next(name for name, value in model.named_parameters() if value is part.value)
        cover[name].narrow(part.dim, part.start, units.size).add_(1)
    for name, times in cover.items():
        expected = 0 if "bias" in name else 1 if name == "embedding.weight" else 2
        assert bool((times == expected).all()), name


@pytest.mark.verifies("groups-published-matrices-slices-written")
def test_the_groups_are_the_published_ones_written_out() -> None:
    # The published matrix (in + hidden, 4 hidden) with gates i, j, f, o, put together from torch's i, f, g, o.
    model = make("lstm-2", 1)
    one, two = model.rnn
    for number, cell in enumerate((one, two)):
        blocks = [torch.cat([cell.weight_ih_l0, cell.weight_hh_l0], 1).chunk(4)[gate].t() for gate in (0, 2, 1, 3)]
        matrix, hidden, inputs = torch.cat(blocks, 1), cell.hidden_size, cell.input_size
        coupled = two.weight_ih_l0.t() if number == 0 else model.output.weight.t()
        square = matrix.square()
        for k in range(hidden):
            columns = sum(square[:, k + gate * hidden].sum() for gate in range(4))
            group = columns + square[inputs + k].sum() + coupled[k].square().sum()
            units = units_of(model)[number]
            torch.testing.assert_close(units.squares(units.parts)[k], group)


@pytest.mark.verifies("gradient-penalty-against-finite-differences")
@pytest.mark.parametrize("name", MODELS)
def test_penalty_gradient_against_finite_differences(name: str, seed: int, rng: np.random.Generator) -> None:
    model = make(name, seed)
    units = units_of(model)
    silence(units[0], [2])  # also where a whole group is zero, the root's steepest place
    penalty(units, 0.3).backward()
    step = 1e-6
    for parameter in model.parameters():
        flat = parameter.data.view(-1)
        for place in rng.integers(0, len(flat), 4):
            before = float(flat[place])
            values = []
            for moved in (before + step, before - step):
                flat[place] = moved
                values.append(penalty(units, 0.3).item())
            flat[place] = before
            slope = 0.0 if parameter.grad is None else float(parameter.grad.view(-1)[place])
            assert slope == pytest.approx((values[0] - values[1]) / (2 * step), abs=2e-5)


@pytest.mark.verifies("removal-keeps-outputs-carried-state")
@pytest.mark.parametrize("name", MODELS)
def test_outputs_before_and_after_shrinking_agree(name: str, seed: int, rng: np.random.Generator) -> None:
    model, inputs = make(name, seed), words(rng)
    if model.tied and name == "lstm-tied":
        silence(units_of(model)[0], [1, 3])  # the last layer is as wide as the matrix that the embedding shares
        with pytest.raises(ModelError, match="tied embedding"):
            shrink_model(model)
        return
    gone = [[1, 3], [0, 4], [2, 5]][: len(model.rnn.widths)]
    for units, index in zip(units_of(model), gone, strict=True):
        silence(units, index)
    before, state = model(inputs)
    again, _ = model(inputs, state)
    report = shrink_model(model)
    assert [a - b for a, b in zip(report["before"][1:], report["after"][1:], strict=True)] == [2] * len(gone)
    after, state = model(inputs)
    torch.testing.assert_close(after, before)
    torch.testing.assert_close(model(inputs, state)[0], again)  # the state goes on as well
    assert model.tied == ("tied" in name)
    # A fresh model of the widths that are left takes the state.
    width, *hidden = report["after"]
    depth = getattr(model.rnn.cells[0], "depth", 3)
    fresh = LanguageModel(20, width, hidden, name.partition("-")[0], depth=depth, tied=model.tied).double().eval()
    fresh.load_state_dict(model.state_dict())
    torch.testing.assert_close(fresh(inputs)[0], before)
    assert shrink_model(model)["after"] == report["after"]


@pytest.mark.verifies("removal-float32-embedding-included")
def test_outputs_agree_in_float32_and_an_embedding_shrinks_too(seed: int, rng: np.random.Generator) -> None:
    model, inputs = make("lstm-2", seed).float(), words(rng)
    silence(embedding_units(model.embedding, model.rnn), [0, 2])
    for units in units_of(model):
        silence(units, [1])
    before, _ = model(inputs)
    assert shrink_model(model) == {"before": [5, 8, 6], "after": [3, 7, 5]}
    torch.testing.assert_close(model(inputs)[0], before, rtol=1e-5, atol=1e-6)


@pytest.mark.verifies("torch-s-own-multi-layer")
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
@pytest.mark.parametrize("bias", [True, False])
def test_torchs_own_layers_shrink_to_a_stack(
    kind: type[nn.LSTM] | type[nn.GRU], bias: bool, seed: int, rng: np.random.Generator
) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        rnn = kind(5, 8, 3, bias=bias, batch_first=True).double()
        output = nn.Linear(8, 4).double()
    inputs = torch.from_numpy(rng.standard_normal((2, 9, 5)))
    torch.testing.assert_close(split_layers(rnn)(inputs)[0], rnn(inputs)[0])
    for units, index in zip(hidden_units(rnn, [output]), ([7], [0, 1, 2], []), strict=True):
        silence(units, index)
    before = output(rnn(inputs)[0])
    stack = shrink(rnn, [output])
    assert stack.widths == (7, 5, 8)
    torch.testing.assert_close(output(stack(inputs)[0]), before)
    assert rnn.hidden_size == 8  # what was given stays


@pytest.mark.verifies("planted-fault-recurrent-row-forgotten")
@pytest.mark.parametrize("name", ["lstm-2", "gru-2", "rhn"])
def test_fault_a_forgotten_recurrent_column_is_caught(name: str, seed: int, rng: np.random.Generator) -> None:
    model, inputs = make(name, seed), words(rng)
    for units in units_of(model):
        without = tuple(part for part in units.parts if not (part.gives and "weight_hh" in part.name))
        silence(replace(units, parts=without), [1, 3])
    before, _ = model(inputs)
    sound = [int(dead(units).sum()) for units in units_of(model)]
    assert sound == [0] * len(sound)  # the recurrent column still carries what the units hold
    forgetful = units_of(model)

    def forget(*given: object) -> list[Units]:
        return [
            replace(
                each,
                parts=tuple(
                    replace(part, gives=False) if part.gives and "weight_hh" in part.name else part
                    for part in each.parts
                ),
            )
            for each in forgetful
        ]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("compiler.train.iss_shrink.hidden_units", forget)
        report = shrink_model(model)
    assert report["after"][1:] == [width - 2 for width in report["before"][1:]]
    assert float((model(inputs)[0] - before).detach().abs().max()) > 1e-4


def test_one_unit_stays_where_all_are_silent(seed: int) -> None:
    model = make("lstm-2", seed)
    silence(units_of(model)[0], list(range(8)))
    assert shrink_model(model)["after"] == [1, 1, 6]  # the embedding feeds nothing but them


def test_threshold_is_strict_and_in_place() -> None:
    values = nn.Parameter(torch.tensor([1e-4, 9.9e-5, -9.9e-5, 0.0, -1.0]))
    threshold([values], 1e-4)
    assert values.tolist() == [pytest.approx(1e-4), 0, 0, 0, -1]


@pytest.mark.verifies("training-hook-silences-units-without")
def test_training_with_the_hook_makes_units_silent_and_without_it_does_not(seed: int) -> None:
    numbers = np.tile(np.arange(20, dtype=np.int64), 40)  # easily learned: few units are enough
    gone = {}
    for strength in (0.0, 0.003):
        with torch.random.fork_rng(devices=[]), reproducible(1):
            torch.manual_seed(seed)
            model = LanguageModel(20, 8, (16, 16))
            units = units_of(model)
            schedule = Schedule(40, 8, 5.0, optimizer="sgd", momentum=0.0, clip=0.3, shape="constant")
            fit(model, Words(numbers, 10), schedule, (seed,), hooks=[ISS(units, model.parameters(), strength, 1e-3)])
        gone[strength] = sum(int(dead(each).sum()) for each in units)
    assert gone[0.0] == 0
    assert gone[0.003] >= 4


def test_penalty_of_an_empty_group_is_the_root_of_epsilon() -> None:
    model = MODELS["lstm-1"]()
    (units,) = units_of(model)
    silence(units, list(range(8)))
    assert penalty([units], 2.0).item() == pytest.approx(2 * 8 * math.sqrt(iss.EPSILON), rel=1e-5)


def test_masked_layers_are_written_out_before_they_shrink(seed: int, rng: np.random.Generator) -> None:
    model, inputs = make("gru-2", seed), words(rng)
    prune(model.output, 0.5)
    for units in units_of(model):
        if units.key == "layer 0":
            silence(units, [2])
    before, _ = model(inputs)
    shrink_model(model)
    torch.testing.assert_close(model(inputs)[0], before)


@pytest.mark.verifies("such-groups-refused")
@pytest.mark.parametrize(
    ("rnn", "outputs", "said"),
    [
        (nn.LSTM(3, 4, bidirectional=True), [nn.Linear(8, 2)], "one direction"),
        (nn.LSTM(3, 4, proj_size=2), [nn.Linear(2, 2)], "no projection"),
        (nn.GRU(3, 4), [nn.Linear(5, 2)], "takes 5 values; the last layer has 4"),
        (nn.GRU(3, 4), [], "expected the Linear layers"),
    ],
)
def test_what_has_no_such_groups_is_refused(rnn: nn.LSTM | nn.GRU, outputs: list[nn.Linear], said: str) -> None:
    with pytest.raises(ModelError, match=said):
        hidden_units(rnn, outputs)


def test_stacks_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ModelError, match="takes 5 values"):
        Stack([nn.LSTM(3, 4, batch_first=True), nn.LSTM(5, 4, batch_first=True)])
    with pytest.raises(ModelError, match="num_layers = 2"):
        Stack([nn.LSTM(3, 4, 2, batch_first=True)])
    with pytest.raises(ValueError, match="strength is -1"):
        ISS([], [], -1.0)
