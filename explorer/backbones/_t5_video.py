"""Published folders of video transformers that read T5-XXL: what they have in common.

Needs no torch at import.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from explorer.backbones import _parts, _published
from explorer.backbones._options import Target
from explorer.backbones.base import BackboneCard, Hashes

if TYPE_CHECKING:
    import torch

BUFFERS = ("latents_mean", "latents_std")
"""Statistics beside the weights of a VAE: in its file, but no parameters."""


@dataclass(frozen=True)
class Family:
    """One family of models.

    Attributes:
        what: the repository, for messages.
        transformer: its class in diffusers.
        vae: its class in diffusers.
        text: name of its kind of embedding.
        text_tokens: length of a prompt.
        masks_padding: whether the text encoder is told which tokens are padding.
    """

    what: str
    transformer: str
    vae: str
    text: str
    text_tokens: int
    masks_padding: bool


def hashes(family: Family, target: Target) -> Hashes:
    """Fingerprints of transformer and VAE; the text encoder counts through the prompt."""
    return _published.component_hashes(
        target, what=family.what, network=("transformer",), encoder="vae"
    )


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
    config = _published.config_of(folder, "transformer", what=family.what)
    layers, width = config["num_layers"], config["num_attention_heads"]
    width *= config["attention_head_dim"]
    patch = config["patch_size"] * compression[1]
    rows, columns = (size // patch for size in card.input_size)
    weights = [
        path
        for part in ("transformer", "vae")
        for path in _parts.files(folder, part, what=family.what)[1:]
    ]
    return replace(
        card,
        layers=layers,
        width=width,
        token_grid=(rows, columns),
        frame_step=compression[0],
        working_bytes=card.working_bytes * width // card.width,
        parameters=_published.count_parameters(weights, unused=BUFFERS),
        default_cell=(min(card.default_cell[0], layers - 1), card.default_cell[1]),
    )


def load_transformer(family: Family, target: Target) -> Any:
    """The transformer of a folder, on its device in its dtype.

    Raises:
        BackboneError: it is missing, broken or of another structure.
    """
    return _parts.load_part(
        target,
        "transformer",
        family.transformer,
        what=family.what,
        dtype=target.dtype,
        offload=target.offload,
    )


def load_vae(family: Family, target: Target) -> Any:
    """The VAE of a folder.

    Raises:
        BackboneError: it is missing, broken or of another structure.
    """
    vae = _parts.load_part(target, "vae", family.vae, what=family.what, dtype=target.vae_dtype)
    if target.vae_tiling:
        vae.enable_tiling()
    return vae


def prompt(family: Family, folder: Path, text: str) -> dict[str, torch.Tensor]:
    """Embedding, "prompt" (1, L, D), and "mask" (1, L), one where a token is no padding.

    Raises:
        BackboneError: it is not known and cannot be made here.
    """
    from explorer.backbones import _prompt

    def compute() -> dict[str, torch.Tensor]:
        import torch

        _prompt.text_tools(folder, family.what)
        import transformers

        tokenizer = transformers.AutoTokenizer.from_pretrained(
            folder / "tokenizer", local_files_only=True
        )
        encoder = transformers.T5EncoderModel.from_pretrained(
            folder / "text_encoder", local_files_only=True, dtype=torch.bfloat16
        )
        words = tokenizer(
            [text],
            padding="max_length",
            max_length=family.text_tokens,
            truncation=True,
            add_special_tokens=True,
            return_attention_mask=True,
            return_tensors="pt",
        )
        seen = words.attention_mask if family.masks_padding else None
        with torch.inference_mode():
            hidden = encoder(words.input_ids, attention_mask=seen).last_hidden_state
        return {"prompt": hidden, "mask": words.attention_mask}

    return _prompt.embeddings(family.text, text, folder=folder, compute=compute)


def write_tiny(
    family: Family,
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
        folder: to write into.
        vae: settings of the VAE.
        transformer: settings of the transformer.
        text_width: channels of the empty prompt's embedding, which is written too.
        valid: its tokens that are no padding.
    """
    import diffusers
    import torch
    from safetensors.torch import save_file

    from explorer.backbones import _prompt, _tiny

    generator = torch.Generator().manual_seed(0)
    for part, class_name, settings in (
        ("vae", family.vae, vae),
        ("transformer", family.transformer, transformer),
    ):
        model = getattr(diffusers, class_name)(**settings)
        _tiny.randomize(model, generator)
        for name in BUFFERS:
            if name in dict(model.named_buffers()):
                getattr(model, name).uniform_(0.5, 1.5, generator=generator)
        model.save_pretrained(folder / part)
    (folder / "prompts").mkdir(parents=True)
    tokens = torch.randn(1, family.text_tokens, text_width, generator=generator)
    mask = torch.zeros(1, family.text_tokens)
    mask[:, list(valid)] = 1.0
    name = _prompt.prompt_file(family.text, "")
    save_file({"prompt": tokens, "mask": mask}, folder / "prompts" / name)
