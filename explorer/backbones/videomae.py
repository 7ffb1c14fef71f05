"""VideoMAE: a masked autoencoder of videos (Tong et al., 2022, arXiv 2203.12602).

Up to 16 frames at once, two to a token, 224x224 pixels: the centred square of a frame, as in its
own preprocessing. The last layer is the final LayerNorm's output. The decoder that the files also
hold is left out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from explorer.backbones import _encoder_published
from explorer.backbones._encoder_published import NoNoise, Sizes, block_parameters
from explorer.backbones._options import Source, Target
from explorer.backbones.base import Backbone, BackboneCard
from explorer.backbones.registry import register


def sizes(config: dict[str, Any]) -> Sizes:
    """Sizes of a VideoMAEModel with its final norm; queries and values have a bias."""
    dim, patch, blocks = config["hidden_size"], config["patch_size"], config["num_hidden_layers"]
    # embedding of boxes of pixels, final norm; positions are a fixed table
    around = (3 * config["tubelet_size"] * patch**2 + 1) * dim + 2 * dim
    block = block_parameters(dim, config["intermediate_size"], biases=2)
    frames, square = config["num_frames"], config["image_size"]
    return Sizes(blocks, dim, patch, around + blocks * block, square=square, frames=frames)


FAMILY = _encoder_published.Family("videomae", "MCG-NJU/videomae-large", sizes)
CONFIG = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_attention_heads": 16,
    "num_hidden_layers": 24,
    "patch_size": 16,
    "tubelet_size": 2,
    "num_frames": 16,
    "image_size": 224,
    "use_mean_pooling": False,
}
"""What the published config.json says of sizes (from the model card)."""


def write_tiny(folder: Path) -> None:
    """Random weights of a tiny VideoMAE in the published layout."""
    from explorer.backbones import _videomae

    _videomae.write_tiny(folder)


@register(
    BackboneCard(
        id="videomae-l",
        title="VideoMAE ViT-L/16",
        kind="video encoder",
        licence="CC BY-NC 4.0",
        layers=25,
        width=1024,
        input_size=(224, 224),
        max_frames=16,
        frame_step=1,
        token_grid=(14, 14),
        default_cell=(24, 0.0),
        uses_sigma=False,
        parameters=sizes(CONFIG).parameters,
        # 1,568 tokens, about a dozen tensors of them in one block
        working_bytes=60_000_000,
        note="A video encoder that learnt motion by filling in masked pixels.",
        # the pattern fits model.safetensors and pytorch_model.bin; float32, with a decoder of 12
        # blocks of width 512
        source=Source("MCG-NJU/videomae-large", ("config.json", "*model.*[sn]"), 1_370_000_000),
        taps=("block", "query", "key"),
        official=(
            "Not in the paper. Clips of an odd number of frames begin with frame 0 twice. Layer 24 "
            "is after the final norm."
        ),
    ),
    hashes=FAMILY.hashes,
    schedule=NoNoise(),
    adapt=FAMILY.adapt,
    tiny=write_tiny,
)
def load_large(card: BackboneCard, target: Target) -> Backbone:
    """A VideoMAE encoder from a folder in transformers' layout.

    Raises:
        BackboneError: transformers or a file is missing, too old, broken, or does not fit.
    """
    _encoder_published.need_transformers(card)
    from explorer.backbones import _videomae

    return _videomae.load(card, target, FAMILY)
