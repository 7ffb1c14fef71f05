"""Probes on the held-out side of prepared data: the protocol of arXiv 2512.19949, made repeatable.

Each scene is compared at a few frames of its own, the same ones for every backbone, with the
metrics of this project and with the published ones.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from explorer import plugins
from explorer.errors import ComparisonError, ProbeError
from explorer.evaluate import cell_id, choose
from explorer.evaluate.table import differences, finite, interval_note, summarize
from explorer.metric_names import GEOMETRY, METRIC_NAMES

if TYPE_CHECKING:
    from explorer.backbones._options import Target
    from explorer.data.prepared.scene import PreparedScene
    from explorer.data.readers.prepared import Prepared
    from explorer.data.splits import Split
    from explorer.probe.checkpoint import ProbeCard
    from explorer.reconstruction import Reconstruction

PUBLISHED = tuple(f"published_{name}" for name in GEOMETRY)
LONE = (
    "The side {side!r} holds no other: prepare more scenes, or divide these anew with another "
    "--split-seed of emerge3d prepare and train again."
)


def evaluate_prepared(
    cards: Sequence[ProbeCard],
    store: Prepared,
    *,
    target: Target,
    features: Path,
    side: str | None = None,
    clips: int = 64,
    on_cell: Callable[[str, int], None] = lambda cell, scenes: None,
    on_scene: Callable[[int, int, str], None] = lambda done, total, name: None,
) -> dict[str, Any]:
    """Compare probes with the geometry of scenes that none of them was trained on.

    Args:
        cards: of the probes.
        store: the prepared data.
        target: device and weights of the backbones.
        features: folder where features are kept, as in training.
        side: of the store's split; "test" where there is one, else "val", when None.
        clips: scenes at most; of more on the side those with the lowest hashes.
        on_cell: called with a cell and its number of scenes before it is evaluated.
        on_scene: called with (done, total, name) when features of a scene of it are there.

    Returns:
        JSON-ready like `explorer.evaluate.evaluate`: per cell the means with intervals over scenes
        and the values of every scene, in the order of "scenes" (None where a cell has none), and
        paired differences of the backbones' best cells. "frames" are those of each scene.
        `point_error` ... are geometric, `published_point_error` ... as the paper's code computes.

    Raises:
        SplitError: a probe was trained on one of these scenes, places or recordings.
        ProbeError: no probe, no scene, or a probe that does not fit its backbone.
        BackboneError: a backbone cannot be loaded.
    """
    from explorer.backbones import loaded
    from explorer.probe.training_split import check_held_out

    if not cards:
        raise ProbeError("no probe to evaluate: name at least one")
    begin = time.perf_counter()
    split = store.split
    side = held_out_side(split) if side is None else side
    scenes = _scenes(store, side, clips)
    identities = {scene.identity for scene in scenes}
    notes = check_held_out(cards, [s for s in split.sides[side] if s.identity in identities])
    targets = [replace(target, dtype=card.data.get("dtype", target.dtype)) for card in cards]
    drawn_from = min(
        _seen(card, scene, each)
        for card, each in zip(cards, targets, strict=True)
        for scene in scenes
    )
    cells: list[dict[str, Any]] = []
    frames: dict[str, list[int]] = {}
    for number, card in enumerate(cards):
        on_cell(cell_id(card), len(scenes))
        cell, frames = _cell(card, scenes, targets[number], features, drawn_from, notes, on_scene)
        cells.append(cell)
        if not any(card.backbone == other.backbone for other in cards[number + 1 :]):
            loaded.unload(card.backbone)
    chosen = _chosen(cards, side)
    best = [cell for cell in cells if cell["id"] in chosen["cells"].values()]
    advice = {} if len(split.sides[side]) > 1 else {"advice": LONE.format(side=side)}
    note = interval_note([each["metrics"] for each in cells], **advice)
    return {
        "suite": "prepared",
        "split": side,
        "split_file": split.reference,
        "data": {
            "dataset": store.manifest.settings.dataset,
            "reference": store.manifest.settings.reference,
        },
        "clips": len(scenes),
        "scenes": [scene.name for scene in scenes],
        "frames": frames,
        "chosen": chosen,
        "cells": cells,
        "baselines": [],
        "differences": [
            row
            for a, b in itertools.combinations(best, 2)
            for row in differences(a["id"], a["per_clip"], b["id"], b["per_clip"])
        ],
        "notes": [*([note] if note else []), *map(_as_published, cells), *notes],
        "seconds": {"total": round(time.perf_counter() - begin, 2)},
    }


def published_metrics(
    prediction: Reconstruction, reference: Reconstruction
) -> dict[str, float | None]:
    """What the paper's code would log for one sample; both sides at the same frames and size."""
    from explorer.metrics import official

    error, _ = official.aligned_point_error(
        prediction.points, reference.points, reference.confidence
    )
    depth = official.depth_error(prediction.depth, reference.depth, reference.confidence)
    found = {"published_point_error": error, "published_depth_error": depth}
    if len(prediction.frames) > 1:
        poses = official.pair_errors(
            prediction.cameras.cam_from_world, reference.cameras.cam_from_world
        )
        worst = np.maximum(poses.rotation, poses.translation)
        found |= {f"published_auc{k}": official.auc(worst, k) for k in (5, 30)}
    return {name: finite(found.get(name)) for name in PUBLISHED}


