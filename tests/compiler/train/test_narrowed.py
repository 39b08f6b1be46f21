"""Recurrent layers that lost units are called as torch's own: layouts, states, packed sequences; stages of recipes."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from compiler.errors import InputError, ModelError
from compiler.train import foreign, iss, recipe, structure
from compiler.train.iss_shrink import cut_units, shrink
from compiler.train.narrowed import Narrowed
from compiler.train.readers import readers
from compiler.train.run import load_run, train_recipe

KINDS: dict[str, Any] = {
    "rnn": nn.RNN,
    "relu": lambda *sizes, **options: nn.RNN(*sizes, nonlinearity="relu", **options),
    "lstm": nn.LSTM,
    "gru": nn.GRU,
}
HIDDEN = 7


def silenced(kind: str, batch_first: bool, gone: tuple[list[int], ...], seed: int) -> tuple[Any, nn.Linear]:
    """A module and its reader; nothing hears the units `gone` of each layer, which have weights and biases."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        rnn = KINDS[kind](4, HIDDEN, num_layers=len(gone), batch_first=batch_first)
        head = nn.Linear(HIDDEN, 3)
    with torch.no_grad():
        for units, index in zip(iss.hidden_units(rnn, [head]), gone, strict=True):
            for part in units.parts:
                if part.gives:
                    part.value[:, index] = 0
    return rnn, head


def states(rnn: Any, batch: tuple[int, ...], seed: int) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed + 1)
        made = [torch.randn(rnn.num_layers, *batch, HIDDEN) for _ in range(1 + isinstance(rnn, nn.LSTM))]
    return tuple(made) if len(made) > 1 else made[0]


def heard(state: Any, gone: tuple[list[int], ...]) -> list[list[Tensor]]:
    """Of each state and layer, the units that are left."""
    parts = state if isinstance(state, tuple) and isinstance(state[0], Tensor) and state[0].dim() == 3 else (state,)
    return [
        [layer[..., [k for k in range(HIDDEN) if k not in out]] for layer, out in zip(part, gone, strict=True)]
        for part in parts
    ]


def flat(state: Any, lstm: bool) -> list[list[Tensor]]:
    return [list(part) for part in (state if lstm else (state,))]


@pytest.mark.verifies("shrunk-rnn-lstm-gru-called")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("gone", [([1], [2]), ([0, 3], [5]), ([6],)], ids=["equal", "widths", "one"])
@pytest.mark.parametrize("form", ["batch", "time", "packed", "alone"])
@pytest.mark.parametrize("given", [False, True])
def test_it_is_called_as_before(kind: str, gone: tuple[list[int], ...], form: str, given: bool, seed: int) -> None:
    rnn, head = silenced(kind, form == "batch", gone, seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed + 2)
        values = torch.randn(5, 4) if form == "alone" else torch.randn(5, 3, 4)
    inputs: Any = values
    batch: tuple[int, ...] = () if form == "alone" else (5,) if form == "batch" else (3,)
    if form == "packed":
        inputs = pack_padded_sequence(values, torch.tensor([5, 2, 4]), enforce_sorted=False)
    before = states(rnn, batch, seed) if given else None
    outputs, after = rnn(inputs, before)
    expected = head(outputs.data if form == "packed" else outputs)
    small = shrink(copy.deepcopy(rnn), [head])
    assert isinstance(small, Narrowed)
    assert small.widths == tuple(HIDDEN - len(out) for out in gone)
    found, state = small(inputs, before)
    if form == "packed":
        assert torch.equal(pad_packed_sequence(found)[1], torch.tensor([5, 2, 4]))
        found = found.data
    torch.testing.assert_close(head(found), expected)
    lstm = kind == "lstm"
    wanted = [heard(part, gone)[0] for part in (after if lstm else (after,))]
    for mine, theirs in zip(flat(state, lstm), wanted, strict=True):
        for one, other in zip(mine, theirs, strict=True):
            torch.testing.assert_close(one, other)
    if len(set(small.widths)) == 1:  # as torch gives it
        first = state[0] if lstm else state
        assert isinstance(first, Tensor)
        assert first.shape == (len(gone), *batch, small.hidden_size)
    again, _ = small(inputs, state)  # what it returned is what it takes
    torch.testing.assert_close(
        head(again.data if form == "packed" else again),
        head((lambda out: out.data if form == "packed" else out)(rnn_head_inputs(rnn, inputs, after, gone[-1]))),
    )


