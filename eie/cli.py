"""The command line. This file knows the commands and turns every failure into a message and an exit code.

Exit codes: 0 good; 1 a comparison failed; 2 bad usage or input; 3 a tool is missing. A fault of the kit itself
ends with 70 and an interrupt with 130, so that neither can be taken for one of those.
"""

from __future__ import annotations

import os
import sys
import traceback
from typing import Any

import click

from eie.commands.compile import compile_command
from eie.commands.diff import diff
from eie.commands.doctor import doctor
from eie.commands.info import info
from eie.commands.run import run
from eie.commands.train import train
from eie.commands.verify import verify
from eie.commands.verilog import verilog
from eie.options import example

__all__ = ["cli", "main"]

BAD_INPUT = 2
TOOL_MISSING = 3
INTERNAL_ERROR = 70
INTERRUPTED = 130

# Import name of a package that only an extra brings, and that extra.
EXTRAS = {"torch": "torch", "sklearn": "torch"}


class Failure(click.ClickException):
    """A message for standard error and an exit code."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code

    def show(self, file: Any = None) -> None:
        click.echo(f"eie: {self.format_message()}", err=True)


def explain(error: Exception) -> Failure:
    """The failure that a user should see for an exception from the packages below."""
    from compiler.errors import EieError
    from hw.params import ParamsError

    if isinstance(error, EieError):
        return Failure(str(error), error.exit_code)
    if isinstance(error, ParamsError):
        return Failure(str(error), BAD_INPUT)
    if isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] not in ("eie", "sim"):
        package = (error.name or "?").partition(".")[0]
        what = f"'eie-kit[{EXTRAS[package]}]'" if package in EXTRAS else package
        return Failure(
            f"this needs the Python package {package}, which is not installed; run: pip install {what}", TOOL_MISSING
        )
    if isinstance(error, OSError) and error.filename is not None:
        return Failure(f"{error.filename}: {error.strerror}", BAD_INPUT)
    return Failure(
        f"internal error, please report it: {type(error).__name__}: {error}\n"
        "Run it again with EIE_DEBUG=1 in the environment to see where it happened.",
        INTERNAL_ERROR,
    )


class Commands(click.Group):
    """A group whose every command reports failures the same way, under test as well as from a shell."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except BrokenPipeError:  # the reader, such as `head`, has had enough; click ends quietly
            raise
        except KeyboardInterrupt:
            raise Failure("interrupted", INTERRUPTED) from None
        except Exception as error:
            if os.environ.get("EIE_DEBUG"):
                traceback.print_exception(error, file=sys.stderr)
            raise explain(error) from error


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog=example(
        "eie compile layer.npz -o layer.eie --preset BALANCED_16 --calibrate x.npy",
        "eie run layer.eie --input x.npy --output y.npz --engine rtl",
    ),
)
@click.version_option(package_name="eie-kit", prog_name="eie")
def cli() -> None:
    """Sparse inference in hardware: train, compile, simulate and verify networks for an array of PEs.

    Exit codes: 0 good, 1 a comparison failed, 2 bad usage or input, 3 a tool is missing.
    """


for command in (doctor, train, compile_command, info, run, diff, verilog, verify):
    cli.add_command(command)


def main() -> None:
    """Entry point of the ``eie`` script."""
    cli(prog_name="eie")


if __name__ == "__main__":
    main()
