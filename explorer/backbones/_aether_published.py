"""Aether's transformer with the parts that it takes from CogVideoX-5b-I2V, as files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from explorer.backbones import _cogvideox_published as _cogvideox
from explorer.backbones import _prompt_files, _published, _weights
from explorer.backbones._cogvideox_frames import Recipe
from explorer.backbones._options import Source, Target
from explorer.backbones.base import BackboneCard, Hashes

if TYPE_CHECKING:
    from explorer.backbones._aether import AetherBackbone
    from explorer.noise import Schedule

RAYS = 24
"""Channels of a slot's ray map: six for each of its four frames."""


def hashes(target: Target, *, recipe: Recipe, source: Source) -> Hashes:
    """Fingerprints of transformer and VAE.

    With reconstructed geometry the latents depend on the transformer, its dtype and prompt too.
    """
    shared = replace(target, weights=_weights.shared_folder(source, target.folder))
    what = _cogvideox.FAMILY.what
    prompt = _prompt_files.origin(_cogvideox.TEXT, shared.folder, target.prompt)
    vae = _published.component_hashes(shared, what=what, network=(), encoder="vae").encoder
    network = _published.component_hashes(
        target, what=what, network=("transformer",), encoder=None, prompt=prompt
    ).weights
    latents = f"{vae} {network} {target.dtype}" if recipe.geometry else str(vae)
    return Hashes(
        _cogvideox.mixed(f"{vae} {network}", recipe.name),
        _cogvideox.mixed(latents, recipe.latents_name),
    )


def adapt(card: BackboneCard, folder: Path, *, recipe: Recipe, source: Source) -> BackboneCard:
    """The card of the weights in a folder: sizes from their configurations.

    Raises:
        BackboneError: a part is missing or broken, or is of another model.
    """
    shared = _weights.shared_folder(source, folder)
    return _cogvideox.adapted(card, folder, shared, recipe=recipe, videos=3, rays=2 * RAYS)


def load(
    card: BackboneCard, target: Target, *, schedule: Schedule, recipe: Recipe, source: Source
) -> AetherBackbone:
    """VAE, transformer and the prompt's embedding.

    Raises:
        BackboneError: a part is missing, broken or of another structure.
    """
    from explorer.backbones import _aether

    found = hashes(target, recipe=recipe, source=source)
    shared = _weights.shared_folder(source, target.folder)
    text = _cogvideox.prompt(shared, target.prompt)
    return _aether.AetherBackbone(
        card,
        _cogvideox.FAMILY.load_vae(replace(target, weights=shared)),
        # Its positions stay as diffusers makes them, since it was trained with diffusers.
        _cogvideox.FAMILY.load_network(target, tables=True),
        weights_hash=found.weights,
        encoder_hash=found.encoder,
        schedule=schedule,
        prompt=text.to(target.device),
        recipe=recipe,
    )


def write_tiny(folder: Path) -> None:
    """Random weights of a tiny Aether, with the shared parts in the same folder."""
    _cogvideox.write_tiny(
        folder,
        in_channels=3 * 4 + 2 * RAYS,
        out_channels=2 * 4 + RAYS,
        use_rotary_positional_embeddings=True,
        use_learned_positional_embeddings=True,
    )
