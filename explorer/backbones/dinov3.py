"""DINOv3: self-supervised image encoders (Simeoni et al., 2025), run on each frame alone.

The last layer is the final LayerNorm's output; those before it are the blocks' outputs. Class and
register tokens are left out.
"""

from __future__ import annotations

from typing import Any

from explorer.backbones import _encoder_published
from explorer.backbones._encoder_published import WEIGHTS, NoNoise, Sizes, block_parameters
from explorer.backbones._options import Source, Target
from explorer.backbones.base import Backbone, BackboneCard
from explorer.backbones.registry import register

SCHEDULE = NoNoise()


def sizes(config: dict[str, Any]) -> Sizes:
    """Sizes of a DINOv3ViTModel whose queries and values, not keys, have a bias."""
    dim, patch, blocks = config["hidden_size"], config["patch_size"], config["num_hidden_layers"]
    # class, mask and register tokens, patch embedding, final norm; positions are rotations
    around = (2 + config["num_register_tokens"]) * dim + (3 * patch**2 + 1) * dim + 2 * dim
    biases = sum(config.get(f"{name}_bias", name != "key") for name in ("query", "key", "value"))
    gated = config.get("use_gated_mlp", False)
    block = block_parameters(dim, config["intermediate_size"], biases=biases, scales=2, gated=gated)
    return Sizes(blocks, dim, patch, around + blocks * block)


FAMILY = _encoder_published.Family("dinov3_vit", "facebook/dinov3-vitl16-pretrain-lvd1689m", sizes)


def published(width: int, heads: int, blocks: int) -> dict[str, Any]:
    """What the published config.json says of sizes (from the model cards)."""
    return {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_attention_heads": heads,
        "num_hidden_layers": blocks,
        "num_register_tokens": 4,
        "patch_size": 16,
        "image_size": 224,
    }


CONFIGS = {
    "dinov3-s": published(384, 6, 12),
    "dinov3-b": published(768, 12, 12),
    "dinov3-l": published(1024, 16, 24),
}


def make_card(name: str, *, note: str) -> BackboneCard:
    """One published size."""
    found = sizes(CONFIGS[name])
    letter = name[-1]
    return BackboneCard(
        id=name,
        title=f"DINOv3 ViT-{letter.upper()}/16",
        kind="image encoder",
        licence="DINOv3 License",
        layers=found.blocks + 1,
        width=found.width,
        input_size=(480, 832),
        max_frames=150,
        frame_step=1,
        token_grid=(30, 52),
        default_cell=(found.blocks, 0.0),
        uses_sigma=False,
        parameters=found.parameters,
        # 8 frames of 1565 tokens at once, about a dozen tensors of them in one block
        working_bytes=350_000 * found.width,
        note=note,
        # files are float32
        source=Source(
            f"facebook/dinov3-vit{letter}16-pretrain-lvd1689m",
            WEIGHTS,
            4 * found.parameters,
            gated=True,
        ),
        taps=("block", "query", "key"),
        fit="stretch",
        official=f"Not in the paper; layer {found.blocks} is after the final norm, as for DINOv2.",
    )


CARDS = (
    make_card("dinov3-s", note="DINOv3's smallest distilled image encoder."),
    make_card("dinov3-b", note="DINOv3's image encoder of the base size."),
    make_card(
        "dinov3-l",
        note="The successor of the paper's image baseline, made for dense features.",
    ),
)


def write_tiny(folder: Any) -> None:
    """Random weights of a tiny DINOv3 in the published layout."""
    from explorer.backbones import _dino

    _dino.write_tiny_dinov3(folder)


def load(card: BackboneCard, target: Target) -> Backbone:
    """A DINOv3 from a folder in transformers' layout.

    Raises:
        BackboneError: transformers or a file is missing, too old, broken, or does not fit.
    """
    _encoder_published.need_transformers(card)
    from explorer.backbones import _dino

    return _dino.load_dinov3(card, target, FAMILY)


for _card in CARDS:
    register(_card, hashes=FAMILY.hashes, schedule=SCHEDULE, adapt=FAMILY.adapt, tiny=write_tiny)(
        load
    )
