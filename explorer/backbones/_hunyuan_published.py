"""HunyuanVideo's published folder: card, hashes, loading, and a tiny folder of the same layout.

`load` and `sizes` serve version 1.5 as well.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from explorer.backbones._options import Target
from explorer.backbones._parts import Family
from explorer.backbones._prompt_files import TextEncoder
from explorer.backbones.base import BackboneCard, Hashes
from explorer.errors import BackboneError

if TYPE_CHECKING:
    import torch

    from explorer.backbones._hunyuan import HunyuanBackbone
    from explorer.noise import Schedule

REPOSITORY = "hunyuanvideo-community/HunyuanVideo"
TEXT_TOKENS = 256
CLIP_TOKENS = 77
TEXT = TextEncoder(
    f"llava-llama-3-8b-{TEXT_TOKENS}-clip-l",
    REPOSITORY,
    ("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"),
)
FAMILY = Family(
    what=f"{REPOSITORY} (transformer/, vae/)",
    network="HunyuanVideoTransformer3DModel",
    vae="AutoencoderKLHunyuanVideo",
    text=TEXT,
)
# What the text encoder is asked, as the model was trained; its first tokens are dropped again.
TEMPLATE = (
    "<|start_header_id|>system<|end_header_id|>\n\n"
    "Describe the video by detailing the following aspects: "
    "1. The main content and theme of the video."
    "2. The color, shape, size, texture, quantity, text, and spatial relationships of the objects."
    "3. Actions, events, behaviors temporal relationships, physical movement changes of the "
    "objects."
    "4. background environment, light, style and atmosphere."
    "5. camera angles, movements, and transitions used in the video:<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\n{}<|eot_id|>"
)
TEMPLATE_TOKENS = 95
HIDDEN_STATE = -3


def adapt(card: BackboneCard, folder: Path) -> BackboneCard:
    """The card of the weights in a folder: sizes from their configurations.

    Raises:
        BackboneError: a part is missing or broken, or the model needs an image.
    """
    config = FAMILY.config(folder, "transformer")
    if config.get("image_condition_type") is not None:
        raise BackboneError(
            f"{folder} holds an image-to-video model; {card.id} is text to video: take {REPOSITORY}"
        )
    layers = config["num_layers"] + config["num_single_layers"]
    return sized(FAMILY, card, folder, layers=layers, shrinks=8)


def sized(
    family: Family, card: BackboneCard, folder: Path, *, layers: int, shrinks: int
) -> BackboneCard:
    """The card of the weights in a folder.

    Args:
        family: of the card.
        card: of the published weights.
        folder: with transformer and VAE.
        layers: number of blocks.
        shrinks: pixels in a latent, each way, where the VAE's configuration does not say.

    Raises:
        BackboneError: a part is missing or broken.
    """
    config, vae = family.config(folder, "transformer"), family.config(folder, "vae")
    return family.adapt(
        card,
        folder,
        layers=layers,
        width=config["num_attention_heads"] * config["attention_head_dim"],
        patch=config["patch_size"] * vae.get("spatial_compression_ratio", shrinks),
        frame_step=vae.get("temporal_compression_ratio", 4),
    )


def load(card: BackboneCard, target: Target, *, schedule: Schedule) -> HunyuanBackbone:
    """VAE, transformer and the prompt's embeddings.

    Raises:
        BackboneError: a part is missing, broken or of another structure.
    """
    from explorer.backbones import _hunyuan

    return assemble(
        FAMILY,
        card,
        target,
        make=_hunyuan.HunyuanBackbone,
        found=FAMILY.hashes(target),
        schedule=schedule,
        texts=prompt(target.folder, target.prompt),
    )


def assemble(
    family: Family,
    card: BackboneCard,
    target: Target,
    *,
    make: Callable[..., HunyuanBackbone],
    found: Hashes,
    schedule: Schedule,
    texts: dict[str, torch.Tensor],
) -> HunyuanBackbone:
    """A backbone of one version out of its parts.

    Raises:
        BackboneError: a part is missing, broken or of another structure.
    """
    from explorer.backbones import _hunyuan_vae

    settings, files = family.config(target.folder, "vae"), family.files(target.folder, "vae")[1:]
    return make(
        card,
        _hunyuan_vae.load_vae(target, files, settings, family.vae),
        family.load_network(target),
        weights_hash=found.weights,
        encoder_hash=found.encoder,
        schedule=schedule,
        prompt={name: text.to(target.device) for name, text in texts.items()},
    )


def prompt(folder: Path, text: str) -> dict[str, torch.Tensor]:
    """`text` (1, 256, D) Llama states, `mask` (1, 256) of them, `pooled` (1, V) of CLIP.

    Raises:
        BackboneError: they are not known and cannot be made here.
    """
    from explorer.backbones import _prompt

    def compute() -> dict[str, torch.Tensor]:
        from explorer.backbones import _text_models

        states, mask = _text_models.embed(
            "LlamaModel",
            folder / "text_encoder",
            folder / "tokenizer",
            TEMPLATE.format(text),
            TEMPLATE_TOKENS + TEXT_TOKENS,
            dtype="float16",
            masked=True,
            every_layer=True,
        )
        pooled, _ = _text_models.embed(
            "CLIPTextModel",
            folder / "text_encoder_2",
            folder / "tokenizer_2",
            text,
            CLIP_TOKENS,
            dtype="float16",
        )
        return {
            "text": states.hidden_states[HIDDEN_STATE][:, TEMPLATE_TOKENS:],
            "mask": mask[:, TEMPLATE_TOKENS:],
            "pooled": pooled.pooler_output,
        }

    return _prompt.embeddings(TEXT, text, folder=folder, compute=compute)


def write_tiny(folder: Path, **changes: Any) -> None:
    """Random weights of a tiny model in the published layout; `changes` go to the transformer."""
    import diffusers
    import torch

    from explorer.backbones import _hunyuan_vae, _tiny

    generator = torch.Generator().manual_seed(0)
    library: Any = diffusers
    channels = _hunyuan_vae.TINY["latent_channels"]
    settings: dict[str, Any] = {
        "in_channels": channels,
        "out_channels": channels,
        "num_attention_heads": 2,
        "attention_head_dim": 12,
        "num_layers": 2,
        "num_single_layers": 3,
        "num_refiner_layers": 1,
        "mlp_ratio": 2.0,
        "text_embed_dim": 16,
        "pooled_projection_dim": 8,
        "rope_axes_dim": (4, 4, 4),
        **changes,
    }
    models = {
        "vae": _hunyuan_vae.make(_hunyuan_vae.TINY),
        "transformer": library.HunyuanVideoTransformer3DModel(**settings),
    }
    _tiny.write_parts(folder, models, generator)
    texts = {
        "text": torch.randn(1, TEXT_TOKENS, settings["text_embed_dim"], generator=generator),
        "mask": (torch.arange(TEXT_TOKENS) < 3).float()[None],
        "pooled": torch.randn(1, settings["pooled_projection_dim"], generator=generator),
    }
    _tiny.write_prompt(TEXT, folder, texts)