def rnn_head_inputs(rnn: Any, inputs: Any, state: Any, gone: list[int]) -> Any:
    """What the module before would give the reader, in the units that are left."""
    kept = [k for k in range(HIDDEN) if k not in gone]
    outputs, _ = rnn(inputs, state)
    return outputs._replace(data=outputs.data[:, kept]) if not isinstance(outputs, Tensor) else outputs[..., kept]


@pytest.mark.verifies("shrunk-rnn-lstm-gru-called")
def test_a_plain_rnn_has_one_gate(seed: int) -> None:
    rnn, head = silenced("rnn", True, ([],), seed)
    (units,) = iss.hidden_units(rnn, [head])
    assert [(part.name, part.dim, part.start) for part in units.parts] == [
        ("weight_ih_l0", 0, 0), ("weight_hh_l0", 0, 0), ("weight_hh_l0", 1, 0), ("weight", 1, 0),
    ]  # fmt: skip


@pytest.mark.verifies("shrunk-rnn-lstm-gru-called")
def test_it_shrinks_again_and_states_of_other_widths_are_refused(seed: int) -> None:
    rnn, head = silenced("gru", True, ([1, 4],), seed)
    small = shrink(rnn, [head])
    inputs = torch.randn(2, 5, 4)
    with torch.no_grad():
        for part in iss.hidden_units(small, [head])[0].parts:
            if part.gives:
                part.value[:, 3] = 0  # unit 5 of the module before
    before, given = head(small(inputs)[0]), torch.randn(1, 2, HIDDEN)
    expected = head(small(inputs, given)[0])
    smaller = shrink(small, [head])
    assert smaller.widths == (4,)
    assert smaller.kept[0].tolist() == [0, 2, 3, 6]
    torch.testing.assert_close(head(smaller(inputs)[0]), before)
    torch.testing.assert_close(head(smaller(inputs, given)[0]), expected)
    with pytest.raises(ModelError, match="the state of layer 0 has 5 units; expected 4, or 7"):
        smaller(inputs, torch.randn(1, 2, 5))
    with pytest.raises(ModelError, match="the state has 2 layers; expected 1"):
        smaller(inputs, torch.randn(2, 2, 4))


class Reader(nn.Module):
    """A recurrent module read in several ways."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way
        self.rnn = nn.GRU(8, 8, batch_first=True)
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(5 * 8 if way == "all steps" else 8, 10)
        self.second = nn.GRU(8, 4, batch_first=True)
        self.other = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        outputs, last = self.rnn(x.view(len(x), -1, 8)[:, :5])
        if self.way == "all steps":
            return self.head(outputs.flatten(1))
        if self.way == "norm":
            return self.head(self.norm(outputs[:, -1]))
        if self.way == "second":
            return self.head(torch.relu(last[-1])) + self.second(outputs)[0].mean()
        if self.way == "raw":
            return self.head(outputs[:, -1]) + outputs[:, -1].sum(1, keepdim=True)
        return self.head(torch.relu(last[-1])) + self.other(outputs.mean(1))


@pytest.mark.verifies("iss-stage-network-who-reads")
def test_readers_are_found_or_refused(rng: Any) -> None:
    inputs = torch.from_numpy(rng.random((3, 64)).astype("float32"))
    assert readers(Reader("two"), "rnn", inputs) == ["head", "other"]
    for way, message in {
        "all steps": "read by no layer; expected Linear layers of 8 inputs",
        "norm": r"the 8 units of rnn are read by norm \(LayerNorm\)",
        "second": r"read by head \(Linear\), second \(GRU\)|read by second \(GRU\)",
    }.items():
        with pytest.raises(ModelError, match=message):
            readers(Reader(way), "rnn", inputs)
    with pytest.raises(ModelError, match="cell is no RNN, LSTM or GRU of this network; it has rnn, second"):
        readers(Reader("two"), "cell", inputs)
    module = Reader("raw")  # a sum over units that no layer makes
    with torch.no_grad():
        module.rnn.weight_hh_l0[:, 2] = 0
        module.head.weight[:, 2] = 0
    values = {name: value.clone() for name, value in module.state_dict().items()}
    with pytest.raises(ModelError, match="something besides head reads them; the network is left as it was"):
        cut_units(module, "rnn", ["head"], inputs)
    assert all(torch.equal(values[name], value) for name, value in module.state_dict().items())


class Last(nn.Module):
    """Reads digits row by row, time first, and its last state."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(8, 12, num_layers=2)
        self.head = nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        _, (h, _) = self.rnn(x.view(-1, 8, 8).transpose(0, 1))
        return self.head(h[-1])


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(foreign, "call", lambda text: (Last(), None))
    return


