"""1-bit SGD: its wire format byte for byte, what feedback conserves, and processes against virtual workers."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from compiler.errors import InputError, RecipeError
from compiler.train.loop import fit, reproducible
from compiler.train.parallel.mesh import Mesh
from compiler.train.terngrad.averaging import Clock
from compiler.train.terngrad.bytes import one_bit_bits
from compiler.train.terngrad.channel import Local
from compiler.train.terngrad.methods import Method, load_state, state_of
from compiler.train.terngrad.onebit import OneBit, OneBitSettings, decode, encode
from compiler.train.terngrad.virtual import VirtualWorkers
from tests.compiler.train.terngrad.processes import in_group
from tests.compiler.train.terngrad.test_wire import SCHEDULE, prepared
from tests.compiler.train.terngrad.test_wire import state_of as values_of

WORKERS, STEPS = 2, 6


class Heard(Local):
    """Keeps what was sent."""

    def __init__(self) -> None:
        super().__init__(WORKERS)
        self.messages: list[Tensor] = []

    def everyone(self, values: Any) -> Tensor:
        self.messages.extend(values)
        return super().everyone(values)


def read(message: Tensor, rows: int, columns: int) -> NDArray[np.float32]:
    """A message of one tensor, decoded bit by bit from what the format says."""
    data = message.numpy().tobytes()
    levels = np.frombuffer(data[: 8 * rows], "<f4").reshape(rows, 2)
    found = np.zeros((rows, columns), np.float32)
    for number in range(rows * columns):
        bit = data[8 * rows + number // 8] >> number % 8 & 1
        found[number // columns, number % columns] = levels[number // columns, bit]
    return found


@pytest.mark.verifies("onebit-wire-format")
def test_a_message_is_what_the_format_says_byte_for_byte() -> None:
    first = torch.tensor([[1.0, -2.0, 3.0], [-1.0, -3.0, -0.5]])
    second = torch.tensor([[0.0, -0.0, -8.0, 4.0, 4.0]])  # both zeros are from zero up
    message = encode([first, second])
    levels = np.array([[-2.0, 2.0], [-1.5, 0.0], [-8.0, 2.0]], "<f4")
    assert message.numpy().tobytes() == levels.tobytes() + bytes([0b11000101, 0b00000110])
    decoded = decode(message, [(2, 3), (1, 5)])
    assert decoded[0].tolist() == [[2.0, -2.0, 2.0], [-1.5, -1.5, -1.5]]
    assert decoded[1].tolist() == [[2.0, 2.0, -8.0, 2.0, 2.0]]
    assert one_bit_bits(3) == 2


def sent_and_owed(seed: int, feedback: bool) -> tuple[NDArray[Any], NDArray[Any], OneBit, list[Tensor]]:
    """Gradients (step, worker, row, column), means of the steps, the exchange at the end, and all messages."""
    rng = np.random.default_rng(seed)
    gradients = rng.standard_normal((STEPS, WORKERS, 6, 50)).astype(np.float32)
    channel = Heard()
    exchange = OneBit(nn.Linear(50, 6), OneBitSettings(feedback=feedback), channel)
    means = [exchange.average([[torch.from_numpy(mine)] for mine in step], [0])[0].numpy() for step in gradients]
    return gradients, np.array(means), exchange, channel.messages


@pytest.mark.verifies("onebit-feedback")
def test_each_residual_is_what_its_messages_left_bit_for_bit(seed: int) -> None:
    gradients, means, exchange, messages = sent_and_owed(seed, feedback=True)
    owed = np.zeros((WORKERS, 6, 50), np.float32)
    for step in range(STEPS):
        sent = np.array([read(messages[step * WORKERS + worker], 6, 50) for worker in range(WORKERS)])
        owed = (gradients[step] + owed) - sent
        np.testing.assert_array_equal(means[step], (sent[0] + sent[1]) / np.float32(WORKERS))
    for worker in range(WORKERS):
        np.testing.assert_array_equal(exchange.residuals[worker][0].numpy(), owed[worker])


@pytest.mark.verifies("onebit-feedback")
@pytest.mark.parametrize("feedback", [True, False])
def test_what_was_sent_and_what_is_owed_are_the_gradients_only_with_feedback(seed: int, feedback: bool) -> None:
    gradients, means, exchange, _ = sent_and_owed(seed, feedback)
    owed = sum(each[0].numpy().astype(np.float64) for each in exchange.residuals if each)
    total = WORKERS * means.astype(np.float64).sum(0) + owed
    wrong = np.abs(total - gradients.astype(np.float64).sum((0, 1))).max()
    assert (wrong < 1e-4) == feedback, wrong


def training(seed: int, begun: dict[str, Any] | None = None, epochs: int = 2) -> dict[str, Any]:
    """In one worker's process: weights, and residuals of all; goes on after the first epoch if `begun` is its end."""
    module, lesson = prepared(seed)
    method = Method("onebit", OneBitSettings(smallest=40, seed=seed))
    done, steps = 0 if begun is None else 1, lesson.steps(SCHEDULE.batch)
    if begun is not None:
        module.load_state_dict(begun["weights"])
    mesh = Mesh(module, "data", seed, done * steps, method, bucket_mb=0.002)
    if begun is not None:
        load_state(mesh.averaging, begun["residuals"])
    assert mesh.averaging is not None
    kept: dict[str, Any] = {}

    def after_epoch(epoch: Any) -> None:
        if epoch.done == 1:
            kept["optimizer"] = copy.deepcopy(epoch.optimizer)
            kept["weights"] = {name: value.clone() for name, value in module.state_dict().items()}
            kept["residuals"] = {name: value.clone() for name, value in state_of(mesh.averaging).items()}

    state = None if begun is None else begun["optimizer"]
    fit(
        module, lesson, SCHEDULE, (seed,), hooks=[Clock(mesh.averaging, steps)], backward=mesh, done=done,
        optimizer_state=state, after_epoch=after_epoch,
    )  # fmt: skip
    return {"end": values_of(module), "kept": kept}


