"""The bound on staleness: what is admitted, what the checker sees, and that faults lose nothing, in simulated time."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from compiler.errors import InputError, RecipeError, WorkerError
from compiler.train.consistency.client import Client
from compiler.train.consistency.core import Checker, Clocks, Read
from compiler.train.consistency.delays import KINDS, Delays
from compiler.train.consistency.learner import Learner
from compiler.train.consistency.shard import Shard, check_checkpoints, shard_path, split
from compiler.train.consistency.simulate import Fault, Outcome, Simulation
from compiler.train.data import Split
from compiler.train.images import Images
from compiler.train.loop import fit
from compiler.train.models import mlp
from compiler.train.schedule import Schedule

WORKERS = 4
BOUNDS = [0, 1, 3, None]


class Counting:
    """A learner whose update of worker w adds one to place w of every parameter: values say what they hold."""

    def __init__(self, total: int = 12) -> None:
        self.total, self.workers = total, WORKERS

    def values(self) -> dict[str, NDArray[Any]]:
        return {name: np.zeros(WORKERS) for name in ("a", "b", "c")}

    def update(self, values: Any, worker: int, clock: int) -> tuple[dict[str, NDArray[Any]], float]:
        return {name: np.eye(WORKERS)[worker] for name in values}, 0.0


class Watched(Simulation):
    """Compares what every read says it holds with what it does hold."""

    def _replied(self, process: Any, number: int, values: Any, read: Read) -> None:
        for name, value in values.items():
            assert tuple(value.astype(int)) == read.seen, (name, read)
        super()._replied(process, number, values, read)


def simulation(
    bound: int | None, kind: str = "random", seed: int = 1, cls: type[Simulation] = Watched, **more: Any
) -> Simulation:
    learner: Any = more.pop("learner", None) or Counting()
    return cls(learner, Delays(kind), staleness=bound, shards=2, latency=0.1, seed=seed, **more)


@pytest.mark.verifies("staleness-bound-holds")
@pytest.mark.parametrize("bound", BOUNDS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_read_holds_what_it_says_and_keeps_the_bound(kind: str, bound: int | None, seed: int) -> None:
    outcome = simulation(bound, kind, seed).run()
    assert outcome.checker.reads == 2 * WORKERS * 12
    if bound is not None:
        assert max(outcome.checker.lags) <= bound
    assert all((value == 12).all() for value in outcome.values.values())


@pytest.mark.verifies("staleness-bound-holds")
@pytest.mark.parametrize("bound", [0, 1, 3])
def test_the_bound_is_reached(bound: int) -> None:
    assert max(simulation(bound, "fixed").run().checker.lags) == bound


@pytest.mark.verifies("staleness-planted")
@pytest.mark.parametrize("bound", [0, 1, 3])
def test_a_server_that_lets_a_read_pass_one_clock_too_stale_is_caught(bound: int) -> None:
    class Late(Simulation):
        def admitted(self, shard: Shard, worker: int, clock: int) -> bool:
            return min(shard.clocks.applied) >= clock - bound - 1 and shard.clocks.applied[worker] >= clock

    with pytest.raises(WorkerError, match=f"updates of worker 0; bound {bound} asks for"):
        simulation(bound, "fixed", cls=Late).run()


@pytest.mark.verifies("staleness-planted")
@pytest.mark.parametrize(
    ("read", "said"),
    [
        (Read(0, 5, 0, 0, (5, 3, 4)), ""),
        (Read(0, 5, 0, 0, (5, 2, 4)), "has 2 updates of worker 1; bound 2 asks for 3"),
        (Read(0, 5, 0, 0, (4, 4, 4)), "misses own updates, has 4"),
        (Read(0, 3, 0, 0, (3, 3, 6)), ""),
        (Read(0, 3, 0, 1, (3, 3, 7)), ""),  # after a restart, workers send again one after the other
        (Read(0, 3, 0, 1, (3, 0, 7)), "has 0 updates of worker 1; bound 2 asks for 1"),
        (Read(0, 3, 0, 0, (3, 3, 7)), "worker 2 has made 7 updates while another has 3; bound 2 allows 6"),
    ],
)
def test_the_checker_sees(read: Read, said: str) -> None:
    found = Checker(2).violations(read)
    assert (said in found[0]) if said else not found


@pytest.mark.verifies("staleness-planted")
def test_the_checker_sees_values_that_go_back() -> None:
    checker = Checker(None)
    assert not checker.violations(Read(0, 1, 0, 0, (1, 5)))
    assert not checker.violations(Read(0, 1, 1, 0, (1, 2)))  # another shard
    assert not checker.violations(Read(0, 1, 0, 1, (1, 3)))  # restarted
    assert "fewer than an earlier read" in checker.violations(Read(0, 2, 0, 1, (2, 2)))[0]
    with pytest.raises(WorkerError, match="the bound on staleness does not hold: worker 0 at clock 2"):
        checker.check([Read(0, 2, 0, 1, (1, 2))])


def test_clocks_take_each_update_once_and_in_order() -> None:
    clocks = Clocks(2, 1)
    assert clocks.takes(0, 0)
    clocks.applied = [2, 0]
    assert not clocks.takes(0, 1)
    with pytest.raises(WorkerError, match="update 3 of worker 0 came before update 2"):
        clocks.takes(0, 3)
    assert clocks.admits(1)
    assert not clocks.admits(2)
    assert clocks.join(0, 1) == 2
    with pytest.raises(WorkerError, match="process 0 of it is no longer wanted"):
        clocks.join(0, 0)
    with pytest.raises(ValueError, match="0 workers and bound 1"):
        Clocks(0, 1)


FAULTS = {
    "killed": Fault("killed", 1, 5.03),
    "hung": Fault("hung", 2, 4.0, seconds=60.0),
    "short": Fault("hung", 2, 4.0, seconds=6.0),
    "restarted": Fault("restarted", 1, 6.05, seconds=3.0),
}


def with_faults(bound: int | None, folder: Path, names: tuple[str, ...], seed: int = 1, **more: Any) -> Outcome:
    made = simulation(bound, "random", seed, folder=folder, every=3, timeout=10.0, start=2.0, **more)
    return made.run(faults=[FAULTS[name] for name in names])


@pytest.mark.verifies("staleness-faults")
@pytest.mark.parametrize("bound", [0, 3, None])
@pytest.mark.parametrize("names", [("killed",), ("hung",), ("short",), ("restarted",), ("killed", "hung", "restarted")])
def test_faults_lose_nothing_and_it_goes_on_in_the_stated_time(
    bound: int | None, names: tuple[str, ...], tmp_path: Path, seed: int
) -> None:
    outcome = with_faults(bound, tmp_path, names, seed)
    assert all((value == 12).all() for value in outcome.values.values())  # each update once
    # Until a process is there, and then one step and a wait for others' steps, each four times as long at worst.
    stated = {"killed": 2.0, "hung": 12.0, "restarted": 3.0}
    assert len(outcome.faults) == len(names)
    for fault in outcome.faults:
        assert fault["seconds"] <= sum(stated[name] for name in set(names) & set(stated)) + 12 + 8.0, fault
    assert (outcome.refused > 0) == ("hung" in names)


@pytest.mark.verifies("staleness-faults")
@pytest.mark.parametrize("bound", [1, 3, None])
@pytest.mark.parametrize(
    "before",
    [(), (Fault("hung", 2, -0.5, seconds=4.0),), (Fault("hung", 2, -0.5, seconds=40.0),), (Fault("killed", 2, -0.5),)],
    ids=["all live", "one hangs", "one is replaced", "one is dead"],
)
def test_a_shard_restarts_at_any_time_and_goes_far_back(
    bound: int | None, before: tuple[Fault, ...], tmp_path: Path, seed: int
) -> None:
    """Also when some workers have ended, hang, or are gone: their updates are there, each once, or are made again."""
    for number, at in enumerate((2.05, 6.05, 9.3, 12.0, 14.7, 18.2)):
        faults = [dataclasses.replace(each, at=each.at + at) for each in before]
        made = simulation(bound, "random", seed + number, folder=tmp_path / f"{at}", every=10, timeout=10.0, start=2.0)
        outcome = made.run(faults=[*faults, Fault("restarted", 1, at, seconds=2.0)])
        assert all((value == 12).all() for value in outcome.values.values()), (at, outcome.values)


def to_whatever_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """A message to the shard that died reaches the one that takes its place."""
    pushed = Simulation._pushed

    def push(self: Simulation, process: Any, number: int, generation: int, clock: int, update: Any) -> None:
        pushed(self, process, number, self.shards[number].generation, clock, update)

    monkeypatch.setattr(Simulation, "_pushed", push)


def as_if_no_shard_went_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """The checker holds all reads to both rules."""
    check = Checker.check

    def checks(self: Checker, reads: Any) -> None:
        check(self, [dataclasses.replace(each, generation=0) for each in reads])

    monkeypatch.setattr(Checker, "check", checks)


@pytest.mark.verifies("staleness-planted")
@pytest.mark.parametrize(
    ("plant", "said"),
    [
        (None, ""),
        (to_whatever_is_there, "came before update"),
        (as_if_no_shard_went_back, "the bound on staleness does not hold"),
    ],
)
def test_what_is_true_of_a_shard_before_its_restart_is_not_after_it(
    plant: Any, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def restarts() -> None:
        for seed, at in ((1, 6.05), (1, 6.35), (2, 6.05)):
            made = simulation(3, "random", seed, folder=tmp_path / f"{seed}-{at}", every=10)
            made.run(faults=[Fault("restarted", 1, at, seconds=0.05)])

    if plant is None:
        restarts()
        return
    plant(monkeypatch)
    with pytest.raises(WorkerError, match=said):
        restarts()


@pytest.mark.verifies("staleness-faults")
def test_who_waits_for_another_shard_sends_again_what_this_one_lost(tmp_path: Path) -> None:
    """Else three workers wait on one shard for the fourth, which waits on the other for what that lost of theirs."""
    made = simulation(0, "random", 2, folder=tmp_path, every=10)
    outcome = made.run(faults=[Fault("hung", 2, 5.05, seconds=6.0), Fault("restarted", 0, 6.05, seconds=1.0)])
    assert all((value == 12).all() for value in outcome.values.values())


def test_who_is_gone_sends_nothing_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A restarted shard has of a dead worker what its checkpoint has; of one that hangs, until it wakes up."""
    had: list[tuple[float, int]] = []
    pushed = Simulation._pushed

    def push(self: Simulation, process: Any, *arguments: Any) -> None:
        if process.worker == 2 and arguments[0] == 1 and process.incarnation == 0:
            had.append((self.now, arguments[2]))
        pushed(self, process, *arguments)

    monkeypatch.setattr(Simulation, "_pushed", push)
    for kind in ("killed", "hung"):
        had.clear()
        made = simulation(3, "none", folder=tmp_path / kind, every=10, timeout=10.0, start=5.0)
        made.run(faults=[Fault(kind, 2, 5.5, 6.0), Fault("restarted", 1, 6.05, seconds=1.0)])
        after = [(at, clock) for at, clock in had if at > 5.8]
        if kind == "killed":
            assert not after
        else:
            assert after[0][0] > 11.5
            assert [clock for _, clock in after] == list(range(12)), after


