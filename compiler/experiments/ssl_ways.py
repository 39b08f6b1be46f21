"""Names of what the experiment on structured sparsity compares, as results and tables have them."""

from __future__ import annotations

__all__ = ["DENSE", "DIRECT", "L1", "LONGER", "MAGNITUDE", "SSL"]

DENSE, LONGER, SSL, MAGNITUDE, L1, DIRECT = "dense", "dense, as long", "SSL", "magnitude", "L1", "direct"
