"""The parameters of an array and the options of its compiler, as text in a compressed file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from compiler.coding.texts import inflated
from compiler.coding.wire import Reader
from compiler.errors import CodingError, OptionsError
from compiler.options import Options
from hw.params import Params, ParamsError

__all__ = ["MAX_PARAMS", "read_params"]

MAX_PARAMS = 4096
"""Bytes of the text."""


_LATER = {"hops": 0, "slim": False}
"""Parameters that files of every version may lack, which were written before there were any."""


def read_params(
    reader: Reader, dictionary: bytes, renewed: Callable[[dict[str, Any]], dict[str, Any]]
) -> tuple[Params, Options]:
    """Read `name=value` pairs.

    renewed : turns the names of an older format into those of today.

    Raises
    ------
    CodingError
        The text is longer than `MAX_PARAMS`, or names what is no parameter, or no legal value of one.
    """
    text = inflated(reader, dictionary, "the parameters", MAX_PARAMS)
    try:
        pairs = dict(pair.split("=", 1) for pair in text.decode().split(";"))
        switches = {"true": True, "false": False}
        values = renewed({name: switches[v] if v in switches else int(v) for name, v in pairs.items()})
        values = {**_LATER, **values}
        chosen = {name: values.pop(name) for name in Options().asdict() if name in values}
        return Params.from_dict(values), Options.from_dict(chosen)
    except (ValueError, TypeError, ParamsError, OptionsError) as error:
        raise CodingError(f"the parameters of the array are not legal ({error})") from None
