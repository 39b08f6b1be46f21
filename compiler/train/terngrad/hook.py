"""TernGrad and 1-bit SGD as a communication hook of torch's DistributedDataParallel.

    exchange = Exchange(module, Settings(seed=1), Wire())
    ddp = DistributedDataParallel(module)
    ddp.register_comm_hook(exchange, average_bucket)

and train as ever; `exchange.set_epoch(epoch)` at each epoch if every n-th one is to be float.
"""

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import GradBucket  # `torch.distributed` has it too, but not for type checkers
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks

from compiler.train.terngrad.averaging import Averaging

__all__ = ["average_bf16", "average_bucket"]


def average_bucket(exchange: Averaging, bucket: GradBucket) -> torch.futures.Future[torch.Tensor]:
    """Put the average over the workers into a bucket of gradients.

    The future is ready when it is returned: buckets come in the same order on every worker, and what is said about
    one is over before the next begins. After the last bucket the exchange goes on to the next step.
    """
    parameters = bucket.parameters()
    gradients = [_shaped(*pair) for pair in zip(bucket.gradients(), parameters, strict=True)]
    means = exchange.average([gradients], exchange.numbers(parameters))
    for gradient, mean in zip(gradients, means, strict=True):
        gradient.copy_(mean)
    if bucket.is_last():
        exchange.step += 1
    done: torch.futures.Future[torch.Tensor] = torch.futures.Future()
    done.set_result(bucket.buffer())
    return done


def average_bf16(group: dist.ProcessGroup, bucket: GradBucket) -> torch.futures.Future[torch.Tensor]:
    """Torch's own hook; under its name torch 2.13 refuses it without CUDA, and gloo adds up bfloat16 as well."""
    return default_hooks.bf16_compress_hook(group, bucket)


def _shaped(gradient: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
    """A gradient with its elements where its parameter has them.

    A bucket holds gradients in the memory order of their parameters, and shows them as if all were contiguous: those
    of a channels-last convolution would come in another order than anywhere else.
    """
    stride = parameter.stride()
    dense = torch.empty_like(parameter).stride() == stride
    return gradient.as_strided(parameter.shape, stride, gradient.storage_offset()) if dense else gradient
