"""Ray, loaded when it is needed, and joined: a cluster at an address, or one of this machine alone."""

from __future__ import annotations

import os
from typing import Any

from compiler.errors import InputError, ToolError, WorkerError

__all__ = ["LOCAL", "connect", "last_line", "load"]

LOCAL = "local"
"""The address of a cluster of this machine alone, which lives as long as the run."""
# A machine that does much else starts and answers slowly, and is not dead.
_PATIENCE = {
    "worker_register_timeout_seconds": 900, "health_check_initial_delay_ms": 60_000, "health_check_timeout_ms": 60_000,
    "health_check_failure_threshold": 10,
}  # fmt: skip
_STARTS = 6  # of a local cluster: Ray gives itself 30 seconds
_STORE = 100 << 20  # bytes for objects of a local cluster


def load() -> Any:
    """Ray, which counts no use of itself here. Raises `ToolError`."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
        import ray.exceptions
    except ImportError:
        raise ToolError("this needs Ray (--cluster, --parallel server); run: pip install 'eie-kit[cluster]'") from None
    return ray


def connect(ray: Any, address: str, jobs: int) -> None:
    """Join the cluster at `address`, or start one of `jobs` CPUs for `LOCAL`; `ray.shutdown()` ends it.

    Raises
    ------
    InputError
        There is no cluster at the address.
    WorkerError
        A local one does not start.
    """
    local = address == LOCAL
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    for left in reversed(range(_STARTS if local else 1)):
        try:
            if local:
                ray.init(
                    address="local", num_cpus=jobs, include_dashboard=False, object_store_memory=_STORE,
                    _system_config=_PATIENCE, **quiet,
                )  # fmt: skip
            else:
                ray.init(address=address, **quiet)
            return
        except Exception as error:  # Ray raises plain ones, also when a busy machine starts it too slowly
            ray.shutdown()
            reason = "".join(str(error).strip().splitlines()[:1])
            if left:
                continue
            if local:
                raise WorkerError(f"Ray did not start on this machine: {reason}; do without a cluster") from None
            raise InputError(
                f"no Ray cluster at {address} ({reason}); expected the address that `ray start --head` printed, or "
                f"{LOCAL}"
            ) from None


def last_line(error: Any) -> str:
    """What was raised on a machine of the cluster: the type, and the last line that it says."""
    cause = error if getattr(error, "cause", None) is None else error.cause
    lines = str(cause).strip().splitlines()
    return f"{type(cause).__name__}: {lines[-1].strip() if lines else ''}"
