"""Letters of Python's own help topics, for language models that read letter by letter."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from compiler.train import text

__all__ = ["LETTERS", "STEPS", "encode", "load"]

LETTERS = " abcdefghijklmnopqrstuvwxyz.,"
"""What is read; everything else is left out. Capitals count as small letters."""

STEPS = 15
"""Letters after which the next one is asked for."""

# Which topics are for testing must not move with a recipe's seed: figures of different seeds would not be comparable.
_SPLIT_SEED = 20180430
_HELD = 0.1


def encode(written: str) -> NDArray[np.int64]:
    """Places in `LETTERS` of the letters of a text, (n,); white space of any length is one space."""
    places = {letter: place for place, letter in enumerate(LETTERS)}
    found = [places[letter] for letter in " ".join(written.split()).lower() if letter in places]
    return np.array(found, np.int64)


def load() -> tuple[tuple[NDArray[np.float32], NDArray[np.int64]], tuple[NDArray[np.float32], NDArray[np.int64]]]:
    """Inputs and labels for training, and the same of other topics for the test.

    Inputs are float32 (n, STEPS · letters), each letter a one among zeros; the label is the place of the letter that
    follows. No letter is in two samples, and a topic that is part of another is left out. The topics differ with the
    version of Python.
    """
    source = text.TEXTS["pydoc"]
    topics = [_whole(encode(" ".join(lines))) for lines in source.cut(source.read(None))]
    topics = [topic for topic in dict.fromkeys(topics) if not any(topic in other for other in topics if other != topic)]
    order = np.random.RandomState(_SPLIT_SEED).permutation(len(topics))
    held = round(len(topics) * _HELD)
    test, train = (_samples([topics[number] for number in np.sort(part)]) for part in (order[:held], order[held:]))
    return train, test


def _whole(places: NDArray[np.int64]) -> bytes:
    """The letters that are in samples, a byte each: what is left over at the end is too short for one."""
    return places[: len(places) // (STEPS + 1) * (STEPS + 1)].astype(np.uint8).tobytes()


def _samples(topics: list[bytes]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    rows = np.frombuffer(b"".join(topics), np.uint8).reshape(-1, STEPS + 1).astype(np.int64)
    inputs = np.eye(len(LETTERS), dtype=np.float32)[rows[:, :-1]]
    return inputs.reshape(len(rows), -1), rows[:, -1]
