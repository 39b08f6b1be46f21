"""Turn every failure of a command into a message on standard error and an exit code.

Exit codes: 0 good; 1 a comparison failed; 2 bad usage or input; 3 a tool is missing. A fault of the kit itself
ends with 70, an interrupt with 130 and a closed pipe with 141, so that none can be taken for one of those.
"""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Iterator
from typing import Any

import click

__all__ = ["ReportingCommand", "reported"]

BAD_INPUT = 2
TOOL_MISSING = 3
INTERNAL_ERROR = 70
INTERRUPTED = 130
READER_GONE = 141

# Packages that only an extra brings.
EXTRAS = {"torch": "torch", "sklearn": "torch", "matplotlib": "plots"}


@contextlib.contextmanager
def reported() -> Iterator[None]:
    """Print what the block raises, and end with its exit code; click's own exceptions pass."""
    try:
        yield
    except (click.ClickException, click.exceptions.Exit, click.Abort):
        raise
    except BrokenPipeError:  # the reader, such as `head`, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python would complain at its end
        raise click.exceptions.Exit(READER_GONE) from None
    except KeyboardInterrupt:
        raise _fail("interrupted", INTERRUPTED) from None
    except Exception as error:
        if os.environ.get("EIE_DEBUG"):
            traceback.print_exception(error, file=sys.stderr)
        raise _explain(error) from error


def _fail(message: str, exit_code: int) -> click.exceptions.Exit:
    click.echo(f"eie: {message}", err=True)
    return click.exceptions.Exit(exit_code)


def _explain(error: Exception) -> click.exceptions.Exit:
    from compiler.errors import EieError
    from hw.params import ParamsError

    if isinstance(error, EieError):
        return _fail(str(error), error.exit_code)
    if isinstance(error, ParamsError):
        return _fail(str(error), BAD_INPUT)
    if isinstance(error, ModuleNotFoundError):
        package = (error.name or "?").partition(".")[0]
        what = f"'eie-kit[{EXTRAS[package]}]'" if package in EXTRAS else package
        return _fail(
            f"this needs the Python package {package}, which is not installed; run: pip install {what}", TOOL_MISSING
        )
    if isinstance(error, OSError) and error.filename is not None:
        return _fail(f"{error.filename}: {error.strerror}", BAD_INPUT)
    return _fail(
        f"internal error, please report it: {type(error).__name__}: {error}\n"
        "Run it again with EIE_DEBUG=1 in the environment to see where it happened.",
        INTERNAL_ERROR,
    )


class ReportingCommand(click.Command):
    """A command that stands alone and reports failures as those of ``eie`` do."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run it."""
        with reported():
            return super().invoke(ctx)
