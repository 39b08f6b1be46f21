"""Start the processes of a parallel training on this machine by torchrun, and say in words what stopped them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from compiler.errors import EieError, InputError, ToolError, WorkerError

__all__ = ["launch"]

_MODULE = "compiler.train.terngrad.train"
_REPORT = "report.json"
_TIMEOUT = 3600.0  # seconds: the others wait while rank 0 measures; when one ends, torchrun ends them at once
_ERRORS: dict[int, type[EieError]] = {InputError.exit_code: InputError, ToolError.exit_code: ToolError}


def launch(
    recipe: Path,
    out: Path,
    workers: int,
    parallel: str,
    *,
    micro: int = 4,
    resume: bool = False,
    told: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Train on `workers` processes of this machine; the report of rank 0.

    Parameters
    ----------
    recipe, out, parallel, micro, resume : as `terngrad.train.train` has them.
    told : is given each line that rank 0 prints.

    Raises
    ------
    EieError
        What the first worker that stopped says.
    """
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(workers), "-m", _MODULE,
        str(recipe), "-o", str(out), "--parallel", parallel, "--micro", str(micro),
        "--timeout", str(_TIMEOUT), *(["--resume"] if resume else []),
    ]  # fmt: skip
    environment = {"OMP_NUM_THREADS": "1", **os.environ}
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as said:
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said, text=True, env=environment) as running:
            assert running.stdout is not None
            try:
                for line in running.stdout:
                    told(line.rstrip())
            except BaseException:
                running.terminate()
                raise
        said.seek(0)
        text = said.read()
    if running.returncode:
        raise _error(text, running.returncode)
    return dict(json.loads((out / _REPORT).read_text(encoding="utf-8")))


def _error(text: str, code: int) -> EieError:
    """From what the workers and torchrun said on standard error."""
    words = [line.partition(": ")[2] for line in text.splitlines() if re.match(r"rank \d+: ", line)]
    ended = re.search(r"exitcode\s*:\s*(-?\d+)", text)
    if words:
        kind = _ERRORS.get(int(ended[1]) if ended else WorkerError.exit_code, WorkerError)
        return kind(words[0])
    lines = [line for line in text.strip().splitlines() if line.strip()] or [f"torchrun ended with {code}"]
    how = f"a worker ended with {ended[1]}" if ended else f"torchrun ended with {code}"
    cause = next((line for line in lines if re.match(r"(\[rank\d+\]: )?\w*(Error|Exception)\b", line)), lines[-1])
    return WorkerError(f"{how}: {cause.strip()}; go on with --resume")
