"""A target whose cases go wrong in every way; a module of its own, because processes import it."""

from __future__ import annotations

import os
from pathlib import Path
from random import Random

from compiler.errors import InputError
from sim.fuzz.target import Finding, Target


class Odd(Target):
    """Most cases are refused; each of some numbers does something else. tame: all are refused."""

    name, text, suffix = "odd", "goes wrong", ".txt"

    def __init__(self, tame: bool = False) -> None:
        self.tame = tame

    def make(self, random: Random) -> bytes:
        return str(random.randrange(30)).encode()

    def check(self, path: Path, random: Random) -> None:
        number = -1 if self.tame else int(path.read_text())
        if number == 3:
            bytearray(3 << 30)
        if number == 4:
            os._exit(7)
        if number == 5:
            raise InputError(" ")
        if number == 6:
            raise TypeError("not of the kit")
        if number == 7:
            raise Finding("not right")
        raise InputError(f"{number} is refused; expected nothing")


class Loud(Target):
    """Quotes what a terminal obeys, refused or not."""

    name, text, suffix = "loud", "writes to the terminal", ".txt"

    def make(self, random: Random) -> bytes:
        return b"loud"

    def check(self, path: Path, random: Random) -> None:
        said = f"{path.read_text()} \x1b]0;x\x07 is wrong"
        raise Finding(said) if path.read_text() == "loud" else InputError(said)
