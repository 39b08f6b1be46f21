"""Train on several processes, each started by torchrun (or with its environment variables set by hand):

    torchrun --nproc-per-node 4 -m compiler.train.terngrad.train recipes/distributed/mnist.toml -o RUN

Every worker takes its share of each batch; with --parallel they share the network instead, or both. Rank 0 writes
RUN/checkpoint.safetensors after every epoch and RUN/report.json. All workers must see the same folder. When one of them
is gone, the others end with an error within `--timeout` seconds, mostly at once; with `--resume` the same command goes
on after the last finished epoch, to the same weights, bit for bit, as if nothing had happened. torchrun's own
--max-restarts does that unattended.
"""  # noqa: D400 - the first lines are what --help shows

from __future__ import annotations

import argparse
import copy
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from compiler.command_line import command
from compiler.errors import EieError, InputError, RecipeError, ToolError, WorkerError
from compiler.train import checkpoint
from compiler.train.data import Dataset
from compiler.train.images import Images, accuracy
from compiler.train.loop import Epoch, Hook, fit, reproducible
from compiler.train.parallel.mesh import Mesh
from compiler.train.parallel.way import WAYS, Way, shares
from compiler.train.progress import fresh
from compiler.train.report import versions
from compiler.train.taken import CHECKPOINT, check_free
from compiler.train.terngrad.exchange import Clock, Exchange
from compiler.train.terngrad.hook import average_bucket
from compiler.train.terngrad.job import Job, load
from compiler.train.terngrad.wire import Wire, losing_workers
from compiler.train.trainable import check_outputs

__all__ = ["CHECKPOINT", "REPORT", "Trainer", "main", "train"]

REPORT = "report.json"

_VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def train(
    job: Job,
    out: Path,
    *,
    resume: bool = False,
    timeout: float = 60.0,
    data_dir: Path | None = None,
    parallel: str = "data",
    micro: int = 4,
) -> dict[str, Any]:
    """Take part in a training as the worker that the environment variables name; its report.

    Parameters
    ----------
    out : folder that all workers see.
    resume : go on from the checkpoint there, if there is one.
    timeout : seconds after which a worker that does not answer counts as gone. Must be longer than rank 0 measures
        and writes after an epoch.
    parallel : one of `way.WAYS`.
    micro : micro-batches of a pipeline.

    Raises
    ------
    WorkerError
        Another worker is gone.
    ToolError
        The environment variables are not set.
    RecipeError, InputError
        As `Job.data`; or `out` holds another run, or one and `resume` is not set.
    """
    missing = [name for name in _VARIABLES if name not in os.environ]
    if missing:
        raise ToolError(
            f"{', '.join(missing)} is not set: start this with torchrun --nproc-per-node N -m {__spec__.name} …"
        )
    with losing_workers("meeting the others"):
        dist.init_process_group("gloo", timeout=timedelta(seconds=timeout))
    with reproducible(threads=1):
        report = Trainer(job, out, data_dir, resume, parallel, micro).run()
    dist.destroy_process_group()
    return report


