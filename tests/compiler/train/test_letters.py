"""Letters of help texts: what is asked for follows what is read, and no letter is in two samples."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from compiler.train import data, letters, text
from compiler.train.letters import LETTERS, STEPS


def read_back(split: data.Split) -> str:
    rows = split.inputs.reshape(len(split), STEPS, len(LETTERS))
    np.testing.assert_array_equal(rows.sum(axis=2), 1)
    return "".join(
        "".join(LETTERS[place] for place in (*row, label))
        for row, label in zip(rows.argmax(axis=2), split.labels, strict=True)
    )


def check_letters() -> None:
    source = text.TEXTS["pydoc"]
    written = ["".join(LETTERS[place] for place in letters.encode(" ".join(t))) for t in source.cut(source.read(None))]
    whole = {topic[: len(topic) // (STEPS + 1) * (STEPS + 1)] for topic in written}
    whole = {topic for topic in whole if sum(topic in other for other in whole) == 1}
    train, test = (read_back(split) for split in data.DATASETS["next-letter"].read(None))
    assert Counter(train + test) == Counter("".join(whole))  # as many of each letter
    assert all((topic in train) != (topic in test) for topic in whole)
    assert 0.02 < len(test) / len(train) < 0.5


@pytest.mark.verifies("letters-none-samples-topic-parts")
def test_every_topic_is_in_one_part_letter_by_letter() -> None:
    check_letters()


@pytest.mark.verifies("letters-none-samples-topic-parts")
def test_planted_fault_windows_that_overlap_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = letters._samples

    def overlapping(topics: list[bytes]) -> tuple[np.ndarray, np.ndarray]:
        return whole([*topics, *(topic[3 : 3 - STEPS - 1] for topic in topics)])

    monkeypatch.setattr(letters, "_samples", overlapping)
    with pytest.raises(AssertionError):
        check_letters()


def test_what_is_no_letter_is_left_out() -> None:
    assert "".join(LETTERS[place] for place in letters.encode('The  "if"\n(and 3), é.')) == "the if and , ."
