"""Real worker processes for tests: forked from a server that has torch loaded, and never left behind."""

from __future__ import annotations

import multiprocessing
import os
import socket
import traceback
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

LIMIT = 300.0
"""Seconds until workers that hang are killed and the test fails."""

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload([
    "torch._dynamo",  # which the first optimizer loads, for seconds
    "sklearn.datasets",
    "compiler.train.terngrad.train",
])  # fmt: skip


def start(function: Callable[..., Any], *arguments: Any) -> BaseProcess:
    """A process of its own."""
    process = _CONTEXT.Process(target=function, args=arguments, daemon=True)
    process.start()
    return process


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def in_group(workers: int, folder: Path, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """What `function(*arguments)` returns in each of `workers` processes of one gloo group."""
    folder.mkdir(parents=True, exist_ok=True)
    pipes = [_CONTEXT.Pipe(duplex=False) for _ in range(workers)]
    running = [
        start(_member, rank, workers, str(folder / "store"), pipes[rank][1], function, arguments)
        for rank in range(workers)
    ]
    try:
        results = []
        for rank, (receiver, _) in enumerate(pipes):
            assert receiver.poll(LIMIT), f"worker {rank} of {workers} did not answer in {LIMIT} s"
            result = receiver.recv()
            assert not isinstance(result, str), f"worker {rank}: {result}"
            results.append(result)
        return results
    finally:
        stop(running)


def stop(running: list[BaseProcess]) -> None:
    for process in running:
        process.join(5)
        if process.is_alive():
            process.kill()
            process.join()


def environment(rank: int, workers: int, port: int) -> None:
    """As torchrun sets it."""
    torch.set_num_threads(1)
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(workers), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))


def _member(
    rank: int, workers: int, store: str, answer: Connection, function: Callable[..., Any], arguments: tuple[Any, ...]
) -> None:
    try:
        torch.set_num_threads(1)
        dist.init_process_group(
            "gloo", init_method=f"file://{store}", rank=rank, world_size=workers, timeout=timedelta(seconds=60)
        )
        answer.send(function(*arguments))
        dist.destroy_process_group()
    except BaseException:
        answer.send(traceback.format_exc())
