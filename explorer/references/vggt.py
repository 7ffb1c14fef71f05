"""VGGT (Wang et al. 2025, arXiv 2503.11651): a network's estimate of depth, points and cameras.

The reference that the published evaluation measures against: all frames of the clip in one pass at
518 columns, cameras from the camera head, points from unprojected depth. `toy-vggt`, the small one
that comes with the package, goes through the same code.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from explorer.assets import assets_root
from explorer.backbones.base import slot_map
from explorer.camera import Cameras, unproject
from explorer.clip import Clip
from explorer.errors import NoReconstruction, ReferenceError3D
from explorer.reconstruction import Reconstruction
from explorer.references import Context, _vggt_files, register
from explorer.references._vggt_files import Weights

if TYPE_CHECKING:
    from explorer._typing import Int

TOY = "toy-vggt"
REMARK = "a network's estimate, not ground truth"
LICENCE = "CC BY-NC 4.0 (facebook/VGGT-1B-Commercial, gated: other terms, same layout)"
TOY_REMARK = "toy estimate, not ground truth"
_TOY_STEP = 4  # frames a slot: it was trained on few frames, those that stand for slots
SIDE = 518
"""Pixels of the longer side of what the network sees."""


def toy_folder() -> Path:
    """Where the shipped network lies, if it is shipped."""
    return assets_root() / "models" / TOY


def _missing() -> str | None:
    try:
        _vggt_files.published()
    except ReferenceError3D as error:
        return str(error)
    return None


def _missing_toy() -> str | None:
    if (toy_folder() / "config.json").is_file():
        return None
    return f"the reference {TOY} is not part of this installation: there is no {toy_folder()}"


@register(
    "vggt",
    "VGGT-1B: points from depth and cameras",
    missing=_missing,
    remark=REMARK,
    licence=LICENCE,
    source=_vggt_files.SOURCE,
)
def reconstruct(clip: Clip, context: Context) -> Reconstruction:
    """All frames of a clip by facebook/VGGT-1B, or what a folder holds; points unprojected.

    Raises:
        ReferenceError3D: the weights are not here, broken, of another network, or do not fit into
            memory.
        Cancelled: `context.should_stop` became true.
    """
    return estimate(clip, context, _vggt_files.published(), name="vggt")


@register(
    "vggt-point-head",
    "VGGT-1B: points from its point head",
    missing=_missing,
    remark=REMARK,
    licence=LICENCE,
    source=_vggt_files.SOURCE,
)
def reconstruct_points(clip: Clip, context: Context) -> Reconstruction:
    """Like `reconstruct`, with the point head's points and its confidence."""
    weights = _vggt_files.published()
    return estimate(clip, context, weights, name="vggt-point-head", point_head=True)


@register(
    TOY,
    "Toy VGGT: trained on rendered clips only",
    missing=_missing_toy,
    remark=TOY_REMARK,
    licence="Apache-2.0",
)
def reconstruct_toy(clip: Clip, context: Context) -> Reconstruction:
    """The frames that are compared, by the small network of the package.

    Raises:
        ReferenceError3D: it is not shipped, or its files are broken.
        Cancelled: `context.should_stop` became true.
    """
    if context.frames is None:
        frames = slot_map(len(clip), _TOY_STEP)[1]
    else:
        frames = np.asarray(context.frames, dtype=np.int64)
    return estimate(clip, context, _vggt_files.in_folder(toy_folder()), name=TOY, frames=frames)


def input_size(size: tuple[int, int], patch: int, *, side: int = SIDE) -> tuple[int, int]:
    """(height, width) that pictures of a size are given to the network in.

    The longer side becomes `side`, the other the nearest multiple of the patch: for pictures that
    are wider than high as published. Higher ones would lose their upper and lower ends there.

    >>> input_size((540, 960), 14)
    (294, 518)
    >>> input_size((960, 540), 14)
    (518, 294)
    """
    longest = max(size)
    height, width = (max(patch, round(each * side / longest / patch) * patch) for each in size)
    return height, width


def estimate(
    clip: Clip,
    context: Context,
    weights: Weights,
    *,
    name: str,
    point_head: bool = False,
    frames: Int[np.ndarray, " S"] | None = None,
) -> Reconstruction:
    """One pass over frames of a clip, normalised; confidence is the head's own, above 1.

    Args:
        clip: gives the crop; its pixels where no larger ones can be decoded.
        context: store, device and how to stop.
        weights: of the network.
        name: who this reference is.
        point_head: points and confidence from the point head; else depth is unprojected.
        frames: which frames, the first one first; all when None.

    Raises:
        NoReconstruction: a frame's focal length is infinite.
        ReferenceError3D: the weights are broken, of another network, or do not fit into memory.
        Cancelled: `context.should_stop` became true; nothing is stored.
    """
    chosen = np.arange(len(clip)) if frames is None else frames
    recipe = {
        "name": name,
        "weights": weights.digest,
        "sizes": [weights.input_size, weights.map_size],
        "points": "head" if point_head else "depth",
        "frames": chosen.tolist(),
        **context.machine(),
    }
    make = functools.partial(_estimate, clip, context, weights, name, point_head, chosen)
    return context.cached(clip, recipe, make)


def _estimate(
    clip: Clip,
    context: Context,
    weights: Weights,
    name: str,
    point_head: bool,
    frames: Int[np.ndarray, " S"],
) -> Reconstruction:
    from explorer.references import _vggt_run

    fine = context.closer(clip, 2 * SIDE, enough=SIDE)
    size = weights.input_size or input_size(fine.size, weights.config.get("patch", 14), side=SIDE)
    found = _vggt_run.run(
        fine.frames[frames],
        weights,
        size=size,
        device=context.device,
        should_stop=context.should_stop,
    )
    blind = np.isinf(found.intrinsics).any(axis=(1, 2))
    if blind.any():
        raise NoReconstruction(
            f"{name} sees no field of view in {blind.sum()} of {len(frames)} frames: it makes "
            "nothing of this clip; choose another window or reference"
        )
    cameras = Cameras(found.cam_from_world, found.intrinsics, found.size)
    if point_head:
        points, confidence = found.points, found.points_confidence
    else:
        points = unproject(found.depth.astype(np.float64), cameras).astype(np.float32)
        confidence = found.depth_confidence
    maps = (points, found.depth, confidence, found.cam_from_world, found.intrinsics)
    if not all(np.isfinite(each).all() for each in maps):
        raise ReferenceError3D(
            f"{name} gave numbers that are not finite: its weights in {weights.folder} are damaged"
        )
    return Reconstruction(
        frames=frames,
        depth=found.depth,
        points=points,
        confidence=confidence,
        cameras=cameras,
        source=name,
        provenance={
            "weights": weights.digest,
            "points_from": "point head" if point_head else "depth",
            "input_size": list(size),
            "device": context.device,
            "dtype": found.dtype,
            "estimate": True,
        },
    ).normalized()
