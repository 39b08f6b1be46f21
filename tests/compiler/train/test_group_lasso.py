"""The group lasso: its groups, its value and gradient, and that what it takes to zero stays there."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compiler.errors import InputError, RecipeError
from compiler.train import group_lasso, groups, recipe
from compiler.train.data import Split
from compiler.train.group_lasso import Regularizer, Term, term
from compiler.train.groups import Partition
from compiler.train.images import Images
from compiler.train.layers import Site, weights
from compiler.train.loop import fit
from compiler.train.models import resnet
from compiler.train.run import load_run, train_recipe
from compiler.train.schedule import Schedule
from compiler.train.structured import Groups, make_terms, plan

KINDS: dict[str, Callable[[tuple[int, ...]], Partition]] = {
    **groups.SHAPES,
    "block": lambda shape: groups.blocks(shape, 2, 3),
    "labels": lambda shape: groups.by_labels(torch.arange(math.prod(shape)).reshape(shape) % 5),
}


def members(kind: str, shape: tuple[int, ...]) -> dict[Any, list[tuple[int, ...]]]:
    """Places of each group, said once more with loops."""
    found: dict[Any, list[tuple[int, ...]]] = {}
    for number, place in enumerate(np.ndindex(*shape)):
        column = number % math.prod(shape[1:])
        name: Any = {
            "filter": place[0],
            "channel": place[1],
            "shape": place[1:],
            "element": place,
            "whole": 0,
            "block": (place[0] // 2, column // 3),
            "labels": number % 5,
        }[kind]
        found.setdefault(name, []).append(place)
    return found


def layer(shape: tuple[int, ...], seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = nn.Linear(shape[1], shape[0]) if len(shape) == 2 else nn.Conv2d(shape[1], shape[0], shape[2:])
    return made.double()


@pytest.mark.verifies("group-lasso-groups-those-said")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(4, 6), (5, 3, 2, 2)])
def test_groups_are_those_said_and_cover_each_weight_once(kind: str, shape: tuple[int, ...]) -> None:
    partition = KINDS[kind](shape)
    expected = members(kind, shape)
    assert partition.count == len(expected)
    assert (partition.cover() == 1).all()
    numbers = partition.spread(torch.arange(partition.count), -1)
    found: dict[int, list[tuple[int, ...]]] = {}
    for place in np.ndindex(*shape):
        found.setdefault(int(numbers[place]), []).append(place)
    assert sorted(found.values()) == sorted(expected.values())
    assert sorted(partition.sizes().tolist()) == sorted(len(places) for places in expected.values())


@pytest.mark.verifies("group-lasso-filters-channels-cover")
def test_filters_and_channels_cover_each_weight_twice_and_labels_leave_out_what_they_say() -> None:
    module = layer((4, 6), 0)
    site = Site("fc", module, "weight")
    labels = torch.full((4, 6), -1)
    labels[:2] = 0
    terms = [
        term(site, groups.by_filter((4, 6)), 1.0),
        term(site, groups.by_channel((4, 6)), 1.0),
        term(site, groups.by_labels(labels), 1.0),
        term(site, groups.by_labels(labels == 0), 1.0),
    ]
    assert (group_lasso.coverage(terms[:2], site) == 2).all()
    assert (group_lasso.coverage(terms[2:], site) == torch.where(labels == 0, 2, 0)).all()
    # Planted fault: labels that lose a weight are seen.
    labels[0, 0] = -1
    assert int(group_lasso.coverage([term(site, groups.by_labels(labels), 1.0)], site).sum()) == 11


@pytest.mark.parametrize("labels", [torch.zeros(3, 3), torch.zeros(2, 2, dtype=torch.int64), torch.full((3, 3), -2)])
def test_labels_that_do_not_fit_are_refused(labels: Tensor) -> None:
    with pytest.raises(ValueError, match="labels"):
        groups.along((3, 3), (0, 1), labels)


def check_value(penalty: Callable[[Iterable[Term]], Tensor], kind: str, shape: tuple[int, ...], seed: int) -> None:
    """The penalty is the sum of the groups' norms, taken with loops."""
    module = layer(shape, seed)
    partition = KINDS[kind](shape)
    strength = torch.full((partition.count,), 0.3)
    value = module.weight.detach()
    expected = sum(0.3 * math.sqrt(sum(float(value[p]) ** 2 for p in g)) for g in members(kind, shape).values())
    got = penalty([term(Site("layer", module, "weight"), partition, strength)]).item()
    assert got == pytest.approx(expected, rel=1e-6)


