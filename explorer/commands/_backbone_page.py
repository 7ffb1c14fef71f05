"""What `emerge3d backbones ID` prints for people: one model, what it needs, how to run it."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from explorer import plugins
from explorer.backbones import _memory, registry
from explorer.backbones._options import Target
from explorer.backbones._weights import VARIABLE, size_text

if TYPE_CHECKING:
    from explorer.backbones.base import BackboneCard

WIDTH = 100
NAMES = 13
FITS = {
    "crop": "a centred part of that shape is taken",
    "stretch": "the whole frame is stretched to it",
}


def page(
    card: BackboneCard,
    noise: Sequence[dict[str, float | int]],
    cells: Sequence[Sequence[float | int]],
) -> str:
    """A card for people.

    Args:
        card: of the model.
        noise: rows of its noise table; none where it sees no noise.
        cells: (layer, sigma) that have a probe.
    """
    facts = [
        ("kind", card.kind),
        ("licence", card.licence),
        ("parameters", _parameters(card)),
        ("weights", _weights(card)),
        ("frames", _frames(card)),
        ("input", f"{_size(card.input_size)} pixels (height x width); {FITS[card.fit]}"),
        ("tokens", f"{_size(card.token_grid)} of {card.width} channels for each slot of frames"),
        ("layers", f"{card.layers}, 0 to {card.layers - 1}; read: {', '.join(card.taps)}"),
        ("prompt", "empty, or another with --prompt" if card.takes_prompt else ""),
        ("default cell", _default(card)),
        ("probes", _probes(cells)),
        ("as released", card.official),
    ]
    lines = [f"{card.id}: {card.title}", *_wrapped("", card.note), ""]
    for name, text in facts:
        lines += _wrapped(name, text) if text else []
    lines += ["", *_needs(card)]
    if noise:
        lines += ["", f"{'sigma':>7}  {'timestep':>9}  official index"]
        lines += [
            f"{row['sigma']:7.3f}  {row['timestep']:9g}  {row['official_index']:14g}"
            for row in noise
        ]
    return "\n".join([*lines, "", *_commands(card)])


def _wrapped(name: str, text: str) -> list[str]:
    indent = f"{name:<{NAMES}}" if name else ""
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=indent,
        subsequent_indent=" " * len(indent),
        break_on_hyphens=False,
        break_long_words=False,
    )


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"


def _parameters(card: BackboneCard) -> str:
    if not card.parameters:
        return "none"
    vae = f", {_count(card.vae_parameters)} of them in the VAE" if card.vae_parameters else ""
    return f"{_count(card.parameters)} in memory together{vae}"


def _count(parameters: int) -> str:
    return f"{parameters / 1e9:.2f} B" if parameters >= 1e9 else f"{parameters / 1e6:.1f} M"


def _weights(card: BackboneCard) -> str:
    source = card.source
    if source is None:
        plugin = plugins.of("backbone", card.id)
        return "come with the package" if plugin is None else f"come with the plugin {plugin.name}"
    names = source.repo if source.shared is None else f"{source.repo} and {source.shared.repo}"
    gated = ", gated: its licence must be accepted there first" if source.gated else ""
    here = "on this machine" if registry.is_here(card.id) else "not on this machine"
    return f"{names}, {size_text(source.download_bytes)}{gated}; {here}"


def _frames(card: BackboneCard) -> str:
    if card.max_frames == 1:
        return "1"
    step = f", 1 + a multiple of {card.frame_step}" if card.frame_step > 1 else ""
    return f"1 to {card.max_frames}{step}"


def _default(card: BackboneCard) -> str:
    layer, sigma = card.default_cell
    if not card.uses_sigma:
        return f"layer {layer}; it sees no noise"
    level = registry.noise_level(card.id, sigma)
    named = "" if level is None else f" (timestep {level.timestep:g}, index {level.official_index})"
    return f"layer {layer}, sigma {sigma:g}{named}"


def _probes(cells: Sequence[Sequence[float | int]]) -> str:
    if not cells:
        return "none trained: features, correspondence and references work without one"
    rows = sorted({int(layer) for layer, _ in cells})
    return "; ".join(
        f"layer {row}: sigma " + ", ".join(f"{sigma:g}" for layer, sigma in cells if layer == row)
        for row in rows
    )


def _needs(card: BackboneCard) -> list[str]:
    """What each option needs, and whether this machine has it."""
    if card.source is None:
        return _wrapped("memory", f"about {size_text(card.memory_bytes)}")
    device = registry.resolve_device("auto")
    have = _memory.free(device)
    lines = _wrapped("memory", f"estimated for a clip of {card.max_frames} frames on a GPU")
    for options, need in _memory.choices(card, "cuda"):
        fits = "  fits here" if need <= have and _usable(options, device) else ""
        lines.append(f"{'':<{NAMES}}{size_text(need):>8}  {options}{fits}")
    half = Target(device="cuda", dtype="bfloat16", vae_dtype="bfloat16")
    most = _memory.needed(card, half, roomy=True)
    if most > _memory.needed(card, half):
        words = "is what --vae-dtype bfloat16 takes where far more is free: two slots a pass"
        lines.append(f"{'':<{NAMES}}{size_text(most):>8}  {words}")
    return [*lines, f"{'':<{NAMES}}{size_text(have):>8}  free here ({device})"]


def _usable(options: str, device: str) -> bool:
    return device != "cpu" or "--offload" not in options


def _commands(card: BackboneCard) -> list[str]:
    """How to get it and how to look with it."""
    look = f"emerge3d look VIDEO --backbone {card.id}"
    source = card.source
    if source is None:
        return _listed("look", [look])
    look += " --dtype bfloat16"
    get = [f"emerge3d backbones {card.id} --download"]
    if source.by_address:
        path = f"${VARIABLE}/{card.id}/{source.files[0]}"
        get = [f"curl -L --create-dirs -o {path} {source.repo}"]
    elif source.gated:
        get = [f"accept the licence at https://huggingface.co/{source.repo}", "hf auth login", *get]
    return [*_listed("get", get), *_listed("look", [look, f"{look} --weights DIR"])]


def _listed(name: str, lines: list[str]) -> list[str]:
    return [f"{name if line is lines[0] else '':<{NAMES}}{line}" for line in lines]
