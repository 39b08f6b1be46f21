"""What every worker that `hosts.run_workers` starts does: read the plan, take part, write what it found."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch.distributed as dist

__all__ = ["data_dir", "take_part"]


def take_part(work: Callable[[Mapping[str, Any]], list[Any]], timeout: float) -> int:
    """The main function of a worker, ``PLAN OUT`` on its command line; returns its exit code.

    Parameters
    ----------
    work : the plan → the results, in the group of all workers.
    timeout : seconds after which it is not waited for another worker any longer.
    """
    plan, out = (Path(argument) for argument in sys.argv[1:])
    dist.init_process_group("gloo", timeout=timedelta(seconds=timeout))
    results = work(json.loads(plan.read_text(encoding="utf-8")))
    out.write_text(json.dumps({"results": results}), encoding="utf-8")
    dist.barrier()
    dist.destroy_process_group()
    return 0


def data_dir(plan: Mapping[str, Any]) -> Path | None:
    """Folder with the files of data sets that a plan names, or None for the cache."""
    return None if plan["data_dir"] is None else Path(plan["data_dir"])
