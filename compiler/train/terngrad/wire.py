"""The `Channel` of real processes: packed codes through a process group, by the scheme that sends fewest bytes.

"gather": everyone's packed codes to everyone, who adds them up: 2 (N - 1) bits a value.
"sums": worker r adds up the r-th share of the values; everyone sends it the packed codes of that share, and it sends
back the sums in ⌈log2(2N + 1)⌉ bits: (N - 1) / N · (2 + ⌈log2(2N + 1)⌉) bits a value.

Float tensors go the way of "sums" with 32 bits, as many as a ring all-reduce sends, and are added in the order of the
workers. Every call blocks: calls of different buckets would otherwise meet in another order on another worker.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor

from compiler.errors import WorkerError
from compiler.train.terngrad.bytes import cheapest
from compiler.train.terngrad.pack import pack, pack_sums, unpack, unpack_sums

__all__ = ["Wire", "losing_workers"]

_ALIGN = 8
"""Values in a share are a multiple of this: whole bytes of codes, and whole groups of sums."""


@contextmanager
def losing_workers(doing: str) -> Iterator[None]:
    """Say which talk with the other workers failed. Raises `WorkerError`.

    The backend, gloo, raises plain RuntimeErrors: at once when a connection breaks, after the group's timeout when
    nobody answers.
    """
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and "gloo" not in str(error):
            raise  # an error of this worker's own
        cause = str(error).partition(" This is typically")[0].removesuffix(".")
        raise WorkerError(
            f"another worker is gone or does not answer ({doing}: {cause}); this one stops: start all of them again "
            "with --resume, which goes on from the last checkpoint"
        ) from error


class Wire:
    """Channel over a process group of torch.distributed; the worker's number is its rank.

    Its calls raise `WorkerError` when another worker is gone.

    Parameters
    ----------
    group : None for the default group.
    scheme : one of `settings.SCHEMES`.
    """

    def __init__(self, group: dist.ProcessGroup | None = None, scheme: str = "auto") -> None:
        self.group = group
        self.workers = dist.get_world_size(group)
        self.rank = dist.get_rank(group)
        self.here = range(self.rank, self.rank + 1)
        self.scheme = cheapest(self.workers) if scheme == "auto" else scheme

    def largest(self, scales: Sequence[Tensor]) -> Tensor:
        """One all-reduce for all tensors."""
        shared = scales[0].clone()
        with losing_workers("sharing scalers"):
            dist.all_reduce(shared, op=dist.ReduceOp.MAX, group=self.group)
        return shared

    def add_codes(self, codes: Sequence[Tensor]) -> Tensor:
        """By the scheme."""
        return self._gather(codes[0]) if self.scheme == "gather" else self._sums(codes[0])

    def add_floats(self, values: Sequence[Tensor]) -> Tensor:
        """In shares."""
        shares = self.push(self._shared(values[0]))
        sums = shares[0].clone()
        for more in shares[1:]:
            sums.add_(more)
        return self._all(sums).reshape(-1)[: len(values[0])]

    def everyone(self, values: Sequence[Tensor]) -> Tensor:
        """One all-gather."""
        return self._all(values[0])

    def push(self, shares: Tensor) -> Tensor:
        """From every worker its row for this one, (N, …); `shares` are this worker's rows for every one."""
        received = torch.empty_like(shares)
        with losing_workers("sending shares"):
            dist.all_to_all_single(received, shares, group=self.group)
        return received

    def _gather(self, codes: Tensor) -> Tensor:
        sums = torch.zeros(len(codes), dtype=torch.int16)
        for packed in self._all(pack(codes)):
            sums.add_(unpack(packed, len(codes)))
        return sums

    def _sums(self, codes: Tensor) -> Tensor:
        shares = self._shared(codes)
        length = shares.shape[1]
        received = self.push(pack(shares.view(-1)).view(self.workers, -1))
        sums = torch.zeros(length, dtype=torch.int16)
        for packed in received:
            sums.add_(unpack(packed, length))
        everywhere = self._all(pack_sums(sums, self.workers))
        return torch.cat([unpack_sums(share, self.workers, length) for share in everywhere])[: len(codes)]

    def _shared(self, values: Tensor) -> Tensor:
        """A row for each worker, the last ones filled up with zeros."""
        length = -(-len(values) // (self.workers * _ALIGN)) * _ALIGN
        padded = values.new_zeros(self.workers * length)
        padded[: len(values)] = values
        return padded.view(self.workers, length)

    def _all(self, mine: Tensor) -> Tensor:
        """What every worker has, (N, …)."""
        everywhere = mine.new_empty(self.workers * len(mine))
        with losing_workers("gathering from all"):
            dist.all_gather_single(everywhere, mine, group=self.group)
        return everywhere.view(self.workers, -1)
