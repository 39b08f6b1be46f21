"""What a thing to fuzz is: how a case is made from random numbers, and what must hold for it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from random import Random

__all__ = ["Finding", "Target", "random_of"]


class Finding(Exception):
    """A case that was accepted and is not right."""


class Target(ABC):
    """One kind of file, or of traffic, that can come from a stranger.

    Attributes
    ----------
    name : on the command line. text : for people. suffix : of the files of its cases.
    share : cases of this target out of a campaign, against those of others; cheap ones have more.
    """

    name: str
    text: str
    suffix: str
    share: int = 10

    def prepare(self) -> None:  # noqa: B027
        """Make the files from which cases are made; once in each process, the same ones every time."""

    @abstractmethod
    def make(self, random: Random) -> bytes:
        """The content of a case; equal for equal states of `random`."""

    @abstractmethod
    def check(self, path: Path, random: Random) -> None:
        """Do with a case what a user would do, and see whether the result is right.

        Parameters
        ----------
        path : a file with the content.
        random : for inputs of what is run.

        Raises
        ------
        EieError
            It is refused. That is as good as a right result.
        Finding
            It is accepted, and what comes out is wrong.
        """

    def close(self) -> None:  # noqa: B027
        """Give back what `prepare` took."""


def random_of(target: str, seed: int, case: int) -> Random:
    """The random numbers of one case: they depend on nothing else, so that each case replays alone."""
    return Random(f"{target}/{seed}/{case}")
