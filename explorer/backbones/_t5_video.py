"""Video transformers that read T5-XXL: what LTX-Video and Mochi have in common.

Needs no torch at import.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from explorer.backbones._parts import Family
from explorer.backbones._prompt_files import TextEncoder
from explorer.backbones.base import BackboneCard

if TYPE_CHECKING:
    import torch

BUFFERS = ("latents_mean", "latents_std")


@dataclass(frozen=True)
class T5(TextEncoder):
    """How T5 is asked.

    Attributes:
        tokens: length of a prompt.
        masks_padding: whether it is told which tokens are padding.
    """

    tokens: int = 0
    masks_padding: bool = False


def adapt(
    family: Family, card: BackboneCard, folder: Path, *, compression: tuple[int, int]
) -> BackboneCard:
    """The card of the weights in a folder.

    Args:
        family: of the card.
        card: of the released weights.
        folder: with transformer and VAE.
        compression: frames and pixels (each way) for one latent.

    Raises:
        BackboneError: a part is missing or broken.
    """
    config = family.config(folder, "transformer")
    return family.adapt(
        card,
        folder,
        layers=config["num_layers"],
        width=config["num_attention_heads"] * config["attention_head_dim"],
        patch=config["patch_size"] * compression[1],
        frame_step=compression[0],
    )


def prompt(encoder: T5, folder: Path, text: str) -> dict[str, torch.Tensor]:
    """Embedding, "prompt" (1, L, D), and "mask" (1, L), one where a token is no padding.

    Raises:
        BackboneError: it is not known and cannot be made here.
    """
    from explorer.backbones import _prompt

    def compute() -> dict[str, torch.Tensor]:
        from explorer.backbones import _text_models

        found, mask = _text_models.embed(
            "T5EncoderModel",
            folder / "text_encoder",
            folder / "tokenizer",
            text,
            encoder.tokens,
            masked=encoder.masks_padding,
        )
        return {"prompt": found.last_hidden_state, "mask": mask}

    return _prompt.embeddings(encoder, text, folder=folder, compute=compute)


def write_tiny(
    family: Family,
    encoder: T5,
    folder: Path,
    *,
    vae: dict[str, Any],
    transformer: dict[str, Any],
    text_width: int,
    valid: Sequence[int],
) -> None:
    """Random weights of a tiny model in the published layout.

    Args:
        family: whose layout.
        encoder: whose embedding of the empty prompt is written too.
        folder: to write into.
        vae: settings of the VAE.
        transformer: settings of the transformer.
        text_width: channels of the embedding.
        valid: its tokens that are no padding.
    """
    import diffusers
    import torch

    from explorer.backbones import _tiny

    generator = torch.Generator().manual_seed(0)
    models = {
        "vae": getattr(diffusers, family.vae)(**vae),
        "transformer": getattr(diffusers, family.network)(**transformer),
    }
    for name, buffer in models["vae"].named_buffers():
        if name in BUFFERS:
            buffer.uniform_(0.5, 1.5, generator=generator)
    _tiny.write_parts(folder, models, generator)
    tokens = torch.randn(1, encoder.tokens, text_width, generator=generator)
    mask = torch.zeros(1, encoder.tokens)
    mask[:, list(valid)] = 1.0
    _tiny.write_prompt(encoder, folder, {"prompt": tokens, "mask": mask})