def held_out_side(split: Split) -> str:
    """The side to evaluate on where none is named; some datasets only publish a "val"."""
    return next((side for side in ("test", "val") if split.sides.get(side)), "test")


def _scenes(store: Prepared, side: str, most: int) -> list[PreparedScene]:
    scenes = store.side(side, most=most)
    if not scenes:
        raise ProbeError(
            f"no scene of {store.root} is on the side {side!r}; there are: "
            + ", ".join(f"{name} ({len(each)})" for name, each in store.split.sides.items())
            + "; of few places another --split-seed of emerge3d prepare holds some out"
        )
    return scenes


def _chosen(cards: Sequence[ProbeCard], side: str) -> dict[str, Any]:
    """`choose`, with a note where the choice was made on the side that is evaluated."""
    chosen = choose(cards)
    if chosen["by"] and any(card.data.get("validation_side") == side for card in cards):
        where = f"Best cells have the lowest {chosen['by']} on their cards, measured on this side: "
        chosen["note"] = f"{where}as published, the choice among cells has seen these scenes."
    return chosen


def _seen(card: ProbeCard, scene: PreparedScene, target: Target) -> int:
    """How many frames of a scene the backbone of a probe reaches over."""
    from explorer.backbones import registry
    from explorer.probe.clip_window import frames_seen

    backbone = registry.fitting_card(card.backbone, target)
    return frames_seen(backbone, len(scene), card.data.get("stride"))


def _cell(
    card: ProbeCard,
    scenes: Sequence[PreparedScene],
    target: Target,
    features: Path,
    drawn_from: int,
    notes: list[str],
    on_scene: Callable[[int, int, str], None],
) -> tuple[dict[str, Any], dict[str, list[int]]]:
    """What is found of one cell, and the frames of each scene that it was found at."""
    from explorer.backbones import registry
    from explorer.probe.checkpoint import load_probe
    from explorer.probe.examples import Cell, Examples
    from explorer.probe.predict import predict

    backbone = registry.fitting_card(card.backbone, target)
    hashes = registry.hashes(card.backbone, target)
    probe = load_probe(card, backbone_hash=hashes.weights, device=target.device)
    found = Examples(
        scenes,
        Cell(card.backbone, card.layer, card.sigma, int(card.data.get("noise_seed", 0)), target),
        map_size=probe.config.size_for(backbone.token_grid),
        folder=features,
        stride=card.data.get("stride"),
        drawn_from=drawn_from,
        on_scene=on_scene,
    )
    if found.enlarged and found.enlarged not in notes:
        notes.append(found.enlarged)
    notes += [f"{cell_id(card)}: {name} left out: {why}" for name, why in found.skipped.items()]
    index_of = {item.scene: index for index, item in enumerate(found.items)}
    values: dict[str, list[float | None]] = {name: [] for name in (*GEOMETRY, *PUBLISHED)}
    for scene in scenes:
        index = index_of.get(scene.name)
        if index is None:  # keeps its place: scenes are paired by it
            for column in values.values():
                column.append(None)
            continue
        seen, reference = found.evaluation(index)
        _append(values, predict(probe, seen, card=card), reference)
    cell = {
        "id": cell_id(card),
        "backbone": card.backbone,
        **plugins.provenance("backbone", card.backbone),
        "layer": card.layer,
        "sigma": card.sigma,
        "probe": card.sha256,
        "trained": card.trained,
        "training_split": card.split,
        "scenes": [item.scene for item in found.items],
        "metrics": summarize(values),
        "per_clip": values,
    }
    return cell, {name: found.evaluation_frames(index).tolist() for name, index in index_of.items()}


def _append(
    values: dict[str, list[float | None]], prediction: Reconstruction, reference: Reconstruction
) -> None:
    from explorer.metrics import compare

    try:
        report = compare(prediction, reference)
        found = {name: finite(getattr(report, name)) for name in GEOMETRY}
        found |= published_metrics(prediction, reference)
    except ComparisonError:
        found = dict.fromkeys(values)
    for name, column in values.items():
        column.append(found[name])


def _as_published(cell: dict[str, Any]) -> str:
    known = ((name, cell["metrics"][f"published_{name}"]) for name in GEOMETRY)
    figures = ", ".join(
        f"{METRIC_NAMES[name]} {found['mean']:.4f}" for name, found in known if found is not None
    )
    return f"{cell['id']} as the paper computes it: {figures or 'nothing'}"
