"""V-JEPA 1: a self-supervised video encoder (Bardes et al., 2024, arXiv 2404.08471).

Clips of 16 frames, the first frame of each always frame 0, the others interleaved; two frames
share a token. Features are the last block's output without the final norm, as in the paper.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from explorer.backbones import _published
from explorer.backbones._encoder_published import NoNoise
from explorer.backbones._options import Source, Target
from explorer.backbones.base import BackboneCard, Hashes
from explorer.backbones.registry import register
from explorer.errors import BackboneError

if TYPE_CHECKING:
    from explorer.backbones._vjepa1 import Vjepa1Backbone

URL = "https://dl.fbaipublicfiles.com/jepa/vith16-384/vith16-384.pth.tar"
FILE = "vith16-384.pth.tar"
CLIP = 16
"""Frames that the network sees at once: frame 0 and 15 others."""


def weights_file(folder: Path) -> Path:
    """The one file of the released model.

    Raises:
        BackboneError: there is none, or more than one to choose from.
    """
    found = sorted(folder.glob("*.pth.tar"))
    if len(found) != 1:
        have = "no" if not found else "more than one"
        raise BackboneError(f"{folder} has {have} .pth.tar file: it needs {FILE} alone, from {URL}")
    return found[0]


def hashes(target: Target) -> Hashes:
    """Fingerprint of the file."""
    return Hashes(_published.files_hash(target.folder, [weights_file(target.folder)]), None)


def adapt(card: BackboneCard, folder: Path) -> BackboneCard:
    """The card of the file in a folder: sizes from its tensors' shapes."""
    from explorer.backbones import _vjepa1

    return _vjepa1.adapt(card, weights_file(folder))


def write_tiny(folder: Path) -> None:
    """Random weights of a tiny V-JEPA 1 in a file like the released one."""
    from explorer.backbones import _vjepa1

    _vjepa1.write_tiny(folder / FILE)


@register(
    BackboneCard(
        id="vjepa1-h",
        title="V-JEPA ViT-H/16, 384 px",
        kind="video encoder",
        licence="CC BY-NC 4.0",
        layers=32,
        width=1280,
        input_size=(480, 832),
        max_frames=76,
        frame_step=15,
        token_grid=(30, 52),
        default_cell=(31, 0.0),
        uses_sigma=False,
        # with the table of positions, which the file holds
        parameters=637_546_240,
        # 12,480 tokens, about 16 tensors of them in one block (32 MB each, four times in the MLP)
        working_bytes=600_000_000,
        note="The paper's self-supervised video encoder: motion, but nothing to generate.",
        # estimated: the file also has the target encoder, the predictor and the optimiser's state
        source=Source(URL, (FILE,), 10_400_000_000),
        taps=("block", "query", "key"),
        fit="stretch",
        official=(
            "Always 76 frames: 5 interleaved clips [0] + [i + 5k]; here n clips of 1 + 15 n "
            "frames. Last block without the final norm, as here; slots are listed by time."
        ),
    ),
    hashes=hashes,
    schedule=NoNoise(),
    adapt=adapt,
    tiny=write_tiny,
)
def load_huge(card: BackboneCard, target: Target) -> Vjepa1Backbone:
    """The encoder out of the released file."""
    from explorer.backbones import _vjepa1

    return _vjepa1.load(
        card, target, weights_file(target.folder), weights_hash=hashes(target).weights
    )
