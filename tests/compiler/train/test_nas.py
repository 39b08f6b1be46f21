"""Architectures by gradient: one path at a time, gradients as torch and finite differences have them, known optima."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compiler.errors import InputError, RecipeError
from compiler.train.data import Split
from compiler.train.images import Images
from compiler.train.nas import search as search_module
from compiler.train.nas.derive import nearest
from compiler.train.nas.latency import FORMS, LatencyTable, weighed
from compiler.train.nas.mixed import Mixed, Supernet
from compiler.train.nas.search import Rule, Search
from compiler.train.nas.space import Choices, Op, Place, Space, plain

SPACE = Space.make((1, 8, 8), 10, [8, 8, 16], [2, 1, 2], [3, 5], [1, 3])
CYCLES = LatencyTable(100.0, ((10.0, 40.0, 20.0, 70.0, 0.0), (30.0, 60.0, 35.0, 90.0)))


def images(seed: int, count: int = 16) -> Tensor:
    return torch.randn(count, 64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.verifies("nas-gradients")
@pytest.mark.parametrize("form", FORMS)
def test_gradient_of_the_expected_latency_is_that_of_finite_differences(form: str, rng: np.random.Generator) -> None:
    at = [rng.normal(size=len(row)) for row in CYCLES.rows]

    def value(logits: Sequence[Tensor]) -> Tensor:
        expected = CYCLES.expected([torch.softmax(each, 0) for each in logits])
        return weighed(expected.new_tensor(1.7), expected, 150.0, form, 0.6)

    logits = [torch.tensor(each, requires_grad=True) for each in at]
    value(logits).backward()
    for block, own in enumerate(at):
        for number in range(len(own)):
            ends = []
            for step in (1e-5, -1e-5):
                moved = [each.copy() for each in at]
                moved[block][number] += step
                ends.append(float(value([torch.tensor(each) for each in moved])))
            assert logits[block].grad is not None
            assert float(logits[block].grad[number]) == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-4, abs=1e-9)


@pytest.mark.verifies("nas-gradients")
@pytest.mark.parametrize("gates", [(0, 1, 2, 3, 4), (3, 1), (2, 4)])
def test_gradients_of_gates_are_those_of_all_paths_at_once(gates: tuple[int, ...], seed: int) -> None:
    """Against torch's own, of the sum of all operations times their gates, which are 1 and 0."""
    torch.manual_seed(seed)
    block = Mixed(Place(8, 8, 1), SPACE.choices(0)).double().eval()
    block.alpha.copy_(torch.randn(5))
    x, other = torch.randn(3, 8, 5, 5).double().requires_grad_(), torch.randn(3, 8, 5, 5).double()
    block.active, block.gates = gates[0], gates
    (block(x) * other).sum().backward()
    ones = torch.tensor([float(number == gates[0]) for number in range(5)], dtype=torch.float64, requires_grad=True)
    (sum(ones[number] * block.ops[number](x) for number in gates) * other).sum().backward()  # type: ignore[union-attr]
    assert ones.grad is not None
    torch.testing.assert_close(block.gate_gradients.double(), ones.grad, rtol=1e-5, atol=1e-5)
    logits = block.alpha.detach().clone().requires_grad_()
    (torch.softmax(logits[list(gates)], 0) * ones.grad[list(gates)]).sum().backward()
    torch.testing.assert_close(block.gate_gradient().double(), logits.grad.double(), rtol=1e-4, atol=1e-5)


