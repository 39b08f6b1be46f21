"""Low rank and rewritten convolutions: exact at full rank, errors as the theorems say, saved, trained, compiled."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from compiler.errors import InputError, ModelError, RecipeError  # noqa: E402
from compiler.lower.pipeline import compile_graph  # noqa: E402
from compiler.source import load  # noqa: E402
from compiler.train import low_rank, rewrite, structure  # noqa: E402
from compiler.train.data import Split  # noqa: E402
from compiler.train.images import Images  # noqa: E402
from compiler.train.imitate import Imitation  # noqa: E402
from compiler.train.layers import weights  # noqa: E402
from compiler.train.loop import fit  # noqa: E402
from compiler.train.recipe import parse  # noqa: E402
from compiler.train.run import load_run, train_recipe  # noqa: E402
from compiler.train.schedule import Schedule  # noqa: E402
from hw.params import preset  # noqa: E402
from sim.compare import compare_networks  # noqa: E402
from sim.network import run_network  # noqa: E402


@pytest.fixture
def layer(seed: int) -> nn.Conv2d:
    torch.manual_seed(seed)
    return nn.Conv2d(6, 8, 3, stride=(2, 1), padding=(1, 2), dilation=(1, 2))


def gap(one: nn.Module, other: nn.Module, x: Any) -> float:
    """The greatest difference of outputs, as a share of the greatest output."""
    with torch.no_grad():
        before, after = one(x), other(x)
    assert before.shape == after.shape
    return float((before - after).abs().max() / before.abs().max())


@pytest.mark.verifies("low-rank")
def test_full_rank_gives_the_same_outputs(layer: nn.Conv2d) -> None:
    x = torch.randn(2, 6, 9, 11)
    full = {low_rank.channels: (8,), low_rank.spatial: (18,), low_rank.tucker: (6, 8)}
    for factor, ranks in full.items():
        assert gap(layer, factor(layer, *ranks), x) < 1e-5
        less = tuple(rank // 2 for rank in ranks)
        assert gap(layer, factor(layer, *less), x) > 1e-2  # planted: half of the ranks is not the same
    plain = nn.Linear(7, 5)
    assert gap(plain, low_rank.linear(plain, 5), torch.randn(3, 7)) < 1e-5


@pytest.mark.verifies("low-rank")
@pytest.mark.parametrize("rank", [1, 3, 5])
def test_the_error_is_what_was_discarded(layer: nn.Conv2d, rank: int) -> None:
    weight = layer.weight.detach().double()
    matrices = {
        low_rank.channels: weight.flatten(1),
        low_rank.spatial: weight.permute(1, 2, 0, 3).reshape(18, 24),
    }
    for factor, matrix in matrices.items():
        values = torch.linalg.svdvals(matrix)
        expected = float(values[rank:].square().sum().sqrt() / weight.norm())
        assert low_rank._error(layer, factor(layer, rank)) == pytest.approx(expected, rel=1e-5)
    unfolded = [torch.linalg.svdvals(weight.movedim(axis, 0).flatten(1)) for axis in (0, 1)]
    left = [values[rank:].square().sum() for values in unfolded]
    found = low_rank._error(layer, low_rank.tucker(layer, rank, rank)) * float(weight.norm())
    assert max(left) * (1 - 1e-6) <= found**2 <= sum(left) * (1 + 1e-6)  # Tucker: between the greater one and both


@pytest.mark.verifies("low-rank")
@pytest.mark.parametrize("way", low_rank.WAYS)
def test_a_module_keeps_no_more_weights_than_it_may(way: str, seed: int) -> None:
    torch.manual_seed(seed)
    module = nn.Sequential(
        nn.Conv2d(1, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3, bias=False), nn.Flatten(),
        nn.Linear(16 * 16, 12), nn.ReLU(), nn.Linear(12, 2),
    )  # fmt: skip
    before = module(torch.zeros(2, 1, 8, 8)).shape
    report = low_rank.low_rank(module, 0.5, way, ignore=["7"])
    assert {"3", "5"} <= report.keys() <= {"0", "3", "5"}
    for entry in report.values():
        assert entry["weights"][1] <= 0.5 * entry["weights"][0]
        assert 0 < entry["error"] < 1
    assert module(torch.zeros(2, 1, 8, 8)).shape == before
    described = structure.describe(module)
    fresh = nn.Sequential(
        nn.Conv2d(1, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3, bias=False), nn.Flatten(),
        nn.Linear(16 * 16, 12), nn.ReLU(), nn.Linear(12, 2),
    )  # fmt: skip
    structure.rebuild(fresh, described, module.state_dict(), "a test")
    x = torch.randn(2, 1, 8, 8)
    assert gap(module.eval(), fresh.eval(), x) == 0
    for key, value in (("in_channels", 1 << 30), ("bias", 3), ("kernel_size", [1, 2, 3]), ("layer", "Module")):
        wrong: dict[str, Any] = {"3": {**described["3"], "layers": [{**described["3"]["layers"][0], key: value}]}}
        with pytest.raises(InputError, match="does not fit"):
            structure.rebuild(nn.Sequential(*fresh.children()), wrong | {"1": {}}, {}, "a file")
        fresh[3] = nn.Conv2d(16, 16, 3, bias=False)


@pytest.mark.verifies("low-rank")
def test_what_cannot_be_factored_is_said(layer: nn.Conv2d) -> None:
    with pytest.raises(ModelError, match="no layer has factors of rank 1"):
        low_rank.low_rank(nn.Sequential(nn.Linear(2, 2)), 0.5)
    with pytest.raises(ModelError, match="0 cannot be factored: it has 2 groups"):
        low_rank.low_rank(nn.Sequential(nn.Conv2d(4, 4, 3, groups=2)), 0.5)
    with pytest.raises(ModelError, match="keep is 2"):
        low_rank.low_rank(nn.Sequential(layer), 2.0)
    stages = [
        {"kind": "prune", "epochs": 1, "learning_rate": 0.1, "density": 0.5},
        {"kind": "low-rank", "epochs": 1, "learning_rate": 0.1, "keep": 0.5},
    ]
    content = {"name": "x", "data": "digits", "model": {"name": "lenet-5", "padding": 2}, "stages": stages}
    with pytest.raises(RecipeError, match="low-rank, and weights are masked or shared by then"):
        parse(content, "x")


@pytest.mark.verifies("rewrite")
def test_separable_is_the_nearest_and_exact_where_it_can_be(seed: int) -> None:
    torch.manual_seed(seed)
    layer = nn.Conv2d(5, 7, 3, stride=2, padding=1)
    made = rewrite.separable(layer)
    depthwise, pointwise = (site.value.detach().double() for site in weights(made))
    whole = torch.einsum("izyx,oiuv->oiyx", depthwise, pointwise)
    values = torch.linalg.svdvals(layer.weight.detach().double().transpose(0, 1).flatten(2))
    expected = float(values[:, 1:].square().sum())
    assert float((whole - layer.weight.detach()).square().sum()) == pytest.approx(expected, rel=1e-5)
    with torch.no_grad():
        layer.weight.copy_(whole)
    x = torch.randn(2, 5, 8, 8)
    assert gap(layer, rewrite.separable(layer), x) < 1e-5


@pytest.mark.verifies("rewrite")
@pytest.mark.parametrize("form", rewrite.FORMS)
def test_forms_keep_shapes_and_have_fewer_weights(form: str) -> None:
    module = nn.Sequential(nn.Conv2d(8, 8, 7, stride=2, padding=3), nn.Conv2d(8, 8, 1))
    x = torch.randn(2, 8, 15, 15)
    before = module(x).shape
    states = []
    for _ in range(2):
        own = nn.Sequential(nn.Conv2d(8, 8, 7, stride=2, padding=3), nn.Conv2d(8, 8, 1))
        counts = rewrite.rewrite(own, form, seed=3)
        assert own(x).shape == before
        states.append(own.state_dict())
    assert list(counts) == ["0"]  # 1x1 stays
    assert counts["0"][1] < counts["0"][0] == 49 * 64
    if form != "separable":  # fresh weights depend on the seed alone
        assert all(
            torch.equal(states[0][name], states[1][name]) for name in states[0] if "0.conv" in name and "weight" in name
        )
    with pytest.raises(ModelError, match="to be rewritten"):
        rewrite.rewrite(nn.Sequential(nn.Linear(3, 3)), form)
    if form == "small":
        with pytest.raises(ModelError, match="0 cannot be rewritten: a padding"):
            rewrite.rewrite(nn.Sequential(nn.Conv2d(2, 2, 5)), form)


@pytest.mark.verifies("rewrite")
def test_new_layers_learn_to_answer_as_the_old_ones_did(rng: np.random.Generator) -> None:
    """Labels play no part, and layers that stay are not touched; planted: another layer's answers."""
    old = nn.Sequential(nn.Conv2d(1, 8, 7, padding=3), nn.ReLU(), nn.Conv2d(8, 8, 5, padding=2), nn.Flatten()).eval()
    images = np.einsum("nri,nrj->nij", *rng.normal(size=(2, 96, 2, 8))).reshape(96, 64)
    split = Split(images.astype(np.float32), rng.integers(0, 10, 96))
    imitation = Imitation(Images(split, (1, 8, 8), flat=False), old, ("0", "2"))
    module = copy.deepcopy(old)
    rewrite.rewrite(module, "small", only="2", seed=1)
    stays = module[0].weight.detach().clone()
    batch = next(imitation.batches(0, 96, torch.Generator()))

    def apart(answers: Any) -> float:
        with torch.no_grad():
            return float(answers.loss(module))

    alone = replace(imitation, paths=("2",))
    before = apart(next(alone.batches(0, 96, torch.Generator())))
    fit(module, alone, Schedule(epochs=20, batch=16, learning_rate=2e-2), (1, 2))
    after = apart(next(alone.batches(0, 96, torch.Generator())))
    assert after < 0.5 * before
    assert torch.equal(module[0].weight, stays)
    assert apart(batch) == pytest.approx(after / 2, rel=1e-4)  # the mean of two layers, one of which is as it was
    other = copy.deepcopy(old)
    with torch.no_grad():
        other[2].weight.copy_(other[2].weight.flip(0))
    assert apart(next(replace(alone, old=other).batches(0, 96, torch.Generator()))) > 2 * after


