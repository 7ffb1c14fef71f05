"""Probe files: weights as safetensors, and a JSON card that says what they were trained on.

A card can be read without torch, so that the page lists the trained cells before anything heavy is
imported. Files lie at `probes/<backbone>/L<layer>_S<sigma>.safetensors` and `.json`; probes of
the same cell from further seeds at `probes/<backbone>/seeds/L<layer>_S<sigma>_<seed>`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from explorer._atomic import replace_file
from explorer.assets import assets_root
from explorer.data.splits import check_reference
from explorer.errors import ProbeError, SplitError

if TYPE_CHECKING:
    from explorer.probe.model import Probe

SIGMA_TOLERANCE = 0.005
"""File names hold two decimals of sigma."""

SEEDS = "seeds"
"""The folder of a backbone's probes that repeat a cell with another seed."""

Storage = Literal["float32", "float16", "int8"]


@dataclass(frozen=True)
class ProbeCard:
    """What is known about one trained probe.

    Attributes:
        backbone: registry id of the backbone whose features it reads.
        backbone_hash: sha256 over that backbone's weights and configuration.
        layer: 0-based block output that it reads.
        sigma: fraction of noise that it was trained at.
        in_channels: channels of the features.
        config: fields of its `ProbeConfig`.
        data: what it was trained on: world, splits, number of clips. Where it was trained on
            prepared data, `split` holds {"name", "sha256"} of the split file, see
            `explorer.data.splits`.
        steps: optimiser steps.
        seconds: training time.
        metrics: held-out results, a number or {"mean", "low", "high"} each.
        sha256: of the weights file.
        trained: False for weights as initialised.
        weights: the weights file; not part of the JSON.
    """

    backbone: str
    backbone_hash: str
    layer: int
    sigma: float
    in_channels: int
    config: dict[str, Any]
    data: dict[str, Any]
    steps: int
    seconds: float
    metrics: dict[str, Any]
    sha256: str
    trained: bool
    weights: Path = field(compare=False)

    @property
    def split(self) -> dict[str, str] | None:
        """{"name", "sha256"} of the split that it was trained on; None for the shipped probes."""
        # The shipped cards name a side of the procedural world there: "split": "train".
        found = self.data.get("split")
        return None if found is None or isinstance(found, str) else dict(found)

    def to_json(self) -> str:
        """The text of the card's file."""
        values = {
            entry.name: getattr(self, entry.name)
            for entry in dataclasses.fields(self)
            if entry.name != "weights"
        }
        return json.dumps(values, indent=1, sort_keys=True) + "\n"


def cell_name(layer: int, sigma: float) -> str:
    """The file name of a cell, without its ending.

    >>> cell_name(5, 0.3)
    'L05_S0.30'
    """
    return f"L{layer:02d}_S{sigma:.2f}"


def read_card(path: Path) -> ProbeCard:
    """The card in a JSON file; the weights are expected beside it.

    Raises:
        ProbeError: the file is not a card.
    """
    try:
        card = ProbeCard(**json.loads(path.read_text()), weights=path.with_suffix(".safetensors"))
        if card.split is not None:
            check_reference(card.split)
    except (OSError, ValueError, TypeError, SplitError) as error:
        raise ProbeError(
            f"{path} is not a probe card ({error}): restore or remove this file"
        ) from error
    return card


def list_probes(backbone: str | None = None, *, root: Path | None = None) -> list[ProbeCard]:
    """Cards of all probes, or of one backbone's, sorted by backbone, layer and sigma.

    Args:
        backbone: registry id; all when None.
        root: folder with one folder per backbone; the shipped probes when None.

    Raises:
        ProbeError: a file in there is not a card.
    """
    folder = root or assets_root() / "probes"
    cards = [read_card(path) for path in sorted(folder.glob(f"{backbone or '*'}/L*_S*.json"))]
    return sorted(cards, key=lambda card: (card.backbone, card.layer, card.sigma))


def list_seeds(card: ProbeCard) -> list[ProbeCard]:
    """Cards of the same cell's probes from further seeds, in their order.

    Raises:
        ProbeError: a file in there is not a card.
    """
    folder = card.weights.parent / SEEDS
    found = [read_card(path) for path in folder.glob(f"{card.weights.stem}_*.json")]
    return sorted(found, key=lambda each: int(each.weights.stem.rpartition("_")[2]))


def find_probe(
    backbone: str, layer: int, sigma: float, *, root: Path | None = None
) -> ProbeCard | None:
    """The card of one cell, or None where no probe was trained.

    Raises:
        ProbeError: the cell's file is not a card.
    """
    path = (root or assets_root() / "probes") / backbone / f"{cell_name(layer, sigma)}.json"
    if not path.is_file():
        return None
    card = read_card(path)
    return card if abs(card.sigma - sigma) < SIGMA_TOLERANCE else None


