"""What the page says about a cell before it is run: its noise in three names, and its probe."""

from __future__ import annotations

import itertools
from html import escape

from explorer import plugins
from explorer.backbones import registry
from explorer.backbones.base import BackboneCard
from explorer.probe.checkpoint import ProbeCard, find_probe, list_probes

TIMESTEP = "The same noise level as the model is told it."
INDEX = "The same noise level in the paper&#39;s released code: --t of 1000, 999 is the cleanest."


def note(backbone: str, layer: int, sigma: float) -> str:
    """The lines under the sliders."""
    card = registry.card(backbone)
    return (
        f"<div class='cell'><p class='noise'>{_noise(card, sigma)}</p>"
        f"{_probe(card, layer, sigma)}</div>"
    )


def about(backbone: str) -> str:
    """The lines under the backbone's name."""
    card = registry.card(backbone)
    size = f"{card.parameters / 1e6:.1f} M parameters" if card.parameters else "no parameters"
    blocks = f"{card.layers} blocks" if card.layers > 1 else "1 layer"
    tokens = f"{card.token_grid[0]}×{card.token_grid[1]} tokens of {card.width}"
    facts = f"{card.kind} · {size} · {blocks} · {tokens} · {card.licence}"
    return (
        f"<div class='about' title='{escape(facts)}'><b>{escape(card.title)}.</b> "
        f"{escape(card.note)}</div>"
    )


def found_plugins() -> str:
    """A line on what came from outside this project and what is left out; empty without any."""
    known = plugins.load()
    given = [
        f"{', '.join(itertools.chain(*each.registered.values()))} ({each.name})"
        for each in known
        if each.error is None
    ]
    lines = [f"From plugins: {'; '.join(given)}."] if given else []
    lines += [f"{each.error}." for each in known if each.error is not None]
    return "".join(f"<p class='note'>{escape(line)}</p>" for line in lines)


def _noise(card: BackboneCard, sigma: float) -> str:
    if not card.uses_sigma:
        return "This backbone sees no noise: sigma is ignored."
    level = registry.noise_level(card.id, sigma)
    if level is None:
        return f"σ <b>{sigma:.2f}</b>"
    timestep, index = level.timestep, level.official_index
    return (
        f"= <span title='{TIMESTEP}'>model timestep <b>{timestep:.0f}</b></span>, "
        f"<span title='{INDEX}'>official index <b>{index}</b></span>"
    )


def _probe(card: BackboneCard, layer: int, sigma: float) -> str:
    asked = sigma if card.uses_sigma else 0.0
    found = find_probe(card.id, layer, asked)
    if found is not None:
        if found.trained:
            steps = f"trained for {found.steps:,} steps"
            return f"<p class='probe yes'>A probe reads it, {steps}.</p>"
        return "<p class='probe raw'>The probe here is untrained: its geometry is noise.</p>"
    cells = where(list_probes(card.id))
    there = f"There are probes for {cells}." if cells else "This backbone has none yet."
    return f"<p class='probe no'>No probe for this cell: correspondence only. {there}</p>"


def where(cards: list[ProbeCard]) -> str:
    """The cells of some probes in words, e.g. "layers 1, 3 × sigma 0.10, 0.30"."""
    sigmas: dict[int, set[float]] = {}
    for card in cards:
        sigmas.setdefault(card.layer, set()).add(card.sigma)
    alike: dict[tuple[float, ...], list[int]] = {}
    for layer in sorted(sigmas):
        alike.setdefault(tuple(sorted(sigmas[layer])), []).append(layer)
    return "; ".join(
        f"{'layer' if len(layers) == 1 else 'layers'} {', '.join(map(str, layers))} × sigma "
        f"{', '.join(f'{sigma:.2f}' for sigma in same)}"
        for same, layers in alike.items()
    )
