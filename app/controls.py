"""What each backbone makes of the cell's controls: known to the page, which sets them by itself.

An answer of the server would come some time after the choice, and take the sliders back from
whoever has moved them meanwhile.
"""

from __future__ import annotations

import json
from typing import Any

from app import cell
from app._gradio import gr
from explorer.backbones import registry
from explorer.backbones.base import BackboneCard

# A list announces a choice whenever it is left too: what is shown already is no choice.
_CHOSEN = """(backbone, about) => {
  const its = (%s)[backbone];
  return !its || its[0] === about ? [] : its;
}"""


def chosen_js() -> str:
    """A function of (backbone, about): what a chosen backbone sets in about, layer and sigma."""
    cells = {
        card.id: [
            cell.about(card.id),
            gr.update(value=card.default_cell[0], **_layer(card)),
            gr.update(value=card.default_cell[1], **_sigma(card)),
        ]
        for card in registry.here()
    }
    return _CHOSEN % json.dumps(cells)


def ranges_js() -> str:
    """A function of (backbone): what it sets in layer and sigma, whose values stay."""
    ranges = {
        card.id: [gr.update(**_layer(card)), gr.update(**_sigma(card))] for card in registry.here()
    }
    return f"(backbone) => ({json.dumps(ranges)})[backbone] ?? []"


def last_layer() -> int:
    """The last layer of the deepest backbone: the server refuses what is beyond it."""
    return max(_last(card) for card in registry.here())


def _last(card: BackboneCard) -> int:
    return max(card.layers - 1, 1)  # a slider has two ends


def _layer(card: BackboneCard) -> dict[str, Any]:
    return {"maximum": _last(card), "interactive": card.layers > 1}


def _sigma(card: BackboneCard) -> dict[str, Any]:
    return {"interactive": card.uses_sigma}
