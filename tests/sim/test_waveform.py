"""The waveform of the documents: recorded from the hardware, and in step with the table of stages beside it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from sim.waveform import BROADCAST, STAGES, record

DOCS = Path(__file__).resolve().parents[2] / "docs"

# Stage of the table in docs/architecture.md (words of its second column) → signal of the waveform.
SAME = {
    "pointer memory is addressed": "pointer memory addressed",
    "written into the queue": "job written into the queue",
    "taken from the queue": "job taken",
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


def test_columns_of_three_no_and_ten_entries(waves) -> None:
    assert sum(waves[BROADCAST]) == 3
    assert sum(waves["job written into the queue"]) == 2
    assert sum(waves["empty column dropped"]) == 1
    assert sum(waves["weight × activation"]) == 13
    begin = waves["weight × activation"].index(1)
    assert all(waves["weight × activation"][begin : begin + 13])  # no bubble between words or columns
    done = [cycle for cycle, value in enumerate(waves["column done with this sum"]) if value]
    assert done == [begin + 3, begin + 13]
