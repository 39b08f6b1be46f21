"""What steers the compiler and leaves the hardware as it is: images of any options run on the same bitstream.

What shapes the hardware is in `hw.params.Params`.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from compiler.errors import OptionsError
from hw.params import preset

__all__ = ["DEFAULT", "Options", "preset_options"]


@dataclass(frozen=True, slots=True)
class Options:
    """How a network is laid out in the memories of an array.

    Parameters
    ----------
    balanced : rows are assigned to PEs by their nonzeros; otherwise they are interleaved.
    skip_empty : a column without entries in a PE costs it nothing. Otherwise a padding entry is stored there, which
        costs the cycle that it costs the published array.

    Raises
    ------
    OptionsError
        A field is not true or false; the message names the field and the value.
    """

    balanced: bool = True
    skip_empty: bool = True

    def __post_init__(self) -> None:
        for name, value in self.asdict().items():
            if not isinstance(value, bool):
                raise OptionsError(f"{name} is {value!r}; expected true or false")

    def asdict(self) -> dict[str, bool]:
        """Field → value, for JSON."""
        return dataclasses.asdict(self)

    def replace(self, **changes: Any) -> Options:
        """A copy with fields changed; an unknown field is an `OptionsError`."""
        known = self.asdict()
        for name in changes:
            if name not in known:
                raise OptionsError(f"unknown compiler option {name!r}; expected one of {', '.join(sorted(known))}")
        return dataclasses.replace(self, **changes)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Options:
        """Options from a plain dict (a file's metadata); unknown and missing fields are errors."""
        if missing := cls().asdict().keys() - values.keys():
            raise OptionsError(f"missing compiler option {', '.join(sorted(missing))}")
        return cls().replace(**values)


DEFAULT = Options()
"""What the compiler does unless told otherwise."""

# The published array interleaves its rows, and a column costs every PE a cycle (EIE, sections III and IV).
_PRESETS = {"EIE_64": Options(balanced=False, skip_empty=False)}


def preset_options(name: str) -> Options:
    """The options that belong to a preset of `hw.params.PRESETS`.

    Raises
    ------
    ParamsError
        There is no such preset; the message lists those that exist.
    """
    preset(name)
    return _PRESETS.get(name, DEFAULT)