@pytest.mark.verifies("nas-one-path")
def test_a_supernet_computes_the_chosen_network_and_holds_nothing_else(seed: int) -> None:
    supernet, x = Supernet.make(SPACE, seed), images(seed)
    for choices in ((0, 0), (1, 3), (4, 2), (3, 1)):
        supernet.put(choices)
        for block in supernet.mixed:  # as a step of the logits has it
            block.gates = tuple(range(len(block.ops)))
        alone = supernet.extract(choices)
        (made, held), (own, needed) = saved(supernet, x), saved(alone, x)
        assert torch.equal(made, own)
        assert (
            held <= needed + (choices[0] == 4) * 16 * 8 * 4 * 4 * 4
        )  # nothing, added to what is read, is a copy of it
        assert held < saved_by_all(supernet, x) / 2
        supernet.zero_grad(set_to_none=True)
        made.square().sum().backward()
        learned = {name for name, each in supernet.net.named_parameters() if each.grad is not None}
        assert all(f".ops.{choices[int(name[5]) - 1]}." in name for name in learned if name.startswith("block"))
        supernet.put(choices)
        assert torch.equal(supernet.eval()(x), supernet.extract(choices)(x))
        supernet.train()


def saved(module: nn.Module, x: Tensor) -> tuple[Tensor, int]:
    """Outputs, and bytes that are kept for the backward pass, each tensor once."""
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        made = module(x)
    parameters = {each.untyped_storage().data_ptr() for each in module.parameters()}
    return made, sum(count for where, count in kept.items() if where not in parameters)


def saved_by_all(supernet: Supernet, x: Tensor) -> int:
    """The same, if all operations of a block are computed and summed up, as without binary gates."""

    class All(nn.Module):
        def __init__(self, block: Mixed) -> None:
            super().__init__()
            self.block = block

        def forward(self, x: Tensor) -> Tensor:
            shares = self.block.probabilities
            return torch.stack([share * op(x) for share, op in zip(shares, self.block.ops, strict=True)]).sum(0)

    whole = [All(module) if isinstance(module, Mixed) else module for module in supernet.net]
    return saved(nn.Sequential(*whole), x)[1]


def searcher(
    seed: int, way: str, supernet: Supernet | None = None, table: LatencyTable = CYCLES, **rule: Any
) -> Search:
    split = Split(images(seed).numpy(), np.arange(16) % 10)
    return Search(
        Supernet.make(SPACE, seed) if supernet is None else supernet, Images(split, (1, 8, 8)), table, 150.0,
        Rule(way, **{"learning_rate": 0.05, "batch": 16, **rule}), seed,
    )  # fmt: skip


