"""What the published encoders share: hashes, cards by their configuration, no noise. No torch."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from explorer.backbones import _cards, _published
from explorer.backbones._options import Target
from explorer.backbones.base import BackboneCard, Hashes
from explorer.errors import BackboneError
from explorer.noise import NoiseLevel

WEIGHTS = ("config.json", "*.safetensors")
TRANSFORMERS = (5, 23)
"""Older releases name the modules of these networks in other ways."""
LAST = 999


@dataclass(frozen=True)
class NoNoise:
    """The schedule of models that see frames as they are: one level, without noise."""

    def at_index(self, index: int) -> NoiseLevel:
        """The only level, whatever the index."""
        return NoiseLevel(0.0, 0.0, LAST, 1.0, 0.0)

    def at_sigma(self, sigma: float) -> NoiseLevel:
        """The only level, whatever sigma."""
        return self.at_index(LAST)


@dataclass(frozen=True)
class Sizes:
    """What a card says of a network's size.

    Attributes:
        blocks: number of blocks.
        width: channels of a token.
        patch: side of a patch in pixels.
        parameters: number of weights that are loaded.
        square: side of the only input size of the network; None where any size will do.
        frames: most frames in one pass; None where the card decides.
    """

    blocks: int
    width: int
    patch: int
    parameters: int
    square: int | None = None
    frames: int | None = None


@dataclass(frozen=True)
class Family:
    """Encoders of one `model_type` of transformers.

    Attributes:
        model_type: what config.json says.
        what: a repository of this layout, for messages.
        sizes: configuration to sizes.
    """

    model_type: str
    what: str
    sizes: Callable[[dict[str, Any]], Sizes]

    def hashes(self, target: Target) -> Hashes:
        """Fingerprints of configuration and weights."""
        return _published.component_hashes(target, what=self.what, network=("",), encoder=None)

    def settings(self, folder: Path) -> dict[str, Any]:
        """The configuration in a folder.

        Raises:
            BackboneError: it is missing, broken, or of another kind of model.
        """
        settings = _published.config_of(folder, "", what=self.what)
        found = settings.get("model_type")
        if found != self.model_type:
            raise BackboneError(
                f"{folder / 'config.json'} is of a model of type {found!r}, not "
                f"{self.model_type!r}: --weights needs a folder laid out like {self.what}"
            )
        return settings

    def adapt(self, card: BackboneCard, folder: Path) -> BackboneCard:
        """The card of the weights in a folder: sizes from their configuration.

        Raises:
            BackboneError: the configuration is missing, broken or of another kind of model.
            KeyError, TypeError, ValueError: it is incomplete.
        """
        sizes = self.sizes(self.settings(folder))
        return resized(card, sizes, layers=sizes.blocks + 1)


def resized(card: BackboneCard, sizes: Sizes, *, layers: int) -> BackboneCard:
    """A card for a network of other sizes; its default cell stays the last layer."""
    square = None if sizes.square is None else (sizes.square, sizes.square)
    return _cards.resized(
        card,
        layers=layers,
        width=sizes.width,
        parameters=sizes.parameters,
        patch=sizes.patch,
        input_size=square,
        max_frames=sizes.frames,
        default_layer=layers - 1,
    )


def block_parameters(
    dim: int, hidden: int, *, biases: int = 3, scales: int = 0, gated: bool = False
) -> int:
    """Weights of one pre-norm transformer block.

    Args:
        dim: width of a token.
        hidden: hidden width of the MLP.
        biases: how many of query, key and value have a bias.
        scales: LayerScale vectors.
        gated: whether the MLP is a SwiGLU.
    """
    attention = 4 * dim * dim + (biases + 1) * dim
    branches = 2 if gated else 1
    mlp = (branches + 1) * dim * hidden + branches * hidden + dim
    return attention + mlp + (4 + scales) * dim


def need_transformers(card: BackboneCard) -> None:
    """Refuse to go on without a release of transformers that has the network.

    Raises:
        BackboneError: transformers is not installed, or is too old.
    """
    wanted = ".".join(map(str, TRANSFORMERS))
    try:
        found = metadata.version("transformers")
    except metadata.PackageNotFoundError:
        found = "none"
    if tuple(map(int, re.findall(r"\d+", found)[:2])) < TRANSFORMERS:
        raise BackboneError(
            f"{card.id} needs transformers {wanted} or later, and there is {found} here: "
            "pip install 'emerge3d[backbones]'"
        )