class Trainer:
    """One worker of a training."""

    def __init__(
        self, job: Job, out: Path, data_dir: Path | None, resume: bool, parallel: str = "data", micro: int = 4
    ) -> None:
        self.job, self.out, self.parallel, self.micro = job, out, parallel, micro
        self.rank, self.workers = dist.get_rank(), dist.get_world_size()
        if job.settings is not None and parallel != "data":
            raise RecipeError(f"{job.name} has a table terngrad, which --parallel data alone exchanges; not {parallel}")
        if job.schedule.clip and parallel not in ("data", "sharded"):
            raise RecipeError(
                f"{job.name}: schedule.clip takes the norm of all gradients, of which a process of --parallel "
                f"{parallel} has some; leave it out, or share data"
            )
        if job.schedule.optimizer in ("lars", "lamb") and parallel not in ("data", "pipeline"):
            raise RecipeError(
                f"{job.name}: schedule.optimizer is {job.schedule.optimizer}, which takes the norm of whole tensors, "
                f"of which a process of --parallel {parallel} has a part; choose adamw or sgd, or share data"
            )
        self.dataset: Dataset = job.data(data_dir, shares(parallel, self.workers))
        self.lesson = Images(self.dataset.train, self.dataset.shape, job.model.flat)
        check_outputs(job.model, self.dataset)
        self.module = fresh(job.model, self.dataset, job.seed)
        self.done, self.history = 0, list[dict[str, Any]]()
        self.optimizer: dict[str, dict[str, Tensor]] | None = None
        check_free(out, CHECKPOINT, resume)
        if (out / CHECKPOINT).exists():
            self._restore(out / CHECKPOINT)
        self.way: Way

    def _prepare(self) -> Way:
        """What this worker does in a step."""
        if self.parallel == "data":
            # As `fit` will have it: else the parameters of the wrapped module would lie otherwise than it remembers.
            self.module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        step = self.done * self.lesson.steps(self.job.schedule.batch)
        trained = self.module if self.parallel == "data" else copy.deepcopy(self.module)
        if self.parallel != "pipeline":
            return Mesh(trained, self.parallel, self.job.seed, step)
        from compiler.train.parallel.pipeline import Pipeline  # half a second that the others need not

        example = self.lesson.arrange(torch.from_numpy(self.dataset.train.inputs[: self.job.schedule.batch]))
        return Pipeline(trained, example, self.micro, seed=self.job.seed, step=step)

    def run(self) -> dict[str, Any]:
        """Train to the end."""
        began = time.monotonic()
        schedule = self.job.schedule
        self.way = way = self._prepare()
        hooks: list[Hook] = []
        exchange: Exchange | None = None
        if self.job.settings is not None:
            exchange = Exchange(self.module, self.job.settings, Wire(scheme=self.job.settings.scheme))
            assert isinstance(way, Mesh)
            assert isinstance(way.wrapped, DistributedDataParallel)
            way.wrapped.register_comm_hook(exchange, average_bucket)
            hooks.append(Clock(exchange, self.lesson.steps(schedule.batch)))
        fit(
            way.module,
            self.lesson,
            schedule,
            (self.job.seed,),
            hooks=hooks,
            after_epoch=self._after_epoch,
            done=self.done,
            optimizer_state=None if self.optimizer is None else _by_parameter(_by_key(self.optimizer), way.part),
            backward=way,
            channels_last=way.channels_last,
        )
        report = {
            "recipe": self.job.asdict(),
            "workers": self.workers,
            "parallel": self.parallel,
            "scheme": None if exchange is None else Wire(scheme=exchange.settings.scheme).scheme,
            "ternary": [] if exchange is None else [name for name, yes in exchange.plan.ternary.items() if yes],
            "history": self.history,
            "test_accuracy": accuracy(self.module, self.lesson, self.dataset.test) if self.rank == 0 else None,
            "seconds": round(time.monotonic() - began, 3),
            "command": command(),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "versions": versions(),
        }
        if self.rank == 0:
            checkpoint.write_atomic(self.out / REPORT, (json.dumps(report, indent=2) + "\n").encode())
        return report

    def _after_epoch(self, epoch: Epoch) -> None:
        """Rank 0 measures and writes; its loss is that on its own shares."""
        whole = self.way.whole(self.way.module.state_dict())
        optimizer = _by_parameter(_by_key(epoch.optimizer), self.way.whole)
        if self.rank != 0:
            return
        if self.way.module is not self.module:
            self.module.load_state_dict(whole)
        share = accuracy(self.module, self.lesson, self.dataset.validation)
        self.history.append(
            {"epoch": epoch.done, "workers": self.workers, "loss_of_rank_0": epoch.loss, "validation": share}
        )
        tensors = {f"module.{name}": value for name, value in self.module.state_dict().items()}
        for parameter, values in optimizer.items():
            tensors.update({f"optimizer.{key}.{parameter}": value for key, value in values.items()})
        content = {"recipe": self.job.asdict(), "done": epoch.done, "history": self.history}
        checkpoint.save(self.out / CHECKPOINT, tensors, content)
        print(
            f"epoch {epoch.done} of {self.job.schedule.epochs}: loss {epoch.loss:.4f}, validation {share:.2%}",
            flush=True,
        )

    def _restore(self, path: Path) -> None:
        tensors, content = checkpoint.load(path)
        if content.get("recipe") != self.job.asdict():
            raise InputError(f"{path} was written by another recipe; choose another folder")
        done, history = content.get("done"), content.get("history")
        if type(done) is not int or not isinstance(history, list):
            raise InputError(f"{path} does not say how far it is")
        self.done, self.history = done, history
        state, optimizer = _parts(tensors)
        try:
            self.module.load_state_dict(state)
        except RuntimeError as error:
            raise InputError(f"{path} does not hold the recipe's network: {error}") from error
        known = {name for name, _ in self.module.named_parameters()}
        if not set(optimizer) <= known:
            raise InputError(f"{path} holds the optimizer's state of {', '.join(set(optimizer) - known)}, unknown here")
        self.optimizer = optimizer