@pytest.mark.verifies("group-lasso-penalty-sum-norms")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(4, 6), (5, 3, 2, 2)])
def test_penalty_is_the_sum_of_the_norms(kind: str, shape: tuple[int, ...], seed: int) -> None:
    check_value(group_lasso.penalty, kind, shape, seed)


@pytest.mark.verifies("planted-fault-squared-norms")
def test_planted_fault_squared_norms_are_caught(seed: int) -> None:
    def squared(terms: Iterable[Term]) -> Tensor:
        return sum(((each.norms() ** 2 * each.strength).sum() for each in terms), torch.zeros(()))

    with pytest.raises(AssertionError):
        check_value(squared, "filter", (4, 6), seed)


@pytest.mark.verifies("group-lasso-gradient-against-finite")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(4, 6), (5, 3, 2, 2)])
def test_gradient_equals_finite_differences(kind: str, shape: tuple[int, ...], seed: int) -> None:
    module = layer(shape, seed)
    terms = [term(Site("layer", module, "weight"), KINDS[kind](shape), 0.7)]
    group_lasso.penalty(terms).backward()
    step = 1e-6
    flat = module.weight.data.view(-1)
    for place in range(flat.numel()):
        was = float(flat[place])
        values = []
        for moved in (was - step, was + step):
            flat[place] = moved
            values.append(group_lasso.penalty(terms).item())
        flat[place] = was
        assert float(module.weight.grad.view(-1)[place]) == pytest.approx((values[1] - values[0]) / 2 / step, abs=1e-5)


@pytest.mark.verifies("group-lasso-gradient-against-finite")
def test_gradient_of_a_group_over_two_layers_equals_finite_differences(seed: int) -> None:
    modules = [layer((4, 6), seed), layer((3, 4), seed + 1)]
    sites = [Site("above", modules[0], "weight"), Site("below", modules[1], "weight")]
    coupled = Term(((sites[0], groups.by_filter((4, 6))), (sites[1], groups.by_channel((3, 4)))), 1.0)

    def value(above: Tensor, below: Tensor) -> Tensor:
        modules[0].weight.data, modules[1].weight.data = above, below
        return group_lasso.penalty([coupled])

    first = [module.weight.detach().clone() for module in modules]
    group_lasso.penalty([coupled]).backward()
    for number, module in enumerate(modules):
        for place in np.ndindex(*module.weight.shape):
            values = []
            for step in (-1e-6, 1e-6):
                moved = [one.clone() for one in first]
                moved[number][place] += step
                values.append(value(*moved).item())
            assert float(module.weight.grad[place]) == pytest.approx((values[1] - values[0]) / 2e-6, abs=1e-5)


@pytest.mark.verifies("group-lasso-gradient-zero")
def test_gradient_at_zero_is_zero() -> None:
    module = layer((3, 4), 0)
    with torch.no_grad():
        module.weight[1] = 0
    group_lasso.penalty([term(Site("fc", module, "weight"), groups.by_filter((3, 4)), 1.0)]).backward()
    assert (module.weight.grad[1] == 0).all()
    assert torch.isfinite(module.weight.grad).all()
    assert (module.weight.grad[0] != 0).all()


