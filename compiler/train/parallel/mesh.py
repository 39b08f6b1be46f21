"""Data and tensor parallel training on a mesh of processes: DistributedDataParallel, FSDP2, DTensor.

Sources: torch.distributed.fsdp.fully_shard; torch.distributed.tensor.parallel; Megatron-LM (Shoeybi et al., 2019),
section 3, for columns followed by rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate, distribute_tensor
from torch.distributed.tensor.parallel import ColwiseParallel, ParallelStyle, RowwiseParallel, parallelize_module

from compiler.errors import RecipeError
from compiler.train.loop import Batch
from compiler.train.parallel.way import shares
from compiler.train.terngrad.averaging import Averaging
from compiler.train.terngrad.methods import Method
from compiler.train.terngrad.virtual import share_loss, worker_random
from compiler.train.terngrad.wire import losing_workers

__all__ = ["Mesh", "plan", "styles"]

_ELEMENTWISE = (nn.ReLU, nn.Tanh, nn.Sigmoid, nn.GELU, nn.SiLU, nn.ELU, nn.LeakyReLU, nn.Identity)
"""Between two layers these work on a share of the values as on all of them; dropout draws, so it does not."""


class Mesh:
    """A `Way` of the processes of the default group: a grid of shares of the batch and shares of the layers.

    Parameters
    ----------
    module : alike in all processes; "data" leaves it as it is, the others replace its parameters by parts.
    way : "data", "sharded", "tensor" or "data-tensor".
    seed : of what the module draws.
    step : at which the training begins.
    method : how gradients are exchanged, of "data".
    bucket_mb : most MiB of gradients that "data" exchanges together; None for torch's 25.

    Attributes
    ----------
    wrapped : what is called for the loss.
    averaging : of the method, where it is one of this kit's.
    plan : Linear layer → "column" or "row", of those that are split.

    Raises
    ------
    RecipeError
        "data-tensor" with an odd number of processes, or nothing to split.
    """

    def __init__(
        self, module: nn.Module, way: str, seed: int, step: int = 0, method: Method | None = None,
        bucket_mb: float | None = None,
    ) -> None:  # fmt: skip
        processes = dist.get_world_size()
        if way == "data-tensor" and processes % 2:
            raise RecipeError(
                f"data-tensor has {processes} processes; expected an even number: layers are split in two"
            )
        tensor = processes // shares(way, processes)
        self.module, self.wrapped, self.seed, self.step = module, module, seed, step
        self.channels_last = way == "data"
        self.plan: dict[str, str] = {}
        self.averaging: Averaging | None = None
        with losing_workers("comparing the networks"):
            mesh = init_device_mesh("cpu", (processes // tensor, tensor), mesh_dim_names=("data", "tensor"))
            self.shares, self.share = mesh["data"].size(), mesh["data"].get_local_rank()
            if tensor > 1:
                self.plan = plan(module, tensor)
                parallelize_module(module, mesh["tensor"], styles(self.plan, module))
            if way == "data":
                self.wrapped, self.averaging = (method or Method()).wrap(module, bucket_mb)
            elif way != "tensor":
                for parameter in module.parameters():  # fully_shard refuses others
                    if not parameter.is_contiguous():
                        parameter.data = parameter.data.contiguous()
                fully_shard(module, mesh=mesh["data"])

    def __call__(self, module: nn.Module, batch: Batch) -> float:
        """The gradients on the whole batch; the loss on this process' share."""
        with worker_random(self.seed, self.step, self.share), losing_workers("averaging gradients"):
            loss = share_loss(self.wrapped, batch, self.shares, self.share)
            loss.backward()  # type: ignore[no-untyped-call]
        self.step += 1
        return loss.item()

    def whole(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See `Way.whole`."""
        with losing_workers("putting parts together"):
            return {
                name: value.full_tensor() if isinstance(value, DTensor) else value for name, value in tensors.items()
            }

    def part(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See `Way.part`."""
        named = dict(self.module.named_parameters())
        return {name: _like(value, named[name]) for name, value in tensors.items()}


def _like(value: Tensor, parameter: Tensor) -> Tensor:
    """A whole tensor, split as a parameter of the same shape is."""
    if not isinstance(parameter, DTensor) or value.shape != parameter.shape:
        return value
    return distribute_tensor(value, parameter.device_mesh, parameter.placements)


def plan(module: nn.Module, parts: int) -> dict[str, str]:
    """Which Linear layers are split, and how: path → "column" (outputs) or "row" (inputs).

    In a Sequential, two of them with nothing but elementwise functions between are a column and a row, which meet
    without talking, if the values between can be shared evenly. Every other one is split by columns, and its outputs
    are gathered. Convolutions and recurrent
    layers stay whole: torch has no way to split the latter.

    Raises
    ------
    RecipeError
        There is no Linear layer.
    """
    found: dict[str, str] = {}
    for path, parent in module.named_modules():
        if not isinstance(parent, nn.Sequential):
            continue
        layers = [(f"{path}.{name}".lstrip("."), child) for name, child in parent.named_children()]
        linear = [place for place, (_, child) in enumerate(layers) if type(child) is nn.Linear]
        for first, second in pairwise(linear):
            between = layers[first + 1 : second]
            even = layers[first][1].out_features % parts == 0  # type: ignore[operator]
            if even and layers[first][0] not in found and all(isinstance(child, _ELEMENTWISE) for _, child in between):
                found |= {layers[first][0]: "column", layers[second][0]: "row"}
    alone = [path for path, child in module.named_modules() if type(child) is nn.Linear and path not in found]
    found |= dict.fromkeys(alone, "column")
    if not found:
        raise RecipeError("the network has no Linear layer to split; expected one, or another way than tensor")
    return found


def styles(how: Mapping[str, str], module: nn.Module) -> dict[str, ParallelStyle]:
    """A plan as torch takes it; the outputs of a column without a row are gathered."""
    names = [path for path, _ in module.named_modules() if path in how]
    found: dict[str, ParallelStyle] = {}
    for path, following in zip(names, [*names[1:], ""], strict=True):
        if how[path] == "row":
            found[path] = RowwiseParallel()
        else:
            paired = how.get(following) == "row"
            found[path] = ColwiseParallel() if paired else ColwiseParallel(output_layouts=Replicate())
    return found