def _parts(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, dict[str, Tensor]]]:
    """State of the module, and of the optimizer by parameter."""
    state: dict[str, Tensor] = {}
    optimizer: dict[str, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        kind, _, rest = name.partition(".")
        if kind == "module":
            state[rest] = value
        else:
            key, _, parameter = rest.partition(".")
            optimizer.setdefault(parameter, {})[key] = value
    return state, optimizer


def _by_key(state: Mapping[str, Mapping[str, Tensor]]) -> dict[str, dict[str, Tensor]]:
    """Parameter → key → tensor, turned round."""
    turned: dict[str, dict[str, Tensor]] = {}
    for outer, values in state.items():
        for inner, value in values.items():
            turned.setdefault(inner, {})[outer] = value
    return turned


def _by_parameter(
    state: Mapping[str, Mapping[str, Tensor]], change: Callable[[Mapping[str, Tensor]], dict[str, Tensor]]
) -> dict[str, dict[str, Tensor]]:
    """Key → parameter → tensor, changed key by key in one order in all processes, and turned round."""
    return _by_key({key: change(state[key]) for key in sorted(state)})


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; the exit code. A worker that lost another one ends with 4."""
    parser = argparse.ArgumentParser(prog="compiler.train.terngrad.train", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("recipe", type=Path, help="a TOML file, as those in recipes/distributed")
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder of the run, seen by all workers")
    parser.add_argument(
        "--resume", action="store_true", help="go on from the checkpoint in the folder, if there is one"
    )
    parser.add_argument("--timeout", type=float, default=60.0, help="seconds until a silent worker counts as gone (60)")
    parser.add_argument("--parallel", choices=WAYS, default="data", help="what the workers share (data)")
    parser.add_argument("--micro", type=int, default=4, help="micro-batches of a pipeline (4)")
    parser.add_argument("--data-dir", type=Path, help="folder with the files of the data set")
    given = parser.parse_args(arguments)
    try:
        train(
            load(given.recipe), given.out, resume=given.resume, timeout=given.timeout, data_dir=given.data_dir,
            parallel=given.parallel, micro=given.micro,
        )  # fmt: skip
    except EieError as error:
        print(f"rank {os.environ.get('RANK', '?')}: {error}", file=sys.stderr, flush=True)
        return error.exit_code
    return 0


if __name__ == "__main__":
    code = main()
    if code == WorkerError.exit_code:
        os._exit(code)  # connections that broke can abort the interpreter while it ends
    sys.exit(code)
