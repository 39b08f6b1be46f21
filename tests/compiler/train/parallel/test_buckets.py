"""Sizes of buckets: the probe agrees in all processes, paced layers take their seconds, hidden shares are right."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from compiler.errors import InputError, RecipeError
from compiler.experiments.overlap import hidden_share
from compiler.train import checkpoint
from compiler.train.parallel import buckets
from compiler.train.parallel.buckets import fastest, probe
from compiler.train.parallel.overlap import measure
from compiler.train.parallel.paced import FORWARD, paced
from compiler.train.terngrad.job import Job, parse
from compiler.train.terngrad.methods import Method
from compiler.train.terngrad.probe import SIDE, mixed
from compiler.train.terngrad.train import CHECKPOINT, Trainer
from tests.compiler.train.terngrad.processes import in_group
from tests.compiler.train.terngrad.test_wire import prepared

NETWORK = {"channels": 4, "layers": 1, "hidden": 16}
SIZES = (25.0, 1.0, 0.01)


def probed(seed: int, out: str) -> dict[str, Any]:
    """In a process of a group: what the probe says when every process is slow with another size."""
    module, lesson = prepared(seed)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    batch = next(lesson.batches(0, 20, torch.Generator().manual_seed(1)))
    turns = {"n": 0}

    def timed(what: Any) -> float:
        """Process 0 says 1, 2, 3 seconds, process 1 says 4, 1, 2: the slowest took 4, 2, 3."""
        what()
        place = turns["n"] % len(SIZES)
        turns["n"] += 1
        return ((1.0, 2.0, 3.0), (4.0, 1.0, 2.0))[dist.get_rank()][place]

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(buckets, "timed", timed)
        seconds = probe(module, batch, Method("fp16"), SIZES, steps=3)
        patched.setattr(buckets, "slowest", lambda taken: taken[0])  # planted: nobody hears of the others
        alone = probe(module, batch, Method("fp16"), SIZES, steps=1)
    same = all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    return {"seconds": seconds, "alone": fastest(alone), "same": same, "chosen": trained(out)}


def trained(out: str) -> list[Any]:
    """Buckets of a training that chooses them, of one that goes on, of its checkpoint; if weights moved; weights."""
    made = job({"bucket_mb": "auto", "precision": "float16"})
    trainer = Trainer(made, Path(out), None, False)
    before = [parameter.detach().clone() for parameter in trainer.module.parameters()]
    trainer.run()
    again = Trainer(made, Path(out), None, True)
    dist.barrier()
    said = checkpoint.load(Path(out) / CHECKPOINT)[1]["bucket_mb"]
    after = [parameter.detach() for parameter in trainer.module.parameters()]
    moved = not any(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    return [trainer.bucket_mb, again.bucket_mb, said, moved, [each.tolist() for each in after]]


def job(change: dict[str, Any]) -> Job:
    content: dict[str, Any] = {
        "name": "x", "data": {"name": "digits", "samples": 60}, "model": {"name": "mlp", "hidden": [40]},
        "schedule": {"epochs": 1, "learning_rate": 0.1, "optimizer": "sgd", "batch": 20},
    }  # fmt: skip
    return parse({**content, **change}, "x.toml")


@pytest.mark.verifies("buckets-probe")
def test_all_processes_take_the_buckets_with_which_the_slowest_is_fastest(seed: int, tmp_path: Path) -> None:
    first, second = in_group(2, tmp_path, probed, seed, str(tmp_path / "run"))
    assert first["seconds"] == second["seconds"] == {25.0: 4.0, 1.0: 2.0, 0.01: 3.0}
    assert fastest(first["seconds"]) == 1.0
    assert (first["alone"], second["alone"]) == (25.0, 1.0)  # else they would take different ones
    assert first["same"]
    assert second["same"]
    assert first["chosen"] == second["chosen"]
    assert first["chosen"][0] in buckets.CANDIDATES
    assert len(set(first["chosen"][:3])) == 1
    assert first["chosen"][3]  # with a loss that is scaled alike in all processes


@pytest.mark.verifies("buckets-probe")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"exchange": "powersgd", "bucket_mb": 1}, 'exchange "powersgd" has one bucket; leave bucket_mb out'),
        ({"bucket_mb": "best"}, "bucket_mb is 'best'; expected one of auto"),
        ({"bucket_mb": 0}, "bucket_mb is 0; expected a number above 0"),
        ({"exchange": "int8"}, "exchange is 'int8'; expected one of float32, fp16, bf16, powersgd, onebit, terngrad"),
        ({"exchange": "fp16", "onebit": {}}, 'there is a table onebit, and exchange is "fp16"'),
        ({"exchange": "onebit", "onebit": {"feedback": 1}}, "onebit.feedback is 1; expected true or false"),
        ({"exchange": "powersgd", "powersgd": {"rank": 0}}, "powersgd.rank is 0"),
        ({"exchange": "onebit", "precision": "float16"}, 'exchange "onebit" does not allow that'),
    ],
)
def test_wrong_exchanges_say_what_is_wrong(change: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        job(change)


@pytest.mark.parametrize(
    "change",
    [
        {"exchange": "onebit", "onebit": {"feedback": False}}, {"exchange": "powersgd", "powersgd": {"rank": 2}},
        {"exchange": "bf16", "bucket_mb": "auto"}, {"precision": "float16", "bucket_mb": 0.5},
        {"terngrad": {"clip": 2.0}}, {"exchange": "terngrad"},
    ],
)  # fmt: skip
def test_recipes_come_back_from_their_own_form_and_are_for_shared_data(change: dict[str, Any]) -> None:
    made = job(change)
    assert parse(made.asdict(), "again") == made
    assert made.recipe().precision == made.precision  # by which one process trains
    with pytest.raises(RecipeError, match="is for --parallel data alone; not server"):
        made.check_way("server")


@pytest.mark.verifies("overlap-measured")
def test_paced_layers_wait_in_proportion_to_their_multiplications(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(1)
    module = mixed(**NETWORK)
    inputs = torch.randn(3, SIDE * SIDE)
    slow = paced(module, inputs[:1], 9.0)
    waited: list[float] = []
    monkeypatch.setattr(time, "sleep", waited.append)
    expected = torch.autograd.grad(module(inputs).square().sum(), list(module.parameters()))
    outputs = slow(inputs)
    assert sum(waited) == pytest.approx(9.0 * FORWARD)
    outputs.square().sum().backward()  # type: ignore[no-untyped-call]
    assert sum(waited) == pytest.approx(9.0)
    found = [parameter.grad for parameter in slow.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True) if b is not None)
    works = [9 * 4 * 64, 4 * 4 * 9 * 64, 16 * 16, 16 * 2, 2 * 10]  # by hand: two convolutions, three Linear
    assert waited[:5] == pytest.approx([9.0 * FORWARD * work / sum(works) for work in works])
    assert waited[5:] == pytest.approx([9.0 * (1 - FORWARD) * work / sum(works) for work in works[::-1]])


def rounds(compute: float, alone: float, step: float) -> dict[str, Any]:
    jitter = [-0.1, 0.0, 0.0, 0.1]
    return {
        "compute": [compute + each for each in jitter],
        "alone": [[alone + each for each in jitter], [2 * alone] * 4],  # two sizes; the second has slow messages
        "step": [[step + each for each in jitter]] * 2,
    }


@pytest.mark.verifies("overlap-measured")
@pytest.mark.parametrize(("step", "hidden"), [(5.0, 0.0), (3.0, 1.0), (3.5, 0.75), (5.5, -0.25)])
def test_hidden_is_what_a_step_does_not_take_longer(step: float, hidden: float) -> None:
    for place in range(2):  # also with slow messages it is a share of the fastest exchange
        share, low, high = hidden_share(rounds(3.0, 2.0, step), place)
        assert share == pytest.approx(hidden)
        assert low <= share <= high


def measured() -> dict[str, Any]:
    """In a process of a group without links of its own."""
    limits: list[float | None] = []
    plan = {"network": NETWORK, "batch": 2, "pace": 0.0, "mbit": 7, "buckets": SIZES, "rounds": 2}
    found = measure(plan, limits.append)
    return {**found, "limits": limits}


@pytest.mark.verifies("overlap-measured")
def test_a_measurement_times_everything_as_often_and_limits_the_link_meanwhile(tmp_path: Path) -> None:
    first, second = in_group(2, tmp_path, measured)
    assert first["chosen"] == second["chosen"]
    assert first["limits"] == [None, 7, None]
    assert [len(each) for each in (first["compute"], *first["alone"], *first["step"])] == [2] * 7
    assert min(min(each) for each in (first["compute"], *first["alone"], *first["step"])) > 0


def test_a_checkpoint_that_does_not_say_its_buckets_is_refused(tmp_path: Path) -> None:
    made = job({"bucket_mb": "auto"})
    path = tmp_path / CHECKPOINT
    checkpoint.save(path, {}, {"recipe": made.asdict(), "done": 1, "history": []})
    trainer = Trainer.__new__(Trainer)
    trainer.job, trainer.bucket_mb = made, "auto"
    with pytest.raises(InputError, match="does not say which buckets were chosen"):
        trainer._restore(path)