def choose_probe(path: Path | None, backbone: str, layer: int, sigma: float) -> ProbeCard | None:
    """The card of one cell among given probes, or None where there is none.

    Args:
        path: a folder of probes, as training fills it, or the card or weights of one; None is the
            folder of the shipped ones.
        backbone: registry id.
        layer: 0-based block output.
        sigma: fraction of noise.

    Raises:
        ProbeError: there is nothing, it is not a card, or that of another cell.
    """
    if path is None or path.is_dir():
        return find_probe(backbone, layer, sigma, root=path)
    card = read_card(path.with_suffix(".json"))
    same = (card.backbone, card.layer) == (backbone, layer)
    if not same or abs(card.sigma - sigma) >= SIGMA_TOLERANCE:
        raise ProbeError(
            f"{path} reads {card.backbone} layer {card.layer} sigma {card.sigma:g}, not {backbone} "
            f"layer {layer} sigma {sigma:g}"
        )
    return card


def missing_probe(root: Path | None, backbone: str, layer: int, sigma: float) -> str:
    """Why a cell has no prediction, and which cells of its backbone have one.

    Raises:
        ProbeError: a file in the folder is not a card.
    """
    found = list_probes(backbone, root=root)
    cells = sorted({(probe.layer, probe.sigma) for probe in found})
    missing = f"{backbone} has no trained probe for layer {layer} at sigma {sigma:g}"
    if not cells:
        return f"{missing}, nor for any other cell; correspondence works without one"
    named = "; ".join(
        f"layer {each}: sigma " + ", ".join(f"{noise:g}" for row, noise in cells if row == each)
        for each in sorted({row for row, _ in cells})
    )
    return f"{missing}. There are probes for {named}"


def load_probe(card: ProbeCard, *, backbone_hash: str, device: str = "cpu") -> Probe:
    """The probe of a card in float32, ready to predict.

    Args:
        card: from `find_probe` or `list_probes`.
        backbone_hash: of the backbone that made the features to be read.
        device: where the probe goes.

    Raises:
        ProbeError: the probe was trained on another backbone's features, or its file is missing,
            damaged, or does not fit the card.
    """
    if card.backbone_hash != backbone_hash:
        raise ProbeError(
            f"the probe {card.weights.name} of {card.backbone} was trained on other weights "
            f"({card.backbone_hash[:12]}) than the loaded backbone has ({backbone_hash[:12]}): "
            "restore those weights or train the probe again"
        )
    try:
        content = card.weights.read_bytes()
    except OSError as error:
        raise ProbeError(f"{card.weights} cannot be read ({error}): restore the file") from error
    if hashlib.sha256(content).hexdigest() != card.sha256:
        raise ProbeError(f"{card.weights} is not the file that its card describes: restore both")

    from safetensors.torch import load

    from explorer.probe.int8 import decode
    from explorer.probe.model import Probe, ProbeConfig

    try:
        probe = Probe(ProbeConfig.from_dict(card.config))
        probe.load_state_dict(decode(load(content)))
    except (TypeError, ValueError, RuntimeError) as error:
        raise ProbeError(f"{card.weights} does not fit its card: {error}") from error
    return probe.eval().requires_grad_(False).to(device)


def save_probe(
    probe: Probe,
    root: Path,
    *,
    backbone: str,
    backbone_hash: str,
    layer: int,
    sigma: float,
    data: dict[str, Any],
    steps: int,
    seconds: float,
    metrics: dict[str, Any],
    trained: bool = True,
    storage: Storage = "float16",
    seed: int = 0,
) -> ProbeCard:
    """Write a probe and its card; either file is the old or the new one at any time.

    Args:
        probe: the trained probe, on any device.
        root: folder with one folder per backbone; missing folders are made.
        backbone: registry id.
        backbone_hash: of the backbone whose features it was trained on.
        layer: 0-based block output.
        sigma: fraction of noise.
        data: what it was trained on.
        steps: optimiser steps.
        seconds: training time.
        metrics: held-out results.
        trained: False for weights as initialised.
        storage: of the weights, which are read back as float32; see `explorer.probe.int8`.
        seed: of its training; probes of other seeds than 0 lie beside the cell's.
    """
    import torch
    from safetensors.torch import save

    from explorer.probe.int8 import encode

    state = {name: value.detach().cpu().contiguous() for name, value in probe.state_dict().items()}
    if storage == "int8":
        state = encode(state)
    elif storage == "float16":
        state = {name: value.to(torch.float16) for name, value in state.items()}
    content = save(state)
    name = cell_name(layer, sigma)
    place = f"{SEEDS}/{name}_{seed}" if seed else name
    card = ProbeCard(
        backbone=backbone,
        backbone_hash=backbone_hash,
        layer=layer,
        sigma=sigma,
        in_channels=probe.config.in_channels,
        config=probe.config.to_dict(),
        data=data,
        steps=steps,
        seconds=seconds,
        metrics=metrics,
        sha256=hashlib.sha256(content).hexdigest(),
        trained=trained,
        weights=root / backbone / f"{place}.safetensors",
    )
    card.weights.parent.mkdir(parents=True, exist_ok=True)
    replace_file(card.weights, content)
    replace_file(card.weights.with_suffix(".json"), card.to_json().encode())
    return card