@pytest.mark.verifies("group-lasso-threshold-dead-groups")
def test_small_weights_become_zero_and_dead_groups_stay_so_while_training(seed: int) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = nn.Sequential(nn.Linear(12, 10), nn.ReLU(), nn.Linear(10, 3))
    rng = np.random.default_rng(seed)
    lesson = Images(Split(rng.normal(size=(64, 12)).astype(np.float32), rng.integers(0, 3, 64)), (1, 3, 4))
    site = next(iter(weights(module)))
    terms = [term(site, groups.by_filter((10, 12)), 1.0)]
    with torch.no_grad():
        module[0].weight[4] = 5e-5
        module[0].weight[5, 3] = -9.9e-5
        module[0].weight[5, 4] = 1.1e-4
    group_lasso.prepare(terms)
    group_lasso.threshold(terms)
    assert (module[0].weight[4] == 0).all()
    assert module[0].weight[5, 3] == 0
    assert module[0].weight[5, 4] != 0
    group_lasso.freeze(terms)
    fit(module, lesson, Schedule(3, 16, 1e-2, 1e-2), (seed,))
    assert (module[0].weight[4] == 0).all()
    assert module[0].bias[4] == 0  # its output is off, not only without inputs
    assert module[0].weight[5, 3] != 0  # a zero in a group that lives is not frozen
    strong = [term(site, groups.by_filter((10, 12)), 0.5)]
    dead: dict[str, int] = {}
    hook = Regularizer(strong, dead=dead)
    fit(module, lesson, Schedule(30, 16, 0.05, optimizer="sgd"), (seed, 1), hooks=[hook])
    assert dead["0"] >= 5
    assert int((module[0].weight == 0).all(1).sum()) == dead["0"]


def test_an_output_that_is_off_gives_exactly_zero_after_its_normalization(seed: int) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        inputs = torch.randn(8, 2, 5, 5)
    with torch.no_grad():
        module[1].bias.fill_(0.5)
        module[0].weight[2] = 0
    assert group_lasso.norms_after(module, inputs) == {"0": "1"}
    module.eval()
    assert (module(inputs)[:, 2] != 0).any()
    off = group_lasso.switch_off(module[0], module[1])
    assert off.tolist() == [False, False, True, False]
    assert (module(inputs)[:, 2] == 0).all()
    assert (module(inputs)[:, 1] != 0).any()


def test_a_scale_of_zero_kills_the_filter_before_it() -> None:
    module = nn.Sequential(nn.Conv2d(1, 3, 3, bias=False), nn.BatchNorm2d(3))
    with torch.no_grad():
        module[1].weight[1] = 0
    one = term(next(iter(weights(module))), groups.by_filter((3, 1, 3, 3)), 1.0, module[1])
    assert one.dead().tolist() == [False, True, False]
    group_lasso.freeze([one], {module[0]: module[1]})
    assert (module[0].weight[1] == 0).all()
    assert module[1].bias[1] == 0


@pytest.mark.verifies("group-lasso-groups-blocks-under")
def test_depth_and_coupled_groups_hold_what_belongs_to_a_block_and_a_channel() -> None:
    module = resnet((1, 8, 8), 10, (4, 6), 2)
    inputs = torch.rand(2, 64)
    lines = [Groups(by="depth", strength=1.0), Groups(by="coupled", strength=1.0)]
    known = plan(module, lines, inputs)
    terms = make_terms(module, lines, known)
    depth = {each.name: each for each in terms if each.name.startswith("depth")}
    assert list(depth) == [f"depth block{number}" for number in (1, 2, 3, 4)]
    assert depth["depth block1"].sizes().tolist() == [2 * (4 * 4 * 9 + 4)]
    coupled = {each.name: each for each in terms if each.name.startswith("coupled")}
    # The first width's channels: made by the first convolution and both blocks, taken by three blocks and a shortcut.
    first = coupled["coupled conv"]
    assert {site.key for site, _ in first.parts} == {
        "conv", "norm", "block1.conv1", "block1.conv2", "block1.norm2", "block2.conv1", "block2.conv2", "block2.norm2",
        "block3.conv1", "block3.shortcut.conv",
    }  # fmt: skip
    assert first.sizes().tolist() == [9 + 1 + 2 * (36 + 1) + 2 * 36 + 6 * 9 + 6] * 4
    conv = Site("conv", module.conv, "weight")
    assert (group_lasso.coverage(terms, conv) == 1).all()
    assert (group_lasso.coverage(terms, Site("x", module.block1.conv1, "weight")) == 3).all()  # depth, made, taken


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"by": "filter", "strength": 1.0, "layers": ["fc9"]}, "fc9"),
        ({"by": "depth", "strength": 1.0}, "find nothing"),
    ],
)
def test_groups_that_are_not_there_are_named(line: dict[str, Any], message: str) -> None:
    module = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    with pytest.raises(RecipeError, match=message):
        make_terms(module, [Groups(**line)], plan(module, [], torch.rand(2, 4)))


