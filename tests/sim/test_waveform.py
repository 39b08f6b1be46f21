"""The waveform of the documents: recorded from the hardware, and in step with the table of stages beside it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from sim.waveform import BROADCAST, DONE, STAGES, record

DOCS = Path(__file__).resolve().parents[2] / "docs"

# Stage of the table in docs/architecture.md (words of its second column) → signal of the waveform.
SAME = {
    "pointer memory is addressed": "pointer memory addressed",
    "written into the queue": "written into the queue",
    "read from the queue's memory": "queue's memory read",
    "expander takes it": "vector taken",
    "weight read takes": "column taken",
    "word is requested": "weight word requested",
    "codebook is addressed": "codebook addressed",
    "weight × activation": "weight × activation",
}


@pytest.fixture(scope="module")
def waves() -> dict[str, list[int]]:
    return record()


def test_documents_show_what_the_hardware_does(waves) -> None:
    assert json.loads((DOCS / "waveform.json").read_text()) == waves
    svg = (DOCS / "waveform.svg").read_text()
    assert all(name in svg for name in STAGES)


@pytest.mark.verifies("waveform-documents-hardware-s-stage")
def test_each_stage_is_reached_in_the_cycle_of_the_table(waves) -> None:
    stages = re.findall(r"^\| F\+(\d+) \| (.*?) \|", (DOCS / "architecture.md").read_text(), re.MULTILINE)
    fires = waves[BROADCAST].index(1)
    checked = 0
    for cycle, text in stages:
        for words, signal in SAME.items():
            if words in text:
                assert waves[signal].index(1) == fires + int(cycle), signal
                checked += 1
    assert checked == len(SAME)


def test_vectors_of_two_columns_of_none_and_of_one(waves) -> None:
    assert sum(waves[BROADCAST]) == sum(waves["pointer memory addressed"]) == 3
    assert sum(waves["written into the queue"]) == sum(waves["vector taken"]) == 2
    assert sum(waves["dropped: no work"]) == 1
    # What has no work leaves in the cycle in which it would be written.
    sent = [cycle for cycle, value in enumerate(waves[BROADCAST]) if value]
    assert waves["dropped: no work"].index(1) == sent[1] + 4
    assert sum(waves["column taken"]) == 3
    assert sum(waves["weight × activation"]) == 15
    begin = waves["weight × activation"].index(1)
    assert all(waves["weight × activation"][begin : begin + 15])  # no bubble between words, columns or vectors
    done = [cycle for cycle, value in enumerate(waves[DONE]) if value]
    assert done == [begin + 13, begin + 15]