@pytest.mark.verifies("low-rank", "rewrite")
def test_a_recipe_trains_saves_and_compiles_them(tmp_path: Path) -> None:
    common = {"batch": 30, "learning_rate": 5e-3}
    recipe = parse(
        {
            "name": "both", "data": {"name": "digits", "samples": 200, "validation": 0.2},
            "model": {"name": "resnet", "widths": [8, 32], "stride": 2, "kernel": 5},
            "stages": [
                {"kind": "dense", "epochs": 2, **common},
                {"kind": "rewrite", "name": "rows", "epochs": 1, "form": "small", "imitate": 1,
                 "only": ["block1.conv2"], **common},
                {"kind": "rewrite", "name": "narrow", "epochs": 1, "form": "bottleneck", "only": ["block2.conv1"],
                 **common},
                {"kind": "rewrite", "epochs": 1, "form": "separable", "only": ["block1.conv1"], **common},
                {"kind": "low-rank", "epochs": 1, "keep": 0.6, "way": "tucker", "only": ["block2.conv2", "fc"],
                 **common},
                {"kind": "fold"},
                {"kind": "share", "epochs": 1, "code_bits": 4, **common},
            ],
        },
        "both",
    )  # fmt: skip
    report = train_recipe(recipe, tmp_path / "run", plots=False)
    assert "block2.conv2" in report["stages"][4]["factored"]
    run = load_run(tmp_path / "run")
    names = {name for name, _ in run.module.named_modules()}
    assert {"block1.conv1.depthwise", "block1.conv2.conv1", "block2.conv1.conv2", "block2.conv2.core"} <= names
    source = load(str(tmp_path / "run"))
    assert source.calibration is not None
    network = compile_graph(source.graph, preset("BALANCED_4"), source.calibration)
    x = run.test_inputs[:2]
    golden = run_network(network, x)
    models = run_network(network, x, engine="cycles")
    assert compare_networks(models, golden).equal
    with torch.no_grad():
        floats = run.module(torch.from_numpy(x)).numpy()
    assert np.abs(golden.value - floats).max() < 0.05 * np.abs(floats).max()
