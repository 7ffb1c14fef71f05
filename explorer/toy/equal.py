"""Whether cells were trained alike, which every comparison of them takes for granted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

EQUAL = ("steps", "batch", "rate", "camera_weight", "data")
"""What must be the same in the cards of all runs whose cells are compared; seeds may differ."""


def check_equal(cards: Sequence[dict[str, Any]]) -> None:
    """Refuse cells that were not trained equally long on the same clips.

    Raises:
        ValueError: with what differs.
    """
    for card in cards[1:]:
        for name in EQUAL:
            if card.get(name) != cards[0].get(name):
                raise ValueError(
                    f"these cells cannot be compared: {name} is {cards[0].get(name)} for some and "
                    f"{card.get(name)} for others: train all of them alike"
                )
