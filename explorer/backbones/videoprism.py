"""VideoPrism: a video encoder taught by text and by itself (Zhao et al., 2024, arXiv 2402.13217).

Blocks within each frame, then four over time at each place; every frame keeps its own tokens. The
last layer is the final LayerNorm's output. Google's repositories hold the weights for JAX; those
for transformers lie in pull requests to them and are taken by commit, so that they cannot change.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from explorer.backbones import _encoder_published
from explorer.backbones._encoder_published import WEIGHTS, NoNoise, Sizes, block_parameters
from explorer.backbones._options import Source, Target
from explorer.backbones.base import Backbone, BackboneCard
from explorer.backbones.registry import register


def sizes(config: dict[str, Any]) -> Sizes:
    """Sizes of a VideoPrismVisionModel."""
    dim, frames, square = config["hidden_size"], config["num_frames"], config["image_size"]
    blocks = config["num_spatial_layers"] + config["num_temporal_layers"]
    _, patch, _ = config["tubelet_size"]
    # embedding of patches, tables of places and of times, two norms
    around = (3 * patch**2 + 1) * dim + ((square // patch) ** 2 + frames) * dim + 4 * dim
    block = block_parameters(dim, config["intermediate_size"])
    return Sizes(blocks, dim, patch, around + blocks * block, square=square, frames=frames)


FAMILY = _encoder_published.Family(
    "videoprism_vision_model", "google/videoprism-base-f16r288 at its pull request 4", sizes
)


def published(width: int, heads: int, spatial: int, *, frames: int) -> dict[str, Any]:
    """What the converted config.json says of sizes (from the library's converter)."""
    return {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_attention_heads": heads,
        "num_spatial_layers": spatial,
        "num_temporal_layers": 4,
        "num_frames": frames,
        "image_size": 288,
        "tubelet_size": [1, 18, 18],
    }


CONFIGS = {
    "videoprism-b": published(768, 12, 12, frames=16),
    "videoprism-l": published(1024, 16, 24, frames=8),
}


def make_card(name: str, repo: str, revision: str, title: str, *, note: str) -> BackboneCard:
    """One published size."""
    config = CONFIGS[name]
    found = sizes(config)
    tokens, heads = config["num_frames"] * 16 * 16, config["num_attention_heads"]
    return BackboneCard(
        id=name,
        title=title,
        kind="video encoder",
        licence="Apache-2.0",
        layers=found.blocks + 1,
        width=found.width,
        input_size=(288, 288),
        max_frames=config["num_frames"],
        frame_step=1,
        token_grid=(16, 16),
        default_cell=(found.blocks, 0.0),
        uses_sigma=False,
        parameters=found.parameters,
        # 14 tensors of tokens; weights of attention within frames, three times, in float32
        working_bytes=tokens * (14 * 2 * found.width + 3 * 4 * heads * 16 * 16),
        note=note,
        # files are float32
        source=Source(repo, WEIGHTS, 4 * found.parameters, revision=revision),
        taps=("block", "query", "key"),
        fit="stretch",
        official=(
            f"Not in the paper. Layers 0 to {found.blocks - 5} see each frame alone, the next four "
            f"each place over time; layer {found.blocks} is after the final norm. Tables of times "
            "are interpolated for shorter clips, as its authors do."
        ),
    )


CARDS = (
    make_card(
        "videoprism-b",
        "google/videoprism-base-f16r288",
        "2be2ef51d0d611d0fadf21a6d1470a4ad4af9249",
        "VideoPrism ViT-B/18, 288 px",
        note="A video encoder taught by captions first and by masked video after that.",
    ),
    make_card(
        "videoprism-l",
        "google/videoprism-large-f8r288",
        "2e20e540e1cb89e734e2f2477590b7f8197250ca",
        "VideoPrism ViT-L/18, 288 px",
        note="VideoPrism at the size of the other large encoders, on clips of eight frames.",
    ),
)


def write_tiny(folder: Path) -> None:
    """Random weights of a tiny VideoPrism in the published layout."""
    from explorer.backbones import _videoprism

    _videoprism.write_tiny(folder)


def load(card: BackboneCard, target: Target) -> Backbone:
    """A VideoPrism encoder from a folder in transformers' layout.

    Raises:
        BackboneError: transformers or a file is missing, too old, broken, or does not fit.
    """
    _encoder_published.need_transformers(card)
    from explorer.backbones import _videoprism

    return _videoprism.load(card, target, FAMILY)


for _card in CARDS:
    register(_card, hashes=FAMILY.hashes, schedule=NoNoise(), adapt=FAMILY.adapt, tiny=write_tiny)(
        load
    )
