"""Which cells and how many scenes an evaluation takes where nothing else is said."""

from __future__ import annotations

from collections.abc import Sequence

from explorer.errors import ProbeError
from explorer.evaluate.table import best_cell
from explorer.probe.checkpoint import ProbeCard

SUBJECT = "toy-wan"
CLIPS_ON_CPU, CLIPS_ON_GPU = 16, 500


def subset(cards: Sequence[ProbeCard]) -> list[ProbeCard]:
    """What two cores can judge in minutes: the best cell of every backbone, and the row and the
    column of the map through that of toy-wan.

    Best cells are those of the cards' validation figures; of a backbone without any, all are taken.
    """
    kept = []
    for card in cards:
        mine = [each for each in cards if each.backbone == card.backbone]
        try:
            best = best_cell(mine)
        except ProbeError:
            kept.append(card)
            continue
        crosses = card.layer == best.layer or card.sigma == best.sigma
        if card is best or (card.backbone == SUBJECT and crosses):
            kept.append(card)
    return kept


def default_clips(device: str) -> int:
    """All test scenes on a GPU, a few on a processor."""
    return CLIPS_ON_CPU if device == "cpu" else CLIPS_ON_GPU
