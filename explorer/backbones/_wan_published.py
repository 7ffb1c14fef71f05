"""Wan's published folders: card, hashes, loading, and a tiny folder of the same layout."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from explorer.backbones._options import Target
from explorer.backbones._parts import Family
from explorer.backbones._prompt_files import TextEncoder
from explorer.backbones.base import BackboneCard, Hashes
from explorer.errors import BackboneError

if TYPE_CHECKING:
    import torch

    from explorer.backbones._wan import WanBackbone
    from explorer.noise import Schedule

TEXT = TextEncoder("umt5-xxl", "Wan")
TEXT_TOKENS = 512
SECOND = "transformer_2"
"""Folder of the expert for little noise, where there are two."""
FAMILY = Family(
    what="a Wan repository in diffusers' format (transformer/, vae/)",
    network="WanTransformer3DModel",
    vae="AutoencoderKLWan",
    text=TEXT,
)


def hashes(target: Target, networks: tuple[str, ...] = ("transformer",)) -> Hashes:
    """Fingerprints of the networks, the VAE and where the prompt's embedding comes from."""
    return replace(FAMILY, parts=networks).hashes(target)


def adapt(
    card: BackboneCard,
    folder: Path,
    networks: tuple[str, ...] = ("transformer",),
    *,
    experts: bool = False,
) -> BackboneCard:
    """The card of the weights in a folder: sizes from their configurations.

    Args:
        card: of the published model.
        folder: with weights of it, or of another size.
        networks: those that are in memory together.
        experts: whether there are two transformers, of which one is in memory.

    Raises:
        BackboneError: a part is missing or broken, or is of another model of the family.
    """
    config, vae = FAMILY.config(folder, "transformer"), FAMILY.config(folder, "vae")
    frame_step, latents = vae.get("scale_factor_temporal", 4), vae.get("z_dim", 16)
    channels = 2 * latents + frame_step if "image_encoder" in networks else latents
    patch = config["patch_size"][1] * vae.get("scale_factor_spatial", 8)
    side = card.input_size[0] // card.token_grid[0]
    other = ""
    if config["in_channels"] != channels:
        other = f"its transformer takes {config['in_channels']} channels and is given {channels}"
    elif patch != side:
        other = f"its tokens are {patch} pixels wide and not {side}"
    elif (folder / SECOND).is_dir() and not experts:
        other = "it has two experts for two ranges of noise"
    if other:
        repo = card.source.repo if card.source else "another folder"
        raise BackboneError(f"{folder} holds another Wan than {card.id}, {other}: take {repo}")
    return FAMILY.adapt(
        card,
        folder,
        layers=config["num_layers"],
        width=config["num_attention_heads"] * config["attention_head_dim"],
        patch=patch,
        frame_step=frame_step,
        parts=networks,
    )


def load(
    card: BackboneCard,
    target: Target,
    *,
    schedule: Schedule,
    make: Callable[..., WanBackbone] | None = None,
    found: Hashes | None = None,
) -> WanBackbone:
    """VAE, transformer and the prompt's embedding.

    Args:
        card: of the folder's weights.
        target: with the folder.
        schedule: the model's noise.
        make: a class like `WanBackbone`, which is the default.
        found: its hashes; None are those of the files alone.

    Raises:
        BackboneError: a part is missing, broken or of another structure.
    """
    from explorer.backbones import _wan

    found, text = found or hashes(target), prompt(target.folder, target.prompt)
    return (make or _wan.WanBackbone)(
        card,
        load_vae(target),
        load_transformer(target),
        weights_hash=found.weights,
        encoder_hash=found.encoder,
        trained=True,
        schedule=schedule,
        prompt=text.to(target.device),
    )


def load_transformer(target: Target, part: str = "transformer") -> Any:
    """One transformer of a folder, on its device in its dtype."""
    return FAMILY.load_network(target, part, tables=True)


def load_vae(target: Target) -> Any:
    """The VAE of a folder, on its device in its own dtype."""
    from explorer.backbones import _wan_vae

    vae = FAMILY.load_vae(target)
    _wan_vae.quicken(vae)
    return vae


def prompt(folder: Path, text: str) -> torch.Tensor:
    """(1, 512, D) embedding of a prompt, zeros after its last token, as Wan's pipeline makes it.

    Raises:
        BackboneError: it is not known and cannot be made here.
    """
    from explorer.backbones import _prompt

    def compute() -> dict[str, torch.Tensor]:
        from explorer.backbones import _text_models

        found, mask = _text_models.embed(
            "UMT5EncoderModel",
            folder / "text_encoder",
            folder / "tokenizer",
            text,
            TEXT_TOKENS,
            masked=True,
        )
        return {"prompt": found.last_hidden_state * mask[..., None]}

    return _prompt.embeddings(TEXT, text, folder=folder, compute=compute)["prompt"]


def write_tiny(
    folder: Path,
    *,
    transformers: tuple[str, ...] = ("transformer",),
    vae: dict[str, Any] | None = None,
    **changes: Any,
) -> None:
    """Random weights of a tiny Wan in the published layout.

    Args:
        folder: gets the parts.
        transformers: parts that are transformers.
        vae: what its VAE has different from Wan 2.1's.
        changes: what its transformers have different.
    """
    import diffusers
    import torch

    from explorer.backbones import _tiny

    library: Any = diffusers
    generator = torch.Generator().manual_seed(0)
    encoder: dict[str, Any] = {
        "base_dim": 4,
        "z_dim": 4,
        "dim_mult": [1, 1, 2, 2],
        "num_res_blocks": 1,
        "latents_mean": [0.1, -0.2, 0.0, 0.3],
        "latents_std": [1.0, 0.8, 1.2, 0.9],
        **(vae or {}),
    }
    settings: dict[str, Any] = {
        "num_attention_heads": 2,
        "attention_head_dim": 12,
        "in_channels": 4,
        "out_channels": 4,
        "text_dim": 16,
        "freq_dim": 16,
        "ffn_dim": 48,
        "num_layers": 4,
        "rope_max_seq_len": 64,
        **changes,
    }
    models = {"vae": library.AutoencoderKLWan(**encoder)}
    models |= {name: library.WanTransformer3DModel(**settings) for name in transformers}
    _tiny.write_parts(folder, models, generator)
    embedding = torch.zeros(1, TEXT_TOKENS, settings["text_dim"])
    embedding[:, 0] = torch.randn(settings["text_dim"], generator=generator)
    _tiny.write_prompt(TEXT, folder, {"prompt": embedding})
