"""Options that several commands share, and what their values mean."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from compiler.options import Options
    from hw.params import Params
    from sim.driver.port import Port

__all__ = [
    "CLOCK", "DEFAULT_PRESET", "FiniteRange", "array_options", "check_tensorboard", "example", "json_option",
    "layers_option", "make_params", "opened_port", "port_option", "source_options", "tensorboard_option",
]  # fmt: skip

DEFAULT_PRESET = "BALANCED_16"

Command = TypeVar("Command", bound=Callable[..., Any])


class FiniteRange(click.FloatRange):
    """Numbers within bounds. nan, which lies within any of click's, and inf are refused."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The number; fails as click's types do."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number", param, ctx)
        return number


CLOCK = FiniteRange(1e-6, 1e6)
"""MHz, from a hertz to a terahertz: times and rates at any of these are finite."""


def example(*lines: str) -> str:
    """The Example section that ends the help of a command."""
    return "\b\nExample:\n" + "\n".join(f"  {line}" for line in lines)


def source_options(command: Command) -> Command:
    """``INPUT``, ``--calibrate``, ``--weights`` and ``--trust``, read by `eie.inputs.read_source`."""
    given = click.argument("given", metavar="INPUT")
    calibrate = click.option(
        "--calibrate",
        metavar="X.npy",
        type=click.Path(path_type=Path),
        help="Inputs (n, …) on which fixed-point ranges are chosen; int16 says that inputs are raw integers. "
        "Several inputs: an .npz with an array for each, by name.",
    )
    weights = click.option(
        "--weights",
        metavar="W.safetensors",
        type=click.Path(path_type=Path),
        help="State of what module:function returns.",
    )
    trust = click.option("--trust", is_flag=True, help="Permit a .pt2 file, which can run code of its author.")
    return given(calibrate(weights(trust(command))))


def json_option(command: Command) -> Command:
    """``--json [F]``: the file is optional, and without one the JSON goes to standard output."""
    return click.option(
        "--json",
        "json_to",
        metavar="[F]",
        is_flag=False,
        flag_value="-",
        default=None,
        help="Machine output to standard output (give --json last, or --json=-), or to the file F.",
    )(command)


def tensorboard_option(command: Command) -> Command:
    """``--tensorboard``: a folder for event files."""
    return click.option(
        "--tensorboard",
        metavar="DIR/",
        type=click.Path(file_okay=False, path_type=Path),
        help="Also write event files for TensorBoard into this folder (pip install 'eie-kit[tensorboard]').",
    )(command)


def check_tensorboard(folder: Path | None) -> None:
    """Refuse ``--tensorboard`` without its package, before anything is made or run.

    Raises
    ------
    ToolError
        The package is not installed.
    """
    if folder is not None:
        from compiler.journal import event_writer

        event_writer()


def port_option(command: Command) -> Command:
    """``--port``, read by `opened_port`."""
    return click.option(
        "--port",
        metavar="PORT",
        help="Of engine board: serial:/dev/ttyUSB0[:BAUD], mmap:/dev/uio0[:OFFSET], or what stands for a board: sim "
        "(Amaranth's simulator), verilator.",
    )(command)


def opened_port(
    port: str | None, engines: Iterable[str], params: Params
) -> contextlib.AbstractContextManager[Port | None]:
    """The port that ``--port`` names, open; None without one.

    Raises
    ------
    click.UsageError
        Engine board is asked for without a port, or a port without that engine.
    PortError, ToolError
        It cannot be opened.
    """
    if ("board" in engines) != (port is not None):
        raise click.UsageError(
            "engine board and --port belong together, as in --engine board --port serial:/dev/ttyUSB0"
        )
    if port is None:
        return contextlib.nullcontext()
    from sim.driver.opening import open_port

    return open_port(port, params)


def array_options(command: Command) -> Command:
    """``--preset`` and ``--set``, read by `make_params`."""
    settings = click.option(
        "--set",
        "settings",
        metavar="K=V",
        multiple=True,
        help="Change a parameter or a compiler option; may be repeated.",
    )
    preset = click.option(
        "--preset",
        metavar="P",
        default=DEFAULT_PRESET,
        show_default=True,
        shell_complete=_presets,
        help="Parameter set; `eie presets` lists them.",
    )
    return preset(settings(command))


def _presets(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """For completion in a shell."""
    from hw.params import PRESETS

    return [name for name in PRESETS if name.startswith(incomplete.upper())]


def layers_option(command: Command) -> Command:
    """``--layer``, read by `compiler.compressible.load_network`."""
    return click.option(
        "--layer",
        "layers",
        metavar="NAME=OUTxIN[xHxW][:BITS]",
        multiple=True,
        help="The layers of a .net file, in its order: such files do not hold their shapes.",
    )(command)


def make_params(preset: str, settings: Sequence[str]) -> tuple[Params, Options]:
    """The preset's parameters and options with each ``key=value`` applied.

    Raises
    ------
    ParamsError, OptionsError
        Preset or key unknown, or a value that is not legal.
    """
    from compiler.options import preset_options
    from hw.params import ParamsError
    from hw.params import preset as named

    changes: dict[str, int | bool] = {}
    for setting in settings:
        key, equals, text = (part.strip() for part in setting.partition("="))
        if not equals or not key:
            raise ParamsError(f"--set {setting!r}: expected key=value, as in --set pes=16")
        if text.lower() in ("true", "false"):
            changes[key] = text.lower() == "true"
            continue
        try:
            changes[key] = int(text, 0)
        except ValueError:
            raise ParamsError(f"--set {key}={text}: expected an integer, true or false") from None
    params, options = named(preset), preset_options(preset)
    if unknown := changes.keys() - params.asdict().keys() - options.asdict().keys():
        raise ParamsError(
            f"unknown parameter {min(unknown)!r}; expected one of {', '.join(sorted(params.asdict()))}, or of the "
            f"compiler's options {', '.join(sorted(options.asdict()))}"
        )
    told = {key: changes.pop(key) for key in options.asdict() if key in changes}
    return params.replace(**changes), options.replace(**told)
