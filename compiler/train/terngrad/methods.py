"""Ways in which data-parallel workers exchange gradients, as recipes name them; torch's own hooks and this kit's.

    exchange = "powersgd"       # a top-level key of the recipe; a table of the same name may hold its settings
    [powersgd]
    rank = 2

Sources: torch.distributed.algorithms.ddp_comm_hooks (fp16, bf16); PowerSGD (Vogels et al., NeurIPS 2019); `onebit`,
`exchange`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks, powerSGD_hook
from torch.nn.parallel import DistributedDataParallel

from compiler.errors import RecipeError
from compiler.train.table import Table
from compiler.train.terngrad.averaging import Averaging
from compiler.train.terngrad.exchange import Exchange
from compiler.train.terngrad.hook import average_bf16, average_bucket
from compiler.train.terngrad.onebit import OneBit, OneBitSettings
from compiler.train.terngrad.settings import Settings
from compiler.train.terngrad.wire import Wire

__all__ = ["EXCHANGES", "ONE_BUCKET", "POWERSGD_FROM", "Method", "load_state", "state_of"]

EXCHANGES = ("float32", "fp16", "bf16", "powersgd", "onebit", "terngrad")

ONE_BUCKET = float(1 << 14)
"""MiB; more than any network here has."""

POWERSGD_FROM = 2
"""Step from which PowerSGD is used: torch demands that the buckets have their final form, which they have then."""

_TABLES = ("powersgd", "onebit", "terngrad")


@dataclass(frozen=True)
class Method:
    """A way of exchanging gradients.

    Attributes
    ----------
    name : one of `EXCHANGES`.
    settings : of "onebit" or "terngrad".
    rank : of PowerSGD's matrices.
    """

    name: str = "float32"
    settings: Settings | OneBitSettings | None = None
    rank: int = 1

    @classmethod
    def parse(cls, top: Table, seed: int) -> Method:
        """From the top of a recipe. Raises `RecipeError`."""
        name = top.choice("exchange", EXCHANGES, default="terngrad" if top.has("terngrad") else "float32")
        for table in _TABLES:
            if top.has(table) and table != name:
                raise RecipeError(
                    f'{top.source}: there is a table {table}, and exchange is "{name}"; leave one of them out'
                )
        inner = top.table(name) if top.has(name) else Table({}, top.source, name)
        if name == "onebit":
            return cls(name, OneBitSettings.parse(inner, seed))
        if name == "terngrad":
            return cls(name, Settings.parse(inner, seed))
        rank = inner.integer("rank", 1, 1 << 10, default=1)
        inner.finish()
        return cls(name, rank=rank)

    def asdict(self) -> dict[str, Any]:
        """The keys of a recipe that say it; `parse` reads them again."""
        if self.settings is not None:
            said = (
                {} if self.name == "terngrad" else {"exchange": self.name}
            )  # as recipes had it before there were others
            return {**said, self.name: self.settings.asdict()}
        table = {"powersgd": {"rank": self.rank}} if self.name == "powersgd" else {}
        return {} if self.name == "float32" else {"exchange": self.name, **table}

    @property
    def one_bucket(self) -> bool:
        """Whether all gradients must be one bucket: PowerSGD chains collectives, which would meet in another order."""
        return self.name == "powersgd"

    def wrap(self, module: nn.Module, bucket_mb: float | None) -> tuple[DistributedDataParallel, Averaging | None]:
        """DistributedDataParallel with this exchange, on the default group; what this kit's own exchange remembers.

        Parameters
        ----------
        bucket_mb : most MiB of gradients that are exchanged together; None for torch's 25.
        """
        ddp = DistributedDataParallel(module, bucket_cap_mb=ONE_BUCKET if self.one_bucket else bucket_mb)
        state, hook = self.hook(module)
        if self.name != "float32":  # which is what it does without
            ddp.register_comm_hook(state, hook)
        return ddp, state if isinstance(state, Averaging) else None

    def hook(self, module: nn.Module) -> tuple[Any, Callable[[Any, Any], torch.futures.Future[Any]]]:
        """State and function of the communication hook, on the default group."""
        if isinstance(self.settings, OneBitSettings):
            return OneBit(module, self.settings, Wire()), average_bucket
        if self.settings is not None:
            return Exchange(module, self.settings, Wire(scheme=self.settings.scheme)), average_bucket
        group = dist.group.WORLD
        if self.name == "powersgd":
            state = powerSGD_hook.PowerSGDState(group, self.rank, start_powerSGD_iter=POWERSGD_FROM)
            return state, powerSGD_hook.powerSGD_hook
        hooks = {
            "float32": default_hooks.allreduce_hook,
            "fp16": default_hooks.fp16_compress_hook,
            "bf16": average_bf16,
        }
        return group, hooks[self.name]


def state_of(averaging: Averaging | None) -> dict[str, Tensor]:
    """What a checkpoint must hold of an exchange; every worker must call it."""
    return averaging.state() if isinstance(averaging, OneBit) and averaging.settings.feedback else {}


def load_state(averaging: Averaging | None, state: Mapping[str, Tensor]) -> None:
    """Go on with what `state_of` gave. Raises `InputError`."""
    if isinstance(averaging, OneBit) and averaging.settings.feedback:
        averaging.load_state(state)
