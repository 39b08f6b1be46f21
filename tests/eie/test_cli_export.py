"""``eie export``: a network as C."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from compiler.network_file import save
from compiler.options import Options
from eie.cli import cli
from hw.params import Params
from sim.benchmarks.whole import compile_whole
from tests.sim.test_stream_io import pictures

PARAMS = Params(pes=4, rows=64, act_lines=512, weight_words=1024, pointer_blocks=1024, output_words=1024)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("export") / "net.eie"
    save(compile_whole(pictures(), PARAMS, Options(stream_io=True, judged=False), count=2).network, path)
    return path


@pytest.mark.verifies("eie-export-header-network-array")
def test_a_network_is_exported_as_c(network: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["export", str(network), "-o", str(tmp_path), "--name", "pictures", "--json"])
    assert done.exit_code == 0, done.output
    assert sorted(Path(path).name for path in json.loads(done.stdout)["files"]) == ["eie.h", "pictures.h"]
    (tmp_path / "main.c").write_text(
        '#include "eie.h"\n#include "pictures.h"\nint main(void) { return PICTURES_MAPS != 2; }'
    )
    subprocess.run(
        ["cc", "-std=c99", "-Wall", "-Wno-unused", "-Werror", "main.c", "-o", "main"], cwd=tmp_path, check=True
    )
    subprocess.run([tmp_path / "main"], check=True)


@pytest.mark.verifies("eie-export-header-network-array")
@pytest.mark.parametrize("name", ["1st", "a-b", ""])
def test_a_name_that_is_none_of_c_is_refused(network: Path, tmp_path: Path, name: str) -> None:
    done = CliRunner().invoke(cli, ["export", str(network), "-o", str(tmp_path / "new"), "--name", name])
    assert done.exit_code == 2
    assert "expected a name of C" in done.output
    assert not (tmp_path / "new").exists()
