"""A file instead of a module, a pickle instead of safetensors, names with prefixes: refused or read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from compiler.compressible import load_network
from compiler.errors import InputError
from compiler.source import load

torch = pytest.importorskip("torch")
save_file = pytest.importorskip("safetensors.torch").save_file

MODULE = """
import torch
from torch import nn
def make():
    return nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)), torch.rand(2, 4)
"""


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("my_module.py:make", "`my_module:make`"),
        ("./my_module.py:make", "`my_module:make`"),
        ("pkg/mod.py:make", "`pkg.mod:make`"),
        ("pkg/mod:make", "`pkg.mod:make`"),
        ("/some/where/mod.py:make", "`mod:make`, given in the folder /some/where"),
        ("../mod.py:make", "`mod:make`, given in the folder .."),
    ],
)
def test_a_file_in_the_place_of_a_module_is_answered_with_the_module(text: str, meant: str) -> None:
    with pytest.raises(InputError) as caught:
        load(text)
    assert meant in str(caught.value)


def test_a_python_file_without_a_function(tmp_path: Path) -> None:
    (tmp_path / "mod.py").write_text(MODULE)
    with pytest.raises(InputError, match="mod:FUNCTION"):
        load(str(tmp_path / "mod.py"))


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    name = "net_" + "".join(sign if sign.isalnum() else "_" for sign in request.node.name)  # modules are kept by name
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return f"{name}:make"


def state() -> dict[str, Any]:
    module = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU(), torch.nn.Linear(3, 2))
    return dict(module.state_dict())


@pytest.mark.verifies("pickles-files-instead-modules-prefixes")
@pytest.mark.parametrize("old", [False, True])
def test_a_pickle_is_told_how_to_convert_it_and_never_read(made: str, old: bool, tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save(state(), path, _use_new_zipfile_serialization=not old)
    for act in (lambda: load(made, path), lambda: load(str(path)), lambda: load_network(path)):
        with pytest.raises(InputError, match=r"torch\.save.*weights_only=True.*w\.safetensors"):
            act()


@pytest.mark.verifies("pickles-files-instead-modules-prefixes")
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "_orig_mod.module.", "module._orig_mod."])
def test_prefixes_of_wrappers_are_dropped(made: str, prefix: str, tmp_path: Path) -> None:
    wanted = state()
    save_file({prefix + name: value for name, value in wanted.items()}, tmp_path / "w.safetensors")
    found = load(made, tmp_path / "w.safetensors").module.state_dict()
    assert all(torch.equal(found[name], value) for name, value in wanted.items())


def test_a_part_that_torch_compile_wrapped(made: str, tmp_path: Path) -> None:
    wanted = state()
    renamed = {name.replace("0.", "0._orig_mod.") if name[0] == "0" else name: value for name, value in wanted.items()}
    save_file(renamed, tmp_path / "w.safetensors")
    found = load(made, tmp_path / "w.safetensors").module.state_dict()
    assert all(torch.equal(found[name], value) for name, value in wanted.items())


def test_another_prefix_is_named_with_the_remedy(made: str, tmp_path: Path) -> None:
    save_file({f"net.{name}": value for name, value in state().items()}, tmp_path / "w.safetensors")
    with pytest.raises(InputError, match=r"w\.safetensors does not fit.*'net'.*model\.net\.state_dict"):
        load(made, tmp_path / "w.safetensors")


@pytest.mark.parametrize("length", [128, 0x280, 0x480])
def test_a_safetensors_file_whose_length_looks_like_a_pickle_is_read(length: int, tmp_path: Path) -> None:
    header = b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'.ljust(length)
    (tmp_path / "s.safetensors").write_bytes(length.to_bytes(8, "little") + header + b"\0\0\x80\x3f")
    assert load_network(tmp_path / "s.safetensors").state()["a"].tolist() == [1.0]


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_pickle_of_any_protocol_is_recognized(protocol: int, tmp_path: Path) -> None:
    torch.save({"a": torch.ones(3)}, tmp_path / "w.pt", _use_new_zipfile_serialization=False, pickle_protocol=protocol)
    with pytest.raises(InputError, match=r"torch\.save"):
        load_network(tmp_path / "w.pt")
