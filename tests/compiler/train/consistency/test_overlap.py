"""Reads ahead of a parameter server: the bound holds as before, own updates are there, and messages are hidden."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compiler.errors import WorkerError
from compiler.train.consistency.client import Client
from compiler.train.consistency.core import Read
from compiler.train.consistency.delays import KINDS, Delays
from compiler.train.consistency.simulate import Fault, Simulation
from tests.compiler.train.consistency.test_core import FAULTS, WORKERS, Counting, simulation


class Seeing(Counting):
    """Sees that what a step begins with holds all of the worker's own updates."""

    def update(self, values: Any, worker: int, clock: int) -> Any:
        assert all(value[worker] >= clock for value in values.values()), (worker, clock, values)
        return super().update(values, worker, clock)


@pytest.mark.verifies("staleness-overlap")
@pytest.mark.parametrize("bound", [1, 3, None])
@pytest.mark.parametrize("kind", KINDS)
def test_reads_ahead_keep_the_bound_and_hold_own_updates(kind: str, bound: int | None, seed: int) -> None:
    outcome = simulation(bound, kind, seed, overlap=True, learner=Seeing()).run()
    assert outcome.checker.reads == 2 * WORKERS * 12
    if bound is not None:
        assert max(outcome.checker.lags) <= bound
    assert all((value == 12).all() for value in outcome.values.values())


@pytest.mark.verifies("staleness-overlap")
@pytest.mark.parametrize("latency", [0.1, 0.4])
def test_messages_are_hidden_but_for_the_first_read_and_the_last_update(latency: float) -> None:
    def seconds(bound: int, overlap: bool) -> float:
        learner: Any = Counting()
        even = Delays("none", jitter=0.0)
        return Simulation(learner, even, staleness=bound, latency=latency, overlap=overlap).run().seconds

    assert seconds(1, False) == pytest.approx(12 * (1 + 2 * latency) + latency)
    assert seconds(1, True) == pytest.approx(12 + 3 * latency)
    assert seconds(0, True) == seconds(0, False)  # waits for everyone's last update: nothing can be read ahead


def not_added(client: Client, shard: int, values: Any, read: Read) -> tuple[Any, Read]:
    return values, read


def only_said(client: Client, shard: int, values: Any, read: Read) -> tuple[Any, Read]:
    seen = [client.clock if worker == read.worker else count for worker, count in enumerate(read.seen)]
    return values, dataclasses.replace(read, seen=tuple(seen))


@pytest.mark.verifies("staleness-overlap")
@pytest.mark.parametrize(
    ("planted", "error", "said"),
    [(not_added, WorkerError, "misses own updates"), (only_said, AssertionError, "0")],
)
def test_an_own_update_that_is_missing_is_caught(
    planted: Any, error: type[Exception], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Client, "completed", planted)
    with pytest.raises(error, match=said):
        simulation(3, "none", overlap=True, learner=Seeing()).run()


@pytest.mark.verifies("staleness-overlap")
@pytest.mark.parametrize("bound", [1, 3, None])
def test_faults_lose_nothing_while_reads_are_ahead(bound: int | None, seed: int, tmp_path: Path) -> None:
    cases: list[tuple[Fault, ...]] = [
        tuple(FAULTS[name] for name in names) for names in (("killed",), ("hung",), ("killed", "hung", "restarted"))
    ]
    cases += [(Fault("restarted", 1, at, seconds=2.0),) for at in (2.05, 6.05, 9.3, 12.0)]
    for number, faults in enumerate(cases):
        made = simulation(
            bound, "random", seed, overlap=True, learner=Seeing(), folder=tmp_path / str(number), every=5, timeout=10.0,
            start=2.0,
        )  # fmt: skip
        outcome = made.run(faults=faults)
        assert all((value == 12).all() for value in outcome.values.values()), faults
        assert len(outcome.faults) == len(faults)


def test_what_is_added_to_a_read_is_what_it_misses() -> None:
    client = Client([["a"]], [2])
    for step in range(3):
        client.made({"a": np.full(2, 10.0**step)})
    read = Read(0, 5, 0, 0, (3, 7))
    values: Mapping[str, Any] = {"a": np.array([1.0, 2.0])}
    values["a"].flags.writeable = False  # as those of Ray are
    completed, said = client.completed(0, values, read)
    assert completed["a"].tolist() == [111.0, 112.0]
    assert said.seen == (5, 7)
    client.durable(0, 5)
    assert client.kept == 1
    with pytest.raises(WorkerError, match="goes on from update 3 of this worker, which keeps those from 4 on"):
        client.completed(0, values, read)