def broken(seed: int) -> dict[str, Any]:
    """In one worker's process: without a break; gone on with; and with the residuals forgotten."""
    whole = training(seed)
    kept = whole["kept"]
    again = training(seed, kept)
    nothing = {name: torch.zeros_like(value) for name, value in kept["residuals"].items()}
    forgot = training(seed, {**kept, "residuals": nothing})
    names = sorted(kept["residuals"])
    return {"whole": whole["end"], "again": again["end"], "forgot": forgot["end"], "names": names}


@pytest.mark.verifies("onebit-processes")
def test_processes_are_virtual_workers_and_go_on_bit_for_bit_unless_residuals_are_forgotten(
    seed: int, tmp_path: Path
) -> None:
    module, lesson = prepared(seed)
    virtual = VirtualWorkers(module, OneBitSettings(smallest=40, seed=seed), WORKERS)
    with reproducible(threads=1):  # as the processes have
        clock = Clock(virtual.exchange, lesson.steps(SCHEDULE.batch))
        fit(module, lesson, SCHEDULE, (seed,), hooks=[clock], backward=virtual)
    expected = values_of(module)
    for rank, found in enumerate(in_group(WORKERS, tmp_path, broken, seed)):
        compared = [name for name in expected if rank == 0 or "running" not in name]

        def differ(how: str, found: Any = found, compared: Any = compared) -> list[str]:
            return [name for name in compared if not np.array_equal(found[how][name], expected[name])]

        assert differ("whole") == []
        assert differ("again") == []
        assert differ("forgot") != []
        assert found["names"][0].startswith("0.")
        assert len(found["names"]) == 2 * sum(parameter.numel() >= 40 for parameter in module.parameters())


def test_residuals_of_other_workers_are_refused() -> None:
    def made(workers: int) -> OneBit:
        return OneBit(nn.Linear(50, 6), OneBitSettings(), Local(workers))

    with pytest.raises(InputError, match=r"residuals of 3 workers, .* go on with as many as it was begun with"):
        made(2).load_state(made(3).state())
    with pytest.raises(RecipeError, match=r"the largest of the network has 6 elements and onebit.smallest is 256"):
        OneBit(nn.Linear(3, 2), OneBitSettings(), Local(2))
