"""Every algorithm as a plain function, on five kinds of module that know nothing of this kit."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from compiler.errors import ModelError
from compiler.train import dead, dsd, group_lasso, iss, iss_shrink, prune, quantize, removal
from compiler.train.layers import density, make_plain, uncovered, weights


class Residual(nn.Module):
    """Convolutions with batch normalization and a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.conv1 = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x.view(-1, 1, 6, 6))
        x = torch.relu(x + self.norm2(self.conv2(torch.relu(self.norm1(self.conv1(x))))))
        return self.head(x.mean((2, 3)))


class Recurrent(nn.Module):
    """torch's default layout: time first."""

    def __init__(self, kind: type[nn.LSTM] | type[nn.GRU]) -> None:
        super().__init__()
        self.rnn = kind(6, 8, num_layers=2)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(x.view(-1, 6, 6).transpose(0, 1))[0][-1])


class Perceptron(nn.Module):
    """Linear layers with LayerNorm and GELU."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(36, 24), nn.LayerNorm(24), nn.GELU(), nn.Linear(24, 16), nn.GELU())
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(x))


class Vision(nn.Module):
    """A small vision transformer: patches, a class token, positions, one block of attention."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, 12, 3, stride=3)
        self.token = nn.Parameter(torch.zeros(1, 1, 12))
        self.positions = nn.Parameter(torch.randn(1, 5, 12) * 0.1)
        self.norm1, self.norm2 = nn.LayerNorm(12), nn.LayerNorm(12)
        self.attention = nn.MultiheadAttention(12, 2, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(12, 24), nn.GELU(), nn.Linear(24, 12))
        self.head = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x.view(-1, 1, 6, 6)).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.positions
        y = self.norm1(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        x = x + self.mlp(self.norm2(x))
        return self.head(x[:, 0])


KINDS: dict[str, Callable[[], nn.Module]] = {
    "residual": Residual,
    "lstm": lambda: Recurrent(nn.LSTM),
    "gru": lambda: Recurrent(nn.GRU),
    "perceptron": Perceptron,
    "vision": Vision,
}


class Training:
    """One optimizer for all that happens to a module, as a user has it."""

    def __init__(self, kind: str, seed: int, optimizer: str = "adam") -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.module = KINDS[kind]()
            self.inputs = torch.randn(32, 36)
            self.labels = torch.randint(0, 4, (32,))
        parameters = self.module.parameters()
        self.optimizer: torch.optim.Optimizer = (
            torch.optim.Adam(parameters, 1e-2)
            if optimizer == "adam"
            else torch.optim.SGD(parameters, 0.1, momentum=0.9)
        )

    def loss(self) -> Tensor:
        return nn.functional.cross_entropy(self.module(self.inputs), self.labels)

    def steps(self, count: int = 30, penalty: Callable[[], Tensor] | None = None) -> tuple[float, float]:
        """Train; the loss before and after."""
        first = self.loss().item()
        for _ in range(count):
            self.optimizer.zero_grad()
            (self.loss() if penalty is None else self.loss() + penalty()).backward()
            self.optimizer.step()
        return first, self.loss().item()

    def learns(self) -> None:
        """The loss falls, and all that is trained moves."""
        before = {name: value.detach().clone() for name, value in self.module.named_parameters()}
        first, last = self.steps()
        assert last < 0.985 * first, (first, last)
        for name, value in self.module.named_parameters():
            assert not torch.equal(value, before[name]), name


@pytest.mark.verifies("five-kinds-foreign-module-through")
@pytest.mark.parametrize("kind", KINDS)
def test_pruning_reaches_every_weight_and_training_goes_on(kind: str, seed: int) -> None:
    training = Training(kind, seed)
    module = training.module
    training.steps(3)
    prune.prune(module, 0.3, scope="global")
    sites = list(weights(module))
    everything = sum(value.numel() for value in module.parameters() if value.dim() > 1)
    counted = sum(site.value.numel() for site in sites)
    # What is not pruned is named: "30 % left" is said of all the rest.
    assert everything - counted == sum(uncovered(module).values())
    assert density(sites) == pytest.approx(0.3, abs=1 / counted)
    zeros = {site.key: site.value == 0 for site in sites}
    training.learns()
    assert all(torch.equal(site.value == 0, zeros[site.key]) for site in sites)
    make_plain(module)
    assert density(weights(module)) == pytest.approx(0.3, abs=1 / counted)
    training.learns()


@pytest.mark.verifies("layers-chosen-patterns-patterns-keys")
@pytest.mark.parametrize("kind", KINDS)
def test_patterns_say_which_layers_are_pruned(kind: str, seed: int) -> None:
    module = Training(kind, seed).module
    prune.prune(module, 0.5, ignore=("head", "patches") if kind == "vision" else "head")
    for site in weights(module):
        assert (prune.find(site.module, site.name) is None) == (site.key in ("head", "patches")), site.key
    with pytest.raises(ModelError, match=r"'body' matches no weight; the weights are .*head"):
        prune.prune(module, 0.5, only="body")
    with pytest.raises(ModelError, match=r"density names haed and leaves out head; the weights are head"):
        prune.prune(module, {"haed": 0.5}, only="head")


@pytest.mark.verifies("five-kinds-foreign-module-through")
@pytest.mark.parametrize(
    ("kind", "optimizer"), [*((kind, "adam") for kind in KINDS), ("perceptron", "momentum"), ("residual", "momentum")]
)
@pytest.mark.parametrize("free", [False, True])
def test_shared_weights_are_trained_by_the_optimizer_from_before(
    kind: str, free: bool, optimizer: str, seed: int
) -> None:
    training = Training(kind, seed, optimizer)
    module = training.module
    training.steps(3)  # so that there are running means of the old shapes
    prune.prune(module, 0.6)
    shared = quantize.share(module, 4, free=free, start="linear")  # the exact start takes seconds
    assert list(shared) == [site.key for site in weights(module)]
    training.learns()
    for site in weights(module):
        value = site.value.detach()
        assert len(value[value != 0].unique()) <= 15
    before = training.loss().item()
    make_plain(module)
    assert training.loss().item() == pytest.approx(before, rel=1e-5)
    training.learns()


@pytest.mark.verifies("five-kinds-foreign-module-through")
@pytest.mark.parametrize("kind", KINDS)
def test_group_lasso_and_removal(kind: str, seed: int) -> None:
    training = Training(kind, seed)
    module, inputs = training.module, training.inputs
    only = {"residual": ["conv1", "stem"], "perceptron": "encoder.3", "vision": "mlp.0"}.get(kind, "rnn")
    terms = group_lasso.terms(module, "filter", 0.05, only=only)
    with torch.no_grad():  # three outputs that hardly anything is left of
        for site in weights(module, only):
            site.value[:3] *= 1e-6
    training.steps(5, lambda: group_lasso.penalty(terms))
    with torch.no_grad():
        for site in weights(module, only):
            site.value[:3] *= 1e-9
    group_lasso.threshold(terms)
    group_lasso.freeze_in(module, terms, inputs)
    dead_ones = sum(int(each.dead().sum()) for each in terms)
    assert dead_ones >= 3
    module.eval()
    before = module(inputs)
    removed = removal.remove(module, inputs)
    torch.testing.assert_close(module.eval()(inputs), before, rtol=1e-4, atol=1e-5)
    # Recurrent units are ISS's, and what a shortcut adds to is there even if one of its makers gives nothing.
    assert removed.channels == (0 if kind in ("lstm", "gru") else 3)
    module.train()
    training.learns()


@pytest.mark.verifies("batch-normalizations-dead-filters-found")
def test_without_the_normalization_a_dead_filter_cannot_go(seed: int) -> None:
    training = Training("residual", seed)
    module = training.module
    training.steps(3)
    terms = group_lasso.terms(module, "filter", 0.05, only="conv1")
    with torch.no_grad():
        module.conv1.weight[:3] = 0
        module.norm1.bias.fill_(0.5)
    twin = copy.deepcopy(module)
    group_lasso.freeze(terms)
    assert removal.remove(module, training.inputs) == removal.Removed(0, (), 3)
    group_lasso.freeze_in(twin, group_lasso.terms(twin, "filter", 0.05, only="conv1"), training.inputs)
    assert removal.remove(twin, training.inputs).channels == 3


@pytest.mark.verifies("five-kinds-foreign-module-through")
@pytest.mark.parametrize("kind", KINDS)
def test_hidden_units_of_recurrent_modules_and_no_others(kind: str, seed: int) -> None:
    training = Training(kind, seed)
    module = training.module
    if kind not in ("lstm", "gru"):
        with pytest.raises(ModelError, match=r"expected an nn.RNN, nn.LSTM, nn.GRU or an RHN"):
            iss.hidden_units(module, [module.head])
        return
    units = iss.hidden_units(module.rnn, [module.head])
    training.steps(5, lambda: iss.penalty(units, 1e-3))
    with torch.no_grad():
        for layer in units:
            for part in layer.parts:
                if part.gives:
                    part.value[:, :2] = 0
    before = module(training.inputs)
    module.rnn = iss_shrink.shrink(module.rnn, [module.head])
    torch.testing.assert_close(module(training.inputs), before)
    assert module.rnn.widths == (6, 6)
    training.learns()  # by the optimizer of the module before


@pytest.mark.verifies("five-kinds-foreign-module-through")
@pytest.mark.parametrize("kind", KINDS)
def test_dense_sparse_dense(kind: str, seed: int) -> None:
    training = Training(kind, seed)
    module = training.module
    training.steps(3)
    seen = []

    def train(factor: float) -> None:
        training.learns()
        seen.append(density(weights(module)))

    dsd.dense_sparse_dense(module, train, sparsity=0.5, ignore="head")
    head = module.head.weight.numel()
    whole = sum(site.value.numel() for site in weights(module))
    assert seen == [pytest.approx((head + 0.5 * (whole - head)) / whole, abs=0.02), pytest.approx(1, abs=0.01)]
    assert prune.find(module.head) is None


@pytest.mark.verifies("five-kinds-foreign-module-through")
@pytest.mark.parametrize("kind", ["perceptron", "vision"])
def test_dead_neurons_go_from_what_is_no_chain(kind: str, seed: int) -> None:
    training = Training(kind, seed)
    module, inputs = training.module, training.inputs
    below = module.head if kind == "perceptron" else module.mlp[2]
    training.steps(3)
    with torch.no_grad():
        below.weight[:, [1, 4]] = 0
    before = module(inputs)
    with pytest.raises(ModelError, match=r"give dead.remove a few samples"):
        dead.remove(module)
    assert dead.remove(module, inputs) == 2
    torch.testing.assert_close(module(inputs), before, rtol=1e-4, atol=1e-5)
    training.learns()


@pytest.mark.verifies("copies-independent-whatever-parametrizes-them")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("what", ["pruned", "shared", "free"])
def test_a_copy_is_another_module(kind: str, what: str, seed: int) -> None:
    training = Training(kind, seed)
    module, inputs = training.module.eval(), training.inputs
    prune.prune(module, 0.5)
    if what != "pruned":
        quantize.share(module, 3, free=what == "free", start="linear")
    expected = module(inputs)  # after a forward pass, with gradients
    twin = copy.deepcopy(module)
    make_plain(module)
    assert torch.equal(twin(inputs), expected)
    assert not any(a is b for a in module.parameters() for b in twin.parameters())
    again = copy.deepcopy(twin)
    removal.remove(twin, inputs)
    prune.attach(again.head, "bias") if what == "pruned" else None
    torch.testing.assert_close(again(inputs), expected)
    make_plain(again)
    torch.testing.assert_close(again(inputs), expected)
