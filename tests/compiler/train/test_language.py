"""Texts, batches of words and the recurrent highway layer."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from compiler.errors import InputError, RecipeError, ToolError
from compiler.train import text
from compiler.train.language import LanguageModel
from compiler.train.rhn import RHN
from compiler.train.words import Words, perplexity

VERSES = "".join(
    f"Aa{chapter}:{verse} Word {chapter % 7} and word, verse {verse}!\n"
    for chapter in range(1, 31)
    for verse in range(1, 4)
)


@pytest.fixture
def no_program(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine without the program that prints the Bible, and a text known by its checksum; gives a folder."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(text, "BIBLE_SHA256", hashlib.sha256(VERSES.encode()).hexdigest())
    return tmp_path


def program(folder: Path, code: str) -> None:
    (folder / "bin" / "bible").write_text(f"#!{sys.executable}\nimport sys\n{code}\n")
    (folder / "bin" / "bible").chmod(0o755)


@pytest.mark.verifies("texts-fixed-split-cut-vocabulary")
def test_the_topics_are_split_by_document_with_a_cut_vocabulary() -> None:
    corpus = text.load("pydoc", 500)
    again = text.load("pydoc", 500)
    assert len(corpus.words) == 500
    assert corpus.words[:2] == (text.UNKNOWN, text.END)
    for part in ("train", "validation", "test"):
        numbers = getattr(corpus, part)
        assert numbers.dtype == np.int64
        assert 0 <= numbers.min() <= numbers.max() < 500
        np.testing.assert_array_equal(numbers, getattr(again, part))
    counts = np.bincount(corpus.train, minlength=500)
    assert list(counts[2:]) == sorted(counts[2:], reverse=True)
    assert len(corpus.train) > 5 * len(corpus.validation) > 0
    small = text.load("pydoc", 500, share=0.25)
    assert 0.1 < len(small.train) / len(corpus.train) < 0.5


def test_the_bible_is_read_from_the_program_or_a_file(no_program: Path) -> None:
    (no_program / "data").mkdir()
    (no_program / "data" / text.BIBLE_FILE).write_text(VERSES)
    corpus = text.load("bible-kjv", 50, folder=no_program / "data")
    assert corpus.name == "bible-kjv"
    # Three chapters of three verses of six words, two marks and the end.
    assert len(corpus.validation) == len(corpus.test) == 3 * 3 * 9
    assert [corpus.words[n] for n in corpus.train[:9]] == "word 2 and word , verse 1 ! <eos>".split()
    program(no_program, f"sys.stdout.write({VERSES!r}) if sys.argv[1:] == ['-f', 'gen1:1-rev22:21'] else sys.exit(9)")
    printed = text.load("bible-kjv", 50)
    np.testing.assert_array_equal(printed.train, corpus.train)


@pytest.mark.verifies("texts-missing-damaged-fallback-only")
def test_a_missing_text_says_what_to_install_and_falls_back_only_when_asked(no_program: Path) -> None:
    with pytest.raises(ToolError, match=r"apt install bible-kjv.*as bible-kjv\.txt"):
        text.load("bible-kjv", 50)
    assert text.load("bible-kjv", 50, fallback="pydoc").name == "pydoc"
    program(no_program, "sys.exit(1)")
    with pytest.raises(ToolError, match="Install bible-kjv and bible-kjv-text again"):
        text.load("bible-kjv", 50)


@pytest.mark.verifies("texts-missing-damaged-fallback-only")
def test_a_damaged_text_and_wrong_requests_are_refused(no_program: Path) -> None:
    (no_program / text.BIBLE_FILE).write_text(VERSES.replace("!", "?", 1))
    for fallback in (None, "pydoc"):  # a damaged text is no missing one
        with pytest.raises(InputError, match=r"bible-kjv\.txt has SHA-256 .*; expected"):
            text.load("bible-kjv", 50, folder=no_program, fallback=fallback)
    program(no_program, "print('something else')")
    with pytest.raises(InputError, match="what the program bible printed has SHA-256"):
        text.load("bible-kjv", 50)
    with pytest.raises(RecipeError, match="the text is 'moby'; expected one of bible-kjv, pydoc"):
        text.load("moby", 50)
    with pytest.raises(RecipeError, match="share 0"):
        text.load("pydoc", 50, share=0.0)


@pytest.mark.verifies("batches-words-target-once-state")
def test_every_word_is_a_target_once_and_the_state_is_carried(seed: int) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LanguageModel(12, 4, (5, 6)).double().eval()
    numbers = np.random.default_rng(seed).integers(0, 12, 43)
    lesson = Words(numbers, 4)
    batches = list(lesson.batches(0, 2, torch.Generator()))
    assert len(batches) == lesson.steps(2) == 5
    assert torch.equal(torch.cat([b.targets for b in batches], 1), torch.from_numpy(numbers[:42]).view(2, 21)[:, 1:])
    # Losses step by step are those of the whole text at once.
    logits, _ = model(torch.from_numpy(numbers[:42]).view(2, 21)[:, :-1])
    targets = torch.from_numpy(numbers[:42]).view(2, 21)[:, 1:]
    whole = nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
    total = sum(float(b.loss(model).detach()) * len(b) for b in lesson.batches(0, 2, torch.Generator()))
    assert total / 40 == pytest.approx(float(whole.detach()))
    # Shares of a batch together, in any order, give the same, and so does the other order of the dimensions.
    shares = 0.0
    for batch in lesson.batches(0, 2, torch.Generator()):
        shares += sum(float(part.loss(model).detach()) * len(part) for part in reversed(batch.split(2)))
    assert shares / 40 == pytest.approx(float(whole.detach()))
    model.batch_first = False
    turned = Words(numbers, 4, batch_first=False)
    total = sum(float(b.loss(model).detach()) * len(b) for b in turned.batches(0, 2, torch.Generator()))
    assert total / 40 == pytest.approx(float(whole.detach()))


def test_perplexity_of_one_who_knows_nothing_is_the_vocabulary() -> None:
    model = LanguageModel(12, 4, (5,))
    nn.init.zeros_(model.output.weight)
    numbers = np.arange(400, dtype=np.int64) % 12
    assert perplexity(model, Words(numbers)) == pytest.approx(12, rel=1e-5)
    with pytest.raises(InputError, match="expected two each"):
        Words(numbers[:3]).steps(2)


@pytest.mark.verifies("recurrent-highway-layer-formula")
@pytest.mark.parametrize("depth", [1, 3])
def test_a_recurrent_highway_layer_is_its_formula(depth: int, seed: int) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layer = RHN(3, 4, depth).double()
        inputs, s = torch.randn(2, 6, 3, dtype=torch.float64), torch.randn(2, 4, dtype=torch.float64)
    outputs, last = layer(inputs, s.unsqueeze(0))
    for step in range(6):
        for d in range(depth):
            r, b = layer.get_parameter(f"weight_hh_{d}"), layer.get_parameter(f"bias_{d}")
            x = inputs[:, step] @ layer.weight_ih.t() if d == 0 else torch.zeros(2, 8, dtype=torch.float64)
            h, t = torch.tanh((x + s @ r.t() + b)[:, :4]), torch.sigmoid((x + s @ r.t() + b)[:, 4:])
            s = h * t + s * (1 - t)
        torch.testing.assert_close(outputs[:, step], s)
    torch.testing.assert_close(last[0], s)


def test_variational_dropout_is_the_same_in_all_steps_and_off_in_evaluation(seed: int) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layer = RHN(30, 40, 2, dropout=0.5)
        nn.init.zeros_(layer.weight_hh_0)
        inputs = torch.ones(1, 5, 30)
        driven = layer(inputs)[0]
        # With the recurrent matrix gone, h and t of depth 0 are the same in all steps if the dropped inputs are.
        nn.init.zeros_(layer.weight_hh_1)
        nn.init.constant_(layer.bias_1, -30)  # depth 1 carries
        nn.init.constant_(layer.bias_0[40:], 30)  # depth 0 writes
        outputs = layer(inputs)[0]
        torch.testing.assert_close(outputs[:, 0], outputs[:, 4])
        assert not torch.equal(outputs, layer(inputs)[0])
        layer.eval()
        assert torch.equal(layer(inputs)[0], layer(inputs)[0])
    assert driven.shape == (1, 5, 40)
    with pytest.raises(ValueError, match="depth 0"):
        RHN(3, 4, 0)


def test_wrong_models_are_refused() -> None:
    with pytest.raises(RecipeError, match="cell is 'elman'"):
        LanguageModel(5, 3, (4,), "elman")
    with pytest.raises(RecipeError, match="as wide as the embedding"):
        LanguageModel(5, 3, (4,), tied=True)
