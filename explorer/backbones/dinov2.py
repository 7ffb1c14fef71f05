"""DINOv2: self-supervised image encoders (Oquab et al., 2023), run on each frame alone.

The image baseline of the paper: what a single picture says, without motion. The last layer is the
final LayerNorm's output, which the paper probes; those before it are the blocks' outputs.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from explorer.backbones import _encoder_published
from explorer.backbones._encoder_published import WEIGHTS, NoNoise, Sizes, block_parameters
from explorer.backbones._options import Source, Target
from explorer.backbones.base import Backbone, BackboneCard
from explorer.backbones.registry import register

SCHEDULE = NoNoise()


def sizes(config: dict[str, Any]) -> Sizes:
    """Sizes of a Dinov2Model."""
    dim, patch, blocks = config["hidden_size"], config["patch_size"], config["num_hidden_layers"]
    gated = config.get("use_swiglu_ffn", False)
    hidden = int(dim * config["mlp_ratio"])
    if gated:
        hidden = (int(hidden * 2 / 3) + 7) // 8 * 8
    places = (config["image_size"] // patch) ** 2 + 1
    # class and mask token, patch embedding, positions, final norm
    around = 2 * dim + (3 * patch**2 + 1) * dim + places * dim + 2 * dim
    block = block_parameters(dim, hidden, scales=2, gated=gated)
    return Sizes(blocks, dim, patch, around + blocks * block)


FAMILY = _encoder_published.Family("dinov2", "facebook/dinov2-large", sizes)


def published(width: int, heads: int, blocks: int, *, gated: bool = False) -> dict[str, Any]:
    """What the published config.json says of sizes (from the model cards)."""
    return {
        "hidden_size": width,
        "num_attention_heads": heads,
        "num_hidden_layers": blocks,
        "mlp_ratio": 4,
        "use_swiglu_ffn": gated,
        "patch_size": 14,
        "image_size": 518,
    }


CONFIGS = {
    "dinov2-s": published(384, 6, 12),
    "dinov2-b": published(768, 12, 12),
    "dinov2-l": published(1024, 16, 24),
    "dinov2-g": published(1536, 24, 40, gated=True),
}

LARGE = BackboneCard(
    id="dinov2-l",
    title="DINOv2 ViT-L/14",
    kind="image encoder",
    licence="Apache-2.0",
    layers=25,
    width=1024,
    input_size=(420, 728),
    max_frames=150,
    frame_step=1,
    token_grid=(30, 52),
    default_cell=(24, 0.0),
    uses_sigma=False,
    parameters=sizes(CONFIGS["dinov2-l"]).parameters,
    # 8 frames of 1561 tokens at once, about a dozen tensors of them in one block
    working_bytes=350_000_000,
    note="The paper's image baseline: each frame alone, no motion.",
    # files are float32
    source=Source("facebook/dinov2-large", WEIGHTS, 1_217_000_000),
    taps=("block", "query", "key"),
    fit="stretch",
    official="Last hidden state after the final norm (here layer 24; 0 to 23 are the blocks).",
)


def variant(name: str, repo: str, title: str, *, note: str) -> BackboneCard:
    """The large model's card with another one's sizes."""
    found = sizes(CONFIGS[name])
    return replace(
        _encoder_published.resized(LARGE, found, layers=found.blocks + 1),
        id=name,
        title=title,
        note=note,
        source=Source(repo, WEIGHTS, 4 * found.parameters),
        official=(
            "Not in the paper, whose DINOv2 is the large one after the final norm "
            f"(here layer {found.blocks})."
        ),
    )


CARDS = (
    variant(
        "dinov2-s",
        "facebook/dinov2-small",
        "DINOv2 ViT-S/14",
        note="The smallest image encoder: runs well on a CPU.",
    ),
    variant(
        "dinov2-b",
        "facebook/dinov2-base",
        "DINOv2 ViT-B/14",
        note="An image encoder between the smallest and the paper's.",
    ),
    LARGE,
    variant(
        "dinov2-g",
        "facebook/dinov2-giant",
        "DINOv2 ViT-g/14",
        note="How far more parameters carry an image encoder that sees no motion.",
    ),
)


def write_tiny(folder: Any) -> None:
    """Random weights of a tiny DINOv2 in the published layout."""
    from explorer.backbones import _dino

    _dino.write_tiny_dinov2(folder)


def load(card: BackboneCard, target: Target) -> Backbone:
    """A DINOv2 from a folder in transformers' layout.

    Raises:
        BackboneError: transformers or a file is missing, too old, broken, or does not fit.
    """
    _encoder_published.need_transformers(card)
    from explorer.backbones import _dino

    return _dino.load_dinov2(card, target, FAMILY)


for _card in CARDS:
    register(_card, hashes=FAMILY.hashes, schedule=SCHEDULE, adapt=FAMILY.adapt, tiny=write_tiny)(
        load
    )
