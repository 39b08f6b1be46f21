"""Every property that is proved, in one table."""

from __future__ import annotations

from compiler.errors import InputError
from sim.formal import control, host, pe, queue, refill, scan, streams, window, writeback
from sim.formal.claim import Claim

__all__ = ["CLAIMS", "chosen"]

CLAIMS: tuple[Claim, ...] = (
    *streams.CLAIMS,
    *host.CLAIMS,
    *queue.CLAIMS,
    *pe.CLAIMS,
    *scan.CLAIMS,
    *window.CLAIMS,
    *refill.CLAIMS,
    *writeback.CLAIMS,
    *control.CLAIMS,
)


def chosen(names: tuple[str, ...] = ()) -> tuple[Claim, ...]:
    """The claims of these names, or of these blocks; all if there is none.

    Raises
    ------
    InputError
        There is no such claim.
    """
    known = {claim.name for claim in CLAIMS} | {claim.block for claim in CLAIMS}
    for name in names:
        if name not in known:
            raise InputError(f"unknown property {name!r}; expected one of {', '.join(claim.name for claim in CLAIMS)}")
    return tuple(claim for claim in CLAIMS if not names or {claim.name, claim.block} & set(names))