@pytest.mark.verifies("staleness-faults")
def test_the_same_faults_give_the_same_bits(tmp_path: Path) -> None:
    every = ("killed", "hung", "restarted")
    first, second = (with_faults(3, tmp_path / name, every) for name in ("a", "b"))
    assert first.seconds == second.seconds
    assert first.checker.lags == second.checker.lags
    assert [fault["seconds"] for fault in first.faults] == [fault["seconds"] for fault in second.faults]


@pytest.mark.verifies("staleness-planted")
def test_an_update_that_a_worker_no_longer_has_is_missed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forgets = Client.made

    def made(self: Client, update: Any) -> Any:
        shares = forgets(self, update)
        self.durable(1, self.clock - 1)  # whatever the checkpoint holds
        return shares

    monkeypatch.setattr(Client, "made", made)
    with pytest.raises(WorkerError, match="the checkpoint is older than the one that it was told of"):
        with_faults(3, tmp_path, ("restarted",))


@pytest.mark.verifies("staleness-planted")
def test_an_update_applied_twice_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As by a shard that does not look at its clocks when a worker sends again."""

    def apply(self: Shard, worker: int, clock: int, update: Any) -> bool:
        for name, value in update.items():
            self.values[name] += value
        self.clocks.applied[worker] = max(self.clocks.applied[worker], clock + 1)
        return True

    def between() -> Outcome:
        """A worker is killed when it has sent an update to one of two shards."""
        learner: Any = Counting()
        made = Watched(learner, Delays("none", jitter=0.0), staleness=3, shards=2, latency=0.1, folder=tmp_path)
        return made.run(faults=[Fault("killed", 1, 1.205)])

    assert all((value == 12).all() for value in between().values.values())
    monkeypatch.setattr(Shard, "apply", apply)
    with pytest.raises(AssertionError):
        between()


def test_a_shard_comes_back_from_its_checkpoint_and_from_no_other(tmp_path: Path) -> None:
    values = {"a": np.arange(3.0, dtype=np.float32)}
    shard = Shard(0, values, 2, 1)
    shard.apply(1, 0, {"a": np.ones(3, np.float32)})
    shard.save(tmp_path / "s.safetensors")
    shard.apply(1, 1, {"a": np.ones(3, np.float32)})
    assert shard.durable == [0, 1]
    again = Shard(0, values, 2, 1)
    again.restore(tmp_path / "s.safetensors")
    np.testing.assert_array_equal(again.values["a"], values["a"] + 1)
    assert (again.clocks.applied, again.generation) == ([0, 1], 1)
    for other in (Shard(1, values, 2, 1), Shard(0, values, 3, 1), Shard(0, {"a": np.zeros(4, np.float32)}, 2, 1)):
        with pytest.raises(InputError, match="is no checkpoint of shard"):
            other.restore(tmp_path / "s.safetensors")


def test_checkpoints_are_looked_at_before_there_are_processes(tmp_path: Path) -> None:
    parts = [{"a": np.zeros(3, np.float32)}, {"b": np.zeros(2, np.float32)}]
    check_checkpoints(tmp_path, parts, 2, resume=False)
    for number, values in enumerate(parts):
        Shard(number, values, 2, 1).save(shard_path(tmp_path, number))
    check_checkpoints(tmp_path, parts, 2, resume=True)
    with pytest.raises(InputError, match="continue it with --resume"):
        check_checkpoints(tmp_path, parts, 2, resume=False)
    with pytest.raises(InputError, match=r"1 servers go on from shard-0.safetensors: give the number of servers"):
        check_checkpoints(tmp_path, parts[:1], 2, resume=True)
    with pytest.raises(InputError, match="of this network for 3 workers; give the recipe and the numbers of workers"):
        check_checkpoints(tmp_path, parts, 3, resume=True)
    shard_path(tmp_path, 1).write_bytes(b"x")
    with pytest.raises(InputError, match="is damaged"):
        check_checkpoints(tmp_path, parts, 2, resume=True)


def test_shards_are_of_near_equal_size() -> None:
    assert split({"a": 10, "b": 9, "c": 2, "d": 1}, 2) == [["a", "d"], ["b", "c"]]
    with pytest.raises(InputError, match="3 servers for 2 parameters"):
        split({"a": 1, "b": 1}, 3)


def test_delays_are_what_they_say() -> None:
    def slow(delays: Delays, worker: int) -> float:
        return float(np.mean([delays.seconds(1, worker, 4, clock, float(clock)) for clock in range(400)]))

    assert slow(Delays("none"), 0) == pytest.approx(1, abs=0.02)
    assert [round(slow(Delays("fixed"), worker)) for worker in range(2)] == [4, 1]
    assert slow(Delays("random", share=0.25), 1) == pytest.approx(1.75, abs=0.2)
    assert slow(Delays("rotating"), 1) == pytest.approx(1.75, abs=0.1)
    assert Delays("rotating", jitter=0.0).seconds(1, 1, 4, 0, 8.5) == 4.0
    with pytest.raises(RecipeError, match="stragglers are of kind 'slow'"):
        Delays("slow")


SCHEDULE = Schedule(epochs=2, batch=16, learning_rate=0.5, optimizer="sgd", momentum=0.0, weight_decay=1e-3)


def lesson() -> Images:
    rng = np.random.default_rng(1)
    inputs = rng.uniform(size=(60, 16)).astype(np.float32)
    return Images(Split(inputs, (inputs.sum(1) * 4 % 4).astype(np.int64)), (1, 4, 4))


def network() -> nn.Module:
    torch.manual_seed(1)
    return mlp(16, (12,), 4)


def test_bulk_synchronous_training_is_that_of_one_process() -> None:
    """Four workers on shares of each batch, and one on the whole: the same to float rounding; stale reads are not."""
    alone = network()
    fit(alone, lesson(), SCHEDULE, (1,))
    worst = {}
    for bound in (0, 3):
        learner = Learner(network(), lesson(), SCHEDULE, 1, WORKERS)
        values = simulation(bound, "random", cls=Simulation, learner=learner).run().values
        worst[bound] = max(
            float(np.abs(values[name] - parameter.detach().numpy()).max())
            for name, parameter in alone.named_parameters()
        )
    assert worst[0] < 1e-5
    assert worst[3] > 1e-3


def test_statistics_are_averaged_and_optimizers_with_state_refused() -> None:
    module = nn.Sequential(nn.BatchNorm1d(16), nn.Linear(16, 4), nn.Dropout(0.5))
    learner = Learner(module, lesson(), SCHEDULE, 1, 1)
    assert set(learner.values()) == {
        "0.weight", "0.bias", "0.running_mean", "0.running_var", "1.weight", "1.bias",
    }  # fmt: skip
    values = learner.values()
    first, _ = learner.update(values, 0, 3)
    assert np.abs(first["0.running_mean"]).max() > 0
    again, _ = learner.update(values, 0, 3)  # as the worker that replaces one does
    for name, value in first.items():
        np.testing.assert_array_equal(again[name], value, err_msg=name)
    with pytest.raises(RecipeError, match="expected sgd with momentum 0"):
        Learner(module, lesson(), dataclasses.replace(SCHEDULE, momentum=0.9), 1, 1)
    with pytest.raises(RecipeError, match=r"schedule.clip is 2.5: .*leave it out"):
        Learner(module, lesson(), dataclasses.replace(SCHEDULE, clip=2.5), 1, 1)
    with pytest.raises(RecipeError, match=r"schedule.accumulate is 2; expected 1"):
        Learner(module, lesson(), dataclasses.replace(SCHEDULE, accumulate=2), 1, 1)
