"""What steers the compiler and leaves the hardware as it is: images of any options run on the same bitstream.

What shapes the hardware is in `hw.params.Params`.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from compiler.errors import OptionsError
from hw.params import LANES, preset

__all__ = ["DEFAULT", "Options", "preset_options"]

_LATER = {"stream_io": False}
"""Options that files may lack, which were written before there was such an option: what they were compiled with."""


@dataclass(frozen=True, slots=True)
class Options:
    """How a network is laid out in the memories of an array.

    Parameters
    ----------
    balanced : rows are assigned to PEs by their nonzeros; otherwise they are interleaved.
    skip_empty : a column without entries in a PE costs it nothing. Otherwise a padding entry is stored there, which
        costs the cycle that it costs the published array.
    fragments : PEs of a write-back group that a row may be split over, 1 … 8; 1 splits none.
    judged : of the tiles that seem best, the exact cycle model decides; otherwise the estimate that found them.
    stream_io : what the host gives and takes comes and goes by the activation streams, a sample behind the other, for
        any number of samples of a batch; otherwise it lies in activation memory as long as there is room.

    Raises
    ------
    OptionsError
        A field is out of its range; the message names the field, the value and the range.
    """

    balanced: bool = True
    skip_empty: bool = True
    fragments: int = LANES
    judged: bool = True
    stream_io: bool = False

    def __post_init__(self) -> None:
        for name in ("balanced", "skip_empty", "judged", "stream_io"):
            if not isinstance(getattr(self, name), bool):
                raise OptionsError(f"{name} is {getattr(self, name)!r}; expected true or false")
        if type(self.fragments) is not int or not 1 <= self.fragments <= LANES:
            raise OptionsError(f"fragments is {self.fragments!r}; expected an integer from 1 to {LANES}")

    def asdict(self) -> dict[str, bool | int]:
        """Field → value, for JSON."""
        return dataclasses.asdict(self)

    def stored(self) -> dict[str, bool | int]:
        """The same for a file: without what says no more than a file that lacks it."""
        return {name: value for name, value in self.asdict().items() if _LATER.get(name) is not value}

    def replace(self, **changes: Any) -> Options:
        """A copy with fields changed; an unknown field is an `OptionsError`."""
        known = self.asdict()
        for name in changes:
            if name not in known:
                raise OptionsError(f"unknown compiler option {name!r}; expected one of {', '.join(sorted(known))}")
        return dataclasses.replace(self, **changes)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Options:
        """Options from a plain dict (a file's metadata, see `stored`); unknown and missing fields are errors."""
        if missing := cls().asdict().keys() - values.keys() - _LATER.keys():
            raise OptionsError(f"missing compiler option {', '.join(sorted(missing))}")
        return cls().replace(**{**_LATER, **values})


DEFAULT = Options()
"""What the compiler does unless told otherwise."""

# The published array interleaves its rows, and a column costs every PE a cycle (EIE, sections III and IV).
_PRESETS = {"EIE_64": Options(balanced=False, skip_empty=False, fragments=1)}


def preset_options(name: str) -> Options:
    """The options that belong to a preset of `hw.params.PRESETS`.

    Raises
    ------
    ParamsError
        There is no such preset; the message lists those that exist.
    """
    preset(name)
    return _PRESETS.get(name, DEFAULT)
