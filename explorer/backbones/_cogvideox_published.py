"""CogVideoX's published folders: card, hashes, loading, and a tiny folder of the same layout."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from explorer.backbones import _cards, _t5_video
from explorer.backbones._cogvideox_frames import Recipe
from explorer.backbones._options import Target
from explorer.backbones._parts import Family
from explorer.backbones.base import BackboneCard, Hashes
from explorer.errors import BackboneError

if TYPE_CHECKING:
    import torch

    from explorer.backbones._cogvideox import CogVideoXBackbone
    from explorer.noise import Schedule

TEXT = _t5_video.T5("t5-xxl-226", "CogVideoX", tokens=226)
FAMILY = Family(
    what="a CogVideoX repository in diffusers' format (transformer/, vae/)",
    network="CogVideoXTransformer3DModel",
    vae="AutoencoderKLCogVideoX",
    text=TEXT,
)


def hashes(target: Target, *, recipe: Recipe) -> Hashes:
    """Fingerprints of transformer, VAE and where the prompt's embedding comes from."""
    found = FAMILY.hashes(target)
    return Hashes(mixed(found.weights, recipe.name), mixed(str(found.encoder), recipe.latents_name))


def mixed(digest: str, text: str) -> str:
    """A hash that also depends on how a model is used."""
    return hashlib.sha256(f"{digest} {text}".encode()).hexdigest()


def adapt(card: BackboneCard, folder: Path, *, recipe: Recipe, rotary: bool) -> BackboneCard:
    """The card of the weights in a folder: sizes from their configurations.

    Raises:
        BackboneError: a part is missing or broken, or is of another model of the series.
    """
    videos = 1 + recipe.first_frame
    return adapted(card, folder, folder, recipe=recipe, videos=videos, rotary=rotary)


def adapted(
    card: BackboneCard,
    folder: Path,
    shared: Path,
    *,
    recipe: Recipe,
    videos: int,
    rays: int = 0,
    rotary: bool = True,
) -> BackboneCard:
    """The card of a transformer in one folder and a VAE in another.

    Args:
        card: of the published size.
        folder: holds the transformer.
        shared: holds the VAE.
        recipe: how the model is shown a clip.
        videos: how many videos the transformer takes, noisy ones and conditions.
        rays: further channels that it takes.
        rotary: whether its positions are rotations, as in all but the 2B, which has other noise.

    Raises:
        BackboneError: a part is missing or broken, or is of another model of the series.
    """
    config, vae = FAMILY.config(folder, "transformer"), FAMILY.config(shared, "vae")
    if config.get("patch_size_t") is not None:
        raise BackboneError(
            f"{folder} holds a CogVideoX 1.5, whose tokens span two latent frames: {card.id} takes "
            f"the models of the first series, {card.source.repo if card.source else ''}"
        )
    expected = videos * vae["latent_channels"] + rays
    if config["in_channels"] != expected:
        raise BackboneError(
            f"the transformer in {folder} takes {config['in_channels']} channels; {card.id} gives "
            f"{expected}: models from text take 16, from a first frame 32, Aether 96"
        )
    if config.get("use_rotary_positional_embeddings", False) != rotary:
        raise BackboneError(
            f"{folder} holds {'the 2B' if rotary else 'a 5B'}, which has other noise levels than "
            f"{card.id}: take {card.source.repo if card.source else 'another folder'}"
        )
    scale = 2 ** (len(vae["block_out_channels"]) - 1)
    size = config["sample_height"], config["sample_width"]
    vae_parameters = FAMILY.count(shared, "vae")
    return _cards.resized(
        card,
        layers=config["num_layers"],
        width=config["num_attention_heads"] * config["attention_head_dim"],
        parameters=FAMILY.count(folder, "transformer") + vae_parameters,
        vae_parameters=vae_parameters,
        input_size=(size[0] * scale, size[1] * scale),
        patch=scale * config["patch_size"],
        frame_step=recipe.frame_step,
    )


def load(
    card: BackboneCard, target: Target, *, schedule: Schedule, recipe: Recipe
) -> CogVideoXBackbone:
    """VAE, transformer and the prompt's embedding.

    Raises:
        BackboneError: a part is missing, broken or of another structure.
    """
    from explorer.backbones import _cogvideox

    found, text = hashes(target, recipe=recipe), prompt(target.folder, target.prompt)
    transformer = FAMILY.load_network(target, tables=True)
    if transformer.config.use_learned_positional_embeddings:
        _cogvideox.read_learned_positions(transformer)
    return _cogvideox.CogVideoXBackbone(
        card,
        FAMILY.load_vae(target),
        transformer,
        weights_hash=found.weights,
        encoder_hash=found.encoder,
        schedule=schedule,
        prompt=text.to(target.device),
        recipe=recipe,
    )


def prompt(folder: Path, text: str) -> torch.Tensor:
    """(1, 226, D) embedding of a prompt, padding included, as CogVideoX's pipeline makes it.

    Raises:
        BackboneError: it is not known and cannot be made here.
    """
    return _t5_video.prompt(TEXT, folder, text)["prompt"]


def write_tiny(folder: Path, **changes: Any) -> None:
    """Random weights of a tiny CogVideoX in the published layout.

    `changes` go into the transformer's configuration.
    """
    import diffusers
    import torch

    from explorer.backbones import _tiny

    library: Any = diffusers
    generator = torch.Generator().manual_seed(0)
    vae = library.AutoencoderKLCogVideoX(
        block_out_channels=(4, 4, 8, 8),
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=2,
        # Tiles of 48 and 40 pixels, whose overlaps are whole latents.
        sample_height=96,
        sample_width=80,
        scaling_factor=0.7,
    )
    settings: dict[str, Any] = {
        "num_attention_heads": 2,
        "attention_head_dim": 16,
        "in_channels": 4,
        "out_channels": 4,
        "time_embed_dim": 8,
        "text_embed_dim": 16,
        "num_layers": 4,
        "sample_height": 8,
        "sample_width": 12,
        **changes,
    }
    transformer = library.CogVideoXTransformer3DModel(**settings)
    _tiny.write_parts(folder, {"vae": vae, "transformer": transformer}, generator)
    if settings.get("use_learned_positional_embeddings"):
        transformer.patch_embed.pos_embedding.normal_(generator=generator)
        transformer.save_pretrained(folder / "transformer")
    embedding = torch.randn(1, TEXT.tokens, settings["text_embed_dim"], generator=generator)
    _tiny.write_prompt(TEXT, folder, {"prompt": embedding})