def test_labels_come_from_a_file(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(4, 3))
    np.save(tmp_path / "labels.npy", np.arange(12).reshape(3, 4) // 6)
    line = Groups(by="labels", strength=1.0, layers=("0",), file=str(tmp_path / "labels.npy"))
    (one,) = make_terms(module, [line], plan(module, [], torch.rand(2, 4)))
    assert one.sizes().tolist() == [6, 6]
    np.save(tmp_path / "labels.npy", np.zeros((2, 4)))
    with pytest.raises(InputError, match="labels"):
        make_terms(module, [line], plan(module, [], torch.rand(2, 4)))


RECIPE: dict[str, Any] = {
    "name": "structured",
    "seed": 3,
    "data": {"name": "digits", "validation": 0.2, "samples": 250},
    "model": {"name": "resnet", "widths": [4, 6]},
    "stages": [
        {"kind": "dense", "epochs": 3, "learning_rate": 0.01, "batch": 32},
        {
            "kind": "group_lasso", "epochs": 6, "learning_rate": 0.1, "batch": 8, "optimizer": "sgd",
            "groups": [{"by": "depth", "strength": 0.2}, {"by": "coupled", "strength": 0.05}],
        },
        {"kind": "finetune", "epochs": 1, "learning_rate": 0.001},
        {"kind": "shrink"},
        {"kind": "share", "epochs": 1, "learning_rate": 0.001, "code_bits": 4},
    ],
}  # fmt: skip


@pytest.mark.verifies("group-lasso-recipe-removal-sharing")
def test_a_recipe_removes_structure_keeps_it_removed_and_goes_on_after_a_kill(tmp_path: Path) -> None:
    wanted = recipe.parse(RECIPE, "structured")
    report = train_recipe(wanted, tmp_path / "unbroken")
    stages = {stage["stage"]: stage for stage in report["stages"]}
    dead = sum(stages["group_lasso"]["dead"].values())
    assert dead > 0
    nonzeros = [sum(layer["nonzeros"] for layer in stages[name]["layers"]) for name in ("group_lasso", "shrink")]
    assert nonzeros[1] <= nonzeros[0] + 40  # fine-tuning moves no dead group back, only single zeros in living ones
    assert stages["shrink"]["removed"] > 0
    assert stages["shrink"]["accuracy"]["validation"] == stages["finetune"]["accuracy"]["validation"]
    loaded = load_run(tmp_path / "unbroken")
    assert loaded.module(loaded.example_inputs[0]).shape == (1, 10)

    class Killed(Exception):
        """Stands for a kill."""

    def stop(stage: str, done: int, total: int, text: str) -> None:
        if stage == "group_lasso" and done == 4:
            raise Killed

    with pytest.raises(Killed):
        train_recipe(wanted, tmp_path / "broken", progress=stop)
    train_recipe(wanted, tmp_path / "broken", resume=True)
    for name in ("model.safetensors", "model.eiez"):
        assert (tmp_path / "broken" / name).read_bytes() == (tmp_path / "unbroken" / name).read_bytes()


def test_a_group_lasso_after_sharing_is_refused(tmp_path: Path) -> None:
    table = {**RECIPE, "model": {"name": "mlp", "hidden": [8]}}
    lasso = {**RECIPE["stages"][1], "groups": [{"by": "filter", "strength": 0.1, "layers": ["fc1"]}]}
    table["stages"] = [RECIPE["stages"][0], {"kind": "share", "epochs": 0, "learning_rate": 0.1}, lasso]
    with pytest.raises(RecipeError, match="expected it before kind share"):
        train_recipe(recipe.parse(table, "x"), tmp_path / "run")


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ({"by": "row", "strength": 1.0, "layers": []}, "by"),
        ({"by": "filter", "layers": ["fc1"]}, "strength"),
        ({"by": "filter", "strength": 1.0}, "layers"),
        ({"by": "block", "strength": 1.0, "layers": ["fc1"], "rows": 2}, "columns"),
        ({"by": "channel", "strength": 1.0, "layers": ["fc1"], "norms": True}, "norms"),
    ],
)
def test_lines_that_are_wrong_name_their_key(line: dict[str, Any], key: str) -> None:
    table = {**RECIPE, "stages": [{**RECIPE["stages"][1], "groups": [line]}]}
    with pytest.raises(RecipeError, match=key):
        recipe.parse(table, "x")