ISS = {
    "kind": "iss", "epochs": 6, "batch": 32, "learning_rate": 0.05, "optimizer": "sgd", "momentum": 0.9,
    "strength": 0.17, "threshold": 0.02,
}  # fmt: skip


def parsed(**model: Any) -> recipe.Recipe:
    dense = {"kind": "dense", "epochs": 1, "learning_rate": 0.01, "batch": 32}
    shrinking = [{"kind": "shrink"}, {**dense, "kind": "finetune"}, {**dense, "kind": "share", "code_bits": 4}]
    content = {
        "name": "iss",
        "data": {"name": "digits", "validation": 0.2, "samples": 300},
        "model": model or {"name": "own:last"},
        "stages": [dense, ISS, *shrinking],
    }
    return recipe.parse(content, "iss.toml")


@pytest.mark.verifies("iss-stage-network-who-reads")
@pytest.mark.usefixtures("own")
def test_a_stage_cuts_units_of_any_module_and_a_killed_run_goes_on(tmp_path: Path) -> None:
    class Stopped(Exception):
        pass

    def stop(stage: str, done: int, total: int, text: str) -> None:
        if stage == "share":
            raise Stopped

    found = parsed()
    assert recipe.parse(found.asdict(), "again") == found
    report = train_recipe(found, tmp_path / "unbroken")
    silenced_units, cut = report["stages"][1], report["stages"][2]
    assert silenced_units["readers"] == {"rnn": ["head"]}
    before, after = cut["units"]["rnn"]["before"], cut["units"]["rnn"]["after"]
    assert before == [12, 12]
    assert sum(after) < 24
    gone = [b - a for b, a in zip(before, after, strict=True)]
    assert gone == [min(dead, 11) for dead in silenced_units["dead"]["rnn"]]  # one always stays
    assert cut["accuracy"] == silenced_units["accuracy"]  # the function stays
    with pytest.raises(Stopped):
        train_recipe(found, tmp_path / "run", progress=stop)
    train_recipe(found, tmp_path / "run", resume=True)
    for name in ("model.safetensors", "model.eiez"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "unbroken" / name).read_bytes()


@pytest.mark.verifies("iss-stage-network-who-reads")
def test_a_kit_network_is_read_back_narrow(tmp_path: Path) -> None:
    report = train_recipe(parsed(name="gru", hidden=12), tmp_path / "run")
    run = load_run(tmp_path / "run")
    assert isinstance(run.module.rnn, Narrowed)
    assert run.module.rnn.hidden_size < 12
    assert list(run.module.rnn.widths) == report["stages"][2]["units"]["rnn"]["after"]
    assert run.wrong(run.module, run.test) == round((1 - report["stages"][-1]["accuracy"]["test"]) * len(run.test))


def test_no_recurrent_layer_no_iss(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="stage iss: the network has no RNN, LSTM or GRU"):
        train_recipe(parsed(name="mlp", hidden=[4]), tmp_path / "run")


@pytest.mark.parametrize(
    "entry",
    [
        {"widths": [13], "inputs": 8},
        {"widths": [0], "inputs": 8},
        {"widths": [3, 3], "inputs": 8},
        {"widths": "3", "inputs": 8},
        {"widths": [3], "inputs": 9},
        {"inputs": 8},
    ],
)
def test_a_wrong_description_is_refused(entry: dict[str, Any]) -> None:
    module = nn.ModuleDict({"rnn": nn.GRU(8, 12)})
    with pytest.raises(InputError, match="x describes rnn as narrowed, which does not fit"):
        structure.rebuild(module, {"rnn": {"kind": "narrowed", **entry}}, {}, "x")
