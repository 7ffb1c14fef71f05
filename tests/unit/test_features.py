"""How layers are written."""

from __future__ import annotations

import pytest

from explorer.errors import BackboneError
from explorer.features import resolve_layers


@pytest.mark.parametrize(
    ("text", "layers"),
    [
        ("all", [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]),
        ("3", [3]),
        ("5,1,3", [1, 3, 5]),
        ("-1,0", [0, 9]),
        ("2-4", [2, 3, 4]),
        ("0-9:3", [0, 3, 6, 9]),
        ("0-8:3", [0, 3, 6]),
        ("7-7", [7]),
        ("0-2, 1-3,9", [0, 1, 2, 3, 9]),
    ],
)
def test_layers_are_numbers_and_ranges_with_their_ends(text: str, layers: list[int]) -> None:
    assert resolve_layers(text, 10) == layers


@pytest.mark.parametrize("text", ["", "x", "1,,2", "4-2", "1-3:0", "1-", "1:3", "0.5", "all,1"])
def test_other_words_are_refused_with_the_ones_that_are_taken(text: str) -> None:
    with pytest.raises(BackboneError, match="like 0-29 or 0-29:3, or all"):
        resolve_layers(text, 10)


@pytest.mark.parametrize("text", ["10", "0-10", "-11"])
def test_layers_that_the_model_lacks_are_refused(text: str) -> None:
    with pytest.raises(BackboneError, match="layers 0 to 9"):
        resolve_layers(text, 10)
