"""Every property that is proved, in one table."""

from __future__ import annotations

from pathlib import Path

from compiler.errors import InputError
from sim.formal import (
    control,
    drain,
    host,
    mac,
    parity,
    pe,
    queue,
    refill,
    rings,
    scan,
    steps,
    streams,
    window,
    writeback,
)
from sim.formal.claim import PDR, Claim

__all__ = ["CLAIMS", "chosen"]

CLAIMS: tuple[Claim, ...] = (
    *streams.CLAIMS,
    *host.CLAIMS,
    *queue.CLAIMS,
    *pe.CLAIMS,
    *mac.CLAIMS,
    *parity.CLAIMS,
    *scan.CLAIMS,
    *window.CLAIMS,
    *refill.CLAIMS,
    *writeback.CLAIMS,
    *drain.CLAIMS,
    *rings.CLAIMS,
    *control.CLAIMS,
    *steps.CLAIMS,
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


BEGIN, END = "<!-- made by make docs -->\n", "<!-- end -->\n"


def document(text: str) -> str:
    """docs/formal.md with the table of claims as it is now."""
    lines = ["| property | block | what holds | by | planted faults |", "|---|---|---|---|---|"]
    for claim in CLAIMS:
        how = f"first {claim.bound} cycles" if claim.bound else "PDR" if claim.engine == PDR else "induction"
        lines.append(f"| {claim.name} | {claim.block} | {claim.text} | {how} | {'; '.join(claim.bugs)} |")
    before, rest = text.split(BEGIN, 1)
    return before + BEGIN + "\n".join(lines) + "\n" + END + rest.split(END, 1)[1]


if __name__ == "__main__":
    page = Path(__file__).parents[2] / "docs" / "formal.md"
    page.write_text(document(page.read_text(encoding="utf-8")), encoding="utf-8")