@pytest.mark.verifies("nas-two-paths")
def test_two_paths_leave_the_other_probabilities_as_they_were(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def steps() -> list[float]:
        """The greatest change of another operation's probability in each step, as a share of it."""
        hook, found = searcher(seed, "two"), []
        for block in hook.supernet.mixed:
            block.alpha.copy_(torch.randn(len(block.ops), generator=hook.generator))
        pairs: list[tuple[int, ...]] = []
        opened = hook._open

        def noted(block: Mixed) -> None:
            opened(block)
            pairs.append(block.gates)

        monkeypatch.setattr(hook, "_open", noted)
        for _ in range(6):
            before = [block.probabilities for block in hook.supernet.mixed]
            pairs.clear()
            hook.update(next(hook._samples))
            for old, block, pair in zip(before, hook.supernet.mixed, pairs, strict=True):
                new = block.probabilities
                others = [number for number in range(len(old)) if number not in pair]
                found.append(float((new / old - 1)[others].abs().max()))
                assert not torch.equal(new, old)
                assert not block.gates
        return found

    assert max(steps()) < 1e-5
    monkeypatch.setattr(search_module, "keep_others", lambda block, before: None)  # planted
    assert max(steps()) > 1e-3


class Times(nn.Module):
    """An operation whose worth is known."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


FACTORS = (0.0, 1.0, 0.6, -1.5)


def toy(seed: int) -> tuple[Supernet, Images]:
    """Two blocks between scores and their softmax, which add to the scores, or turn them around."""
    supernet = Supernet.make(Space.make((2, 1, 1), 2, [8, 8, 8], [1, 1, 1], [3, 5], [1, 3]), seed)
    blocks = supernet.mixed
    for block in blocks:
        block.ops = nn.ModuleList(map(Times, FACTORS))
        block.alpha = nn.Parameter(torch.zeros(len(FACTORS)), requires_grad=False)
        block.gate_gradients = torch.zeros(len(FACTORS))
    supernet.net = nn.Sequential(Times(1.0), *blocks)
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, 32)
    scores = np.where(np.arange(2) == labels[:, None], 0.3, -0.3)
    return supernet, Images(Split(scores.astype(np.float32), labels.astype(np.int64)), (2, 1, 1))


TOY = LatencyTable(20.0, ((40.0, 30.0, 20.0, 200.0), (40.0, 300.0, 20.0, 200.0)))


@pytest.mark.verifies("nas-optimum")
@pytest.mark.parametrize("way", ["two", "all", "reinforce"])
def test_the_known_optimum_is_found(way: str, seed: int) -> None:
    """Of 16 networks the one that all of them, one by one, show to be the best; planted: a table with two swapped."""

    def found(table: LatencyTable) -> tuple[Choices, Choices]:
        supernet, lesson = toy(seed)
        hook = Search(supernet, lesson, table, 60.0, Rule(way, 0.1, 1, 32, strength=0.5), seed)
        batch = next(hook._samples)
        worth: dict[Choices, float] = {}
        for choices in product(range(4), repeat=2):
            supernet.put(choices)
            loss, scores = batch.loss(supernet), supernet(batch.inputs)
            right = float((scores.argmax(1) == batch.labels).float().mean())
            worth[choices] = (
                -right * (60.0 / table.of(choices)) ** 0.5
                if way == "reinforce"
                else float(weighed(loss, torch.tensor(table.of(choices)), 60.0, "multiply", 0.5))
            )
        for _ in range(100):
            hook.update(next(hook._samples))
        return supernet.likeliest(), min(worth, key=lambda choices: worth[choices])

    likeliest, best = found(TOY)
    assert likeliest == best
    swapped = LatencyTable(TOY.base, (TOY.rows[0], (40.0, 20.0, 300.0, 200.0)))
    assert found(swapped)[0] != best


@pytest.mark.verifies("nas-derived")
def test_the_network_at_a_target_is_the_one_that_all_networks_show(rng: np.random.Generator) -> None:
    for _ in range(5):
        table = LatencyTable(500.0, tuple(tuple(rng.uniform(100, 3000, 5)) for _ in range(4)))
        scores = [rng.normal(size=5) for _ in range(4)]
        every = list(product(range(5), repeat=4))
        inside = [each for each in every if abs(table.of(each) / 6000 - 1) <= 0.02]
        found = nearest(scores, table, 6000, 0.02)
        score = {each: sum(own[choice] for own, choice in zip(scores, each, strict=True)) for each in every}
        assert found in inside
        assert score[found] >= sorted(map(score.__getitem__, inside))[-2]  # bins may hide the best behind the next
        far = nearest(scores, table, 90_000, 0.02)
        assert table.of(far) == pytest.approx(max(map(table.of, every)), rel=1e-3)
    likeliest = nearest(scores, table, 6000, 10.0)
    assert likeliest == tuple(int(own.argmax()) for own in scores)


@pytest.mark.verifies("nas-space")
def test_what_is_no_space_is_refused() -> None:
    for widths, strides, kernels, words in (
        ([8, 8], [2], [3], "2 widths and 1 strides"),
        ([8], [2], [3], "two or more"),
        ([8, 8], [2, 1], [4], "expected odd kernels"),
    ):
        with pytest.raises(RecipeError, match=words):
            Space.make((1, 8, 8), 10, widths, strides, kernels, [1])
    with pytest.raises(RecipeError, match="takes images"):
        Space.make((64,), 10, [8, 8], [2, 1], [3], [1])
    with pytest.raises(InputError, match="measure a table of this space"):
        CYCLES.expected([torch.ones(5)])
    assert SPACE.counts == (5, 4)
    assert SPACE.size == 20
    assert SPACE.named((4, 3)) == ["zero", "5x5 e3"]
    assert SPACE.same(Op(5, 1)) == (2, 2)
    assert isinstance(plain(SPACE, (4, 0), 1).get_submodule("block1"), nn.Identity)
