"""Ridge files: weights as safetensors, and a JSON card that says what they were fitted to.

Files lie at `<root>/<backbone>/ridge_L<layer>_S<sigma>.safetensors` and `.json`, so that they may
share a folder with the cell's probe.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from explorer._atomic import replace_file
from explorer.errors import ProbeError
from explorer.probe.checkpoint import SIGMA_TOLERANCE, cell_name
from explorer.probe.moments import LinearFit
from explorer.probe.ridge import Ridge, RidgeCell

_FIT = ("mean", "scale", "weights", "bias")


@dataclass(frozen=True)
class RidgeCard:
    """What is known about one fitted ridge.

    Attributes:
        backbone, backbone_hash, layer, sigma: the cell, as in `explorer.probe.ridge.RidgeCell`.
        in_channels: channels that it reads, position channels included.
        position_frames, penalties, validation_r2, train_r2, tokens: as in
            `explorer.probe.ridge.Ridge`.
        clips: {"train", "validation"} numbers of clips.
        data: what it was fitted to: world, splits.
        metrics: held-out results at token resolution.
        sha256: of the weights file.
        weights: the weights file; not part of the JSON.
    """

    backbone: str
    backbone_hash: str
    layer: int
    sigma: float
    in_channels: int
    position_frames: int | None
    penalties: dict[str, float]
    validation_r2: dict[str, float]
    train_r2: dict[str, float]
    tokens: int
    clips: dict[str, int]
    data: dict[str, Any]
    metrics: dict[str, Any]
    sha256: str
    weights: Path = field(compare=False)

    def to_json(self) -> str:
        """The text of the card's file."""
        names = [each.name for each in dataclasses.fields(self) if each.name != "weights"]
        values = {name: getattr(self, name) for name in names}
        return json.dumps(values, indent=1, sort_keys=True) + "\n"


def ridge_path(root: Path, backbone: str, layer: int, sigma: float) -> Path:
    """The card's file of a cell."""
    return root / backbone / f"ridge_{cell_name(layer, sigma)}.json"


def read_ridge_card(path: Path) -> RidgeCard:
    """The card in a JSON file; the weights are expected beside it.

    Raises:
        ProbeError: the file is not a card.
    """
    try:
        return RidgeCard(**json.loads(path.read_text()), weights=path.with_suffix(".safetensors"))
    except (OSError, ValueError, TypeError) as error:
        raise ProbeError(
            f"{path} is not a ridge card ({error}): restore or remove this file"
        ) from error


def find_ridge(root: Path, backbone: str, layer: int, sigma: float) -> RidgeCard | None:
    """The card of one cell, or None where no ridge was fitted.

    Raises:
        ProbeError: the cell's file is not a card.
    """
    path = ridge_path(root, backbone, layer, sigma)
    if not path.is_file():
        return None
    card = read_ridge_card(path)
    return card if abs(card.sigma - sigma) < SIGMA_TOLERANCE else None


def load_ridge(card: RidgeCard, *, backbone_hash: str) -> Ridge:
    """The ridge of a card.

    Args:
        card: from `find_ridge` or `read_ridge_card`.
        backbone_hash: of the backbone that made the features to be read.

    Raises:
        ProbeError: the ridge was fitted to another backbone's features, or its file is missing,
            damaged, or does not fit the card.
    """
    if card.backbone_hash != backbone_hash:
        raise ProbeError(
            f"the ridge {card.weights.name} of {card.backbone} was fitted to other weights "
            f"({card.backbone_hash[:12]}) than the loaded backbone has ({backbone_hash[:12]}): "
            "restore those weights or fit again"
        )
    try:
        content = card.weights.read_bytes()
    except OSError as error:
        raise ProbeError(f"{card.weights} cannot be read ({error}): restore the file") from error
    if hashlib.sha256(content).hexdigest() != card.sha256:
        raise ProbeError(f"{card.weights} is not the file that its card describes: restore both")
    from safetensors.numpy import load

    arrays = load(content)
    shapes = {name: arrays[name].shape for name in _FIT if name in arrays}
    wide = card.in_channels
    expected = {"mean": (wide,), "scale": (wide,), "weights": (wide, 4), "bias": (4,)}
    if shapes != expected:
        raise ProbeError(f"{card.weights} does not fit its card: {shapes}, expected {expected}")
    return Ridge(
        cell=RidgeCell(card.backbone, card.backbone_hash, card.layer, card.sigma),
        fit=LinearFit(**{name: arrays[name].astype(np.float64) for name in _FIT}),
        position_frames=card.position_frames,
        penalties=card.penalties,
        validation_r2=card.validation_r2,
        train_r2=card.train_r2,
        tokens=card.tokens,
        clips=(card.clips["train"], card.clips["validation"]),
    )


def save_ridge(
    ridge: Ridge, root: Path, *, data: dict[str, Any], metrics: dict[str, Any]
) -> RidgeCard:
    """Write a ridge and its card; either file is the old or the new one at any time.

    Weights stay float64: they are small, and the features' channels may be nearly dependent.

    Args:
        ridge: from `fit_ridge`.
        root: folder with one folder per backbone; missing folders are made.
        data: what it was fitted to.
        metrics: held-out results.
    """
    from safetensors.numpy import save

    cell = ridge.cell
    content = save({name: np.ascontiguousarray(getattr(ridge.fit, name)) for name in _FIT})
    path = ridge_path(root, cell.backbone, cell.layer, cell.sigma)
    card = RidgeCard(
        **vars(cell),
        in_channels=len(ridge.fit.mean),
        position_frames=ridge.position_frames,
        penalties=ridge.penalties,
        validation_r2=ridge.validation_r2,
        train_r2=ridge.train_r2,
        tokens=ridge.tokens,
        clips={"train": ridge.clips[0], "validation": ridge.clips[1]},
        data=data,
        metrics=metrics,
        sha256=hashlib.sha256(content).hexdigest(),
        weights=path.with_suffix(".safetensors"),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(card.weights, content)
    replace_file(path, card.to_json().encode())
    return card
