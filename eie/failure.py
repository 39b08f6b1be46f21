"""Turn every failure of a command into a message on standard error and an exit code.

Exit codes: 0 good; 1 a comparison failed; 2 bad usage or input; 3 a tool is missing. A fault of the kit itself
ends with 70, an interrupt with 130 and a closed pipe with 141, so that none can be taken for one of those.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import traceback
from collections.abc import Iterator
from typing import Any

import click

from eie.encoding import encodable
from eie.verbosity import Verbosity, verbosity

__all__ = ["Reporting", "ReportingCommand", "harmless", "reported"]

BAD_INPUT = 2
TOOL_MISSING = 3
INTERNAL_ERROR = 70
INTERRUPTED = 130
READER_GONE = 141

# Packages that only an extra brings.
EXTRAS = {
    "torch": "torch",
    "sklearn": "torch",
    "matplotlib": "plots",
    "onnx": "onnx",
}
OURS = ("hw", "compiler", "sim", "eie")

# Errors of writing to standard output. They name no file, as nobody opened one.
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF}


@contextlib.contextmanager
def reported() -> Iterator[None]:
    """Print what the block raises, and end with its exit code; click's Exit and Abort pass."""
    try:
        yield
    except click.exceptions.NoArgsIsHelpError:  # shows the help, which is what was wanted
        raise
    except click.ClickException as error:
        raise _fail(_usage(error), BAD_INPUT) from None
    except (click.exceptions.Exit, click.Abort):
        raise
    except BrokenPipeError:  # the reader, such as `head`, has had enough
        _close_output()
        raise click.exceptions.Exit(READER_GONE) from None
    except KeyboardInterrupt:
        raise _fail("interrupted", INTERRUPTED) from None
    except Exception as error:
        if os.environ.get("EIE_DEBUG") or verbosity() is Verbosity.VERBOSE:
            traceback.print_exception(error, file=sys.stderr)
        raise _explain(error) from error


def _usage(error: click.ClickException) -> str:
    """What click found wrong, in the form of all other messages."""
    message = error.format_message().rstrip(".")
    if message[1:2].islower():
        message = message[0].lower() + message[1:]
    context = getattr(error, "ctx", None)
    return message if context is None else f"{message}\nTry: {context.command_path} --help"


def _close_output() -> None:
    """Send what is still to come nowhere, or Python would complain of it at its end."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(message: str, exit_code: int) -> click.exceptions.Exit:
    click.echo(f"eie: {harmless(message)}", err=True)
    return click.exceptions.Exit(exit_code)


def harmless(text: str) -> str:
    """A text without what a terminal obeys or cannot show: messages quote names out of files of strangers."""
    return "".join(
        sign if sign in "\n\t" or (sign.isprintable() and not "\ud800" <= sign <= "\udfff")
        else sign.encode("unicode_escape").decode()
        for sign in text
    )  # fmt: skip


def _explain(error: Exception) -> click.exceptions.Exit:
    from compiler.errors import EieError
    from hw.params import ParamsError

    if isinstance(error, EieError):
        return _fail(str(error), error.exit_code)
    if isinstance(error, ParamsError):
        return _fail(str(error), BAD_INPUT)
    package = (error.name or "?").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    if package and package not in OURS:
        what = f"'eie-kit[{EXTRAS[package]}]'" if package in EXTRAS else package
        return _fail(
            f"this needs the Python package {package}, which is not installed; run: pip install {what}", TOOL_MISSING
        )
    if isinstance(error, OSError) and error.filename is not None:
        return _fail(f"{error.filename}: {error.strerror}", BAD_INPUT)
    if isinstance(error, OSError) and error.errno in NO_ROOM:
        _close_output()
        return _fail(f"standard output cannot be written: {error.strerror}", BAD_INPUT)
    return _fail(
        f"internal error, please report it: {type(error).__name__}: {error}\n"
        "Run it again as `eie -v …`, or with EIE_DEBUG=1 in the environment, to see where it happened.",
        INTERNAL_ERROR,
    )


class Reporting(click.Command):
    """A command, or a group of them, that reports every failure in the same form, under test and from a shell."""

    def make_context(self, *arguments: Any, **options: Any) -> click.Context:
        """Parse the command line, which prints a help that was asked for."""
        encodable()
        with reported():
            return super().make_context(*arguments, **options)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that was named."""
        with reported():
            return super().invoke(ctx)


class ReportingCommand(Reporting):
    """One that stands alone."""
