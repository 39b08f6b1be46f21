"""Options of the compiler: validated like parameters, and no part of the hardware."""

from __future__ import annotations

import numpy as np
import pytest

from compiler.errors import ImageError, OptionsError
from compiler.image.image import Image
from compiler.lower.build import build
from compiler.lower.program import chain_program
from compiler.network import Network, network_of
from compiler.network_check import check_network
from compiler.network_file import load, save
from compiler.options import DEFAULT, Options, preset_options
from hw.export import verilog_text
from hw.layouts import identity
from hw.params import Params, ParamsError, preset
from tests.compiler.networks import SMALL, network

OTHER = Options(balanced=False, skip_empty=False, fragments=1)


def images(rng: np.random.Generator, params: Params = SMALL) -> tuple[Image, Image]:
    """One network, laid out in both ways."""
    chain = network(rng, params, [40, 60, 9], 0.05)
    first, second = (build(chain_program(chain), params, options) for options in (DEFAULT, OTHER))
    return first, second


@pytest.mark.verifies("options-compiler-change-neither-identity")
def test_images_of_other_options_run_on_the_same_bitstream(rng: np.random.Generator) -> None:
    first, second = images(rng)
    assert (first.options, second.options) == (DEFAULT, OTHER)
    assert first.orders.tobytes() != second.orders.tobytes()  # else this would show nothing
    assert first.identity == second.identity == identity(SMALL)
    assert first.params == second.params
    verilog = verilog_text(SMALL)
    for name in OTHER.asdict():
        assert name not in verilog
        assert name not in SMALL.asdict()


@pytest.mark.verifies("options-stand-file-images-network")
def test_options_come_back_from_a_file(rng: np.random.Generator, tmp_path) -> None:
    for image in images(rng):
        save(network_of(image), tmp_path / "n.eie")
        back = load(tmp_path / "n.eie", SMALL)  # the array asks for its parameters only
        assert back.images[0].options == back.options == image.options


@pytest.mark.verifies("options-stand-file-images-network")
def test_images_of_one_network_are_laid_out_in_one_way(rng: np.random.Generator) -> None:
    first, second = images(rng)
    mixed = Network(SMALL, network_of(first).graph, (first, second))
    with pytest.raises(ImageError, match="image 1 was made with other options"):
        check_network(mixed)


def test_presets_are_pairs() -> None:
    assert preset_options("EIE_64") == OTHER
    assert preset_options("BALANCED_64") == Options()
    assert preset("EIE_64").asdict().keys().isdisjoint(OTHER.asdict())
    with pytest.raises(ParamsError, match=r"unknown preset 'EIE'; expected one of .*EIE_64"):
        preset_options("EIE")


@pytest.mark.verifies("bad-options")
def test_a_dict_gives_the_options_again() -> None:
    assert Options.from_dict(OTHER.asdict()) == OTHER
    assert DEFAULT.replace(balanced=False) == Options(balanced=False)
    with pytest.raises(OptionsError, match="missing compiler option skip_empty"):
        Options.from_dict({"balanced": True, "fragments": 8, "judged": True})
    with pytest.raises(
        OptionsError, match="unknown compiler option 'pes'; expected one of balanced, fragments, judged, skip_empty"
    ):
        Options.from_dict({**OTHER.asdict(), "pes": 4})


@pytest.mark.verifies("bad-options")
@pytest.mark.parametrize("value", [1, 0, None, "true", np.True_])
def test_an_option_is_true_or_false(value: object) -> None:
    with pytest.raises(OptionsError, match=r"balanced is .*; expected true or false"):
        Options(balanced=value)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [0, 9, True, 2.0, None])
def test_fragments_are_pes_of_a_group(value: object) -> None:
    with pytest.raises(OptionsError, match=r"fragments is .*; expected an integer from 1 to 8"):
        Options(fragments=value)  # type: ignore[arg-type]
