"""Messages quote names out of files of strangers."""

from __future__ import annotations

import pytest

from compiler.errors import EieError, ImageError
from eie.failure import harmless


@pytest.mark.verifies("robust-messages")
def test_a_message_shows_no_sign_that_a_terminal_obeys() -> None:
    assert harmless("layer \x1b[31mred\x07\ud800: 3 × é\n\tis wrong") == (
        "layer \\x1b[31mred\\x07\\ud800: 3 × é\n\tis wrong"
    )


@pytest.mark.verifies("robust-messages")
def test_a_name_without_end_is_cut() -> None:
    error = ImageError(f"the layer {'x' * 5000} is wrong: expected {'y' * 300}")
    assert str(error) == f"the layer {'x' * 100}… (5000 signs) is wrong: expected {'y' * 300}"
    assert str(EieError("short")) == "short"
    assert str(EieError("a node is wrong; " * 1000)).endswith("… (17000 signs in all)")
