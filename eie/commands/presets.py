"""``eie presets``: the named arrays."""

from __future__ import annotations

import click

from eie.options import example, json_option
from eie.output import Output

COLUMNS = ("pes", "rows", "weight_words", "queue_depth", "index_bits", "code_bits", "acc_bits")


@click.command(epilog=example("eie presets", "eie presets --json"))
@json_option
def presets(json_to: str | None) -> None:
    """List the parameter sets that --preset names. Each parameter can be changed with --set K=V."""
    output = Output(json_to)

    from compiler.options import preset_options
    from hw.params import PRESETS

    output.table(
        ("preset", *(name.replace("_", " ") for name in COLUMNS)),
        [(name, *(getattr(params, column) for column in COLUMNS)) for name, params in PRESETS.items()],
    )
    answer = {
        name: {"params": params.asdict(), "options": preset_options(name).asdict()} for name, params in PRESETS.items()
    }
    output.result(answer)
