"""Pipeline parallel training: each process has some layers, and micro-batches pass through them.

Sources: GPipe (Huang et al., 2019); 1F1B of PipeDream-Flush (Narayanan et al., 2021); torch.distributed.pipelining.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.pipelining import Schedule1F1B, ScheduleGPipe, SplitPoint, pipeline

from compiler.errors import RecipeError
from compiler.train.images import ImageBatch
from compiler.train.loop import Batch
from compiler.train.terngrad.virtual import worker_random
from compiler.train.terngrad.wire import losing_workers

__all__ = ["SCHEDULES", "Pipeline", "cuts"]

SCHEDULES = {"gpipe": ScheduleGPipe, "1f1b": Schedule1F1B}
"""All forward passes before all backward ones; or one of each in turn, which holds fewer activations."""
_TYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.int64, torch.int32, torch.bool)
_DIMENSIONS = 8  # of a tensor, at most


class Pipeline:
    """A `Way` of the processes of the default group: process r has the r-th part of the layers.

    The module is traced by torch.export with micro-batches of one size. What is missing in the last ones is filled up
    with samples that have no weight in the loss.

    Parameters
    ----------
    module : alike in all processes; images in, class scores out.
    example : as many samples as a batch has.
    seed, step : of what the module draws, and the step at which the training begins.
    micro : micro-batches in a batch; at least as many as processes for "1f1b".
    schedule : one of `SCHEDULES`.

    Raises
    ------
    RecipeError
        The module cannot be traced or has fewer layers than there are processes.
    """

    def __init__(
        self, module: nn.Module, example: Tensor, micro: int = 4, schedule: str = "1f1b", seed: int = 1, step: int = 0
    ) -> None:
        self.channels_last, self.seed, self.step = False, seed, step
        self.rank, self.processes = dist.get_rank(), dist.get_world_size()
        if schedule == "1f1b" and micro < self.processes:
            raise RecipeError(f"{micro} micro-batches for {self.processes} processes; expected at least as many")
        self.micro, self.size = micro, -(-len(example) // micro)
        names = cuts(module, self.processes)
        for parameter in module.parameters():
            parameter.data = parameter.data.contiguous()
        given = example[:1].repeat(self.size, *[1] * (example.dim() - 1))
        module.train()
        try:
            pipe = pipeline(module, (given,), split_spec=dict.fromkeys(names, SplitPoint.BEGINNING))
        except Exception as error:  # export and the tracer raise many kinds
            line = next((text for text in str(error).splitlines() if text.strip()), type(error).__name__)
            raise RecipeError(f"the network cannot be cut into stages at {', '.join(names)}: {line}") from error
        if pipe.num_stages != self.processes:
            raise RecipeError(f"the network gave {pipe.num_stages} stages for {self.processes} processes")
        stage = pipe.build_stage(self.rank, torch.device("cpu"))
        self.module: nn.Module = stage.submod
        self._schedule = SCHEDULES[schedule](stage, micro, loss_fn=_loss)
        self.owners = {
            name: number for number in range(self.processes) for name in pipe.get_stage_module(number).state_dict()
        }

    def __call__(self, module: nn.Module, batch: Batch) -> float:
        """The gradients of this process' layers; the loss."""
        if not isinstance(batch, ImageBatch) or batch.known is not None:
            raise RecipeError("a pipeline learns labels of images; the lesson has something else")
        total = self.micro * self.size
        inputs, target = batch.inputs, batch.labels.double()
        weights = torch.full_like(target, self.micro / len(batch))
        missing = total - len(inputs)
        if missing:
            inputs = torch.cat([inputs, inputs[:1].expand(missing, *inputs.shape[1:])])
            target, weights = (torch.cat([each, each.new_zeros(missing)]) for each in (target, weights))
        losses: list[Tensor] = []
        with worker_random(self.seed, self.step, self.rank), losing_workers("passing micro-batches"):
            if self.rank == 0:
                self._schedule.step(inputs)
            elif self.rank == self.processes - 1:
                self._schedule.step(target=torch.stack([target, weights], 1), losses=losses)
            else:
                self._schedule.step()
            loss = torch.stack(losses).mean().detach() if losses else torch.zeros(())
            dist.broadcast(loss, self.processes - 1)
        self.step += 1
        return loss.item()

    def whole(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See `Way.whole`."""
        mine = {name: value.contiguous() for name, value in self.part(tensors).items()}
        names = sorted(self.owners)
        # What there is, before it is sent, in numbers: a peer's bytes are never read as Python objects.
        heads = torch.zeros(len(names), 3 + _DIMENSIONS, dtype=torch.int64)
        for row, name in enumerate(names):
            if name in mine:
                size = mine[name].shape
                heads[row, : 3 + len(size)] = torch.tensor([1, _TYPES.index(mine[name].dtype), len(size), *size])
        found: dict[str, Tensor] = {}
        with losing_workers("putting parts together"):
            dist.all_reduce(heads)
            for name, (there, kind, dimensions, *sizes) in zip(names, heads.tolist(), strict=True):
                if there:
                    value = mine.get(name, torch.empty(sizes[:dimensions], dtype=_TYPES[kind]))
                    dist.broadcast(value.reshape(-1).view(torch.uint8), self.owners[name])
                    found[name] = value
        return found

    def part(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See `Way.part`."""
        return {name: value.detach() for name, value in tensors.items() if self.owners[name] == self.rank}


def _loss(outputs: Tensor, target: Tensor) -> Tensor:
    """Of a micro-batch, such that the mean over the micro-batches is that of the batch."""
    labels, weights = target[:, 0].long(), target[:, 1].to(outputs.dtype)
    return (nn.functional.cross_entropy(outputs.float(), labels, reduction="none") * weights).sum()


def cuts(module: nn.Module, parts: int) -> list[str]:
    """Layers at which the second and further parts begin, so that the largest part has fewest weights.

    Layers are the modules with parameters of their own, in the order of registration.

    Raises
    ------
    RecipeError
        There are fewer of them than parts.
    """
    named = [
        (path, sum(parameter.numel() for parameter in child.parameters(recurse=False)))
        for path, child in module.named_modules()
        if next(child.parameters(recurse=False), None) is not None
    ]
    if len(named) < parts:
        raise RecipeError(f"the network has {len(named)} layers with weights for {parts} processes; expected as many")
    count = len(named)
    sums = [0]
    for _, size in named:
        sums.append(sums[-1] + size)
    # best[n]: of the first n layers in so many parts: the largest part, and where each begins
    best = {n: (sums[n], [0]) for n in range(1, count + 1)}
    for part in range(2, parts + 1):
        best = {
            n: min((max(best[m][0], sums[n] - sums[m]), [*best[m][1], m]) for m in range(part - 1, n))
            for n in range(part, count + 1)
        }
    return [named[place][0] for place in best[count][1][1:]]
