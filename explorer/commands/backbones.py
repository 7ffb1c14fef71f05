"""`emerge3d backbones`: what models there are and what they need."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any

import tyro

if TYPE_CHECKING:
    from explorer.backbones.base import BackboneCard


@dataclass(frozen=True)
class Backbones:
    """List the backbones, or describe one."""

    id: Annotated[str | None, tyro.conf.Positional] = None
    """Describe this one only."""
    json: bool = False
    """Print one JSON object on stdout."""

    def run(self) -> int:
        """Print cards and the cells that have a probe."""
        from explorer.backbones import registry

        chosen = registry.cards() if self.id is None else [registry.card(self.id)]
        found = [describe(card) for card in chosen]
        if self.json:
            print(json.dumps(found[0] if self.id else {"backbones": found}, allow_nan=False))
        elif self.id:
            width = max(len(name) for name in found[0])
            print("\n".join(f"{name:<{width}}  {_text(v)}" for name, v in found[0].items()))
        else:
            for each in found:
                print(f"{each['id']:<12} {each['kind']:<16} {each['title']}")
        return 0


def describe(card: BackboneCard) -> dict[str, Any]:
    """A card's facts, and the (layer, sigma) cells with a trained probe."""
    from explorer.probe.checkpoint import list_probes

    cells = sorted({(probe.layer, probe.sigma) for probe in list_probes(card.id)})
    return {**asdict(card), "probes": [list(cell) for cell in cells]}


def _text(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(_text(item) for item in value) or "none"
    return str(value)
