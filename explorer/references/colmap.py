"""COLMAP (Schönberger and Frahm, CVPR 2016): structure from motion, no network had a hand in it.

Poses, one focal length and sparse points, by pycolmap on the CPU. One pinhole camera with the
principal point in the middle is fitted to all frames: a lens that bends straight lines shows up as
reprojection error.
"""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from importlib import metadata
from typing import TYPE_CHECKING, Any

import numpy as np

from explorer._sparse import splat
from explorer._typing import Float
from explorer.camera import Cameras
from explorer.clip import Clip
from explorer.errors import NoReconstruction
from explorer.metrics.pose import pair_errors
from explorer.reconstruction import Reconstruction
from explorer.references import Context, register

if TYPE_CHECKING:
    from explorer.references._colmap_steps import Model

WIDTH = 1024
"""Columns of the frames that are matched, at most; the source's where it has fewer."""
MAX_FEATURES = 4096
"""Per frame: matching takes time with its square."""
SEED = 0
MIN_FEATURES = 50
"""Of a frame, in the median; fewer cannot give a model of three frames."""
FOCAL_RATIOS = (0.6, 0.8, 1.05, 1.4, 1.9)
"""Focal lengths to begin with, over the width: from 80 to 29 degrees wide."""
MIN_OFF_PLANE = 0.1
"""Share of matches over a pixel away from their pair's homography, below which there is no depth to
be found. A drone's flight around a building, 17 frames of 512 columns: 0.01 over one second and
0.04 over three, where the parallax is too little; 0.2 over seven, where all frames are registered
at 0.24 px. A camera that stands still: 0."""
MAX_ERROR, MIN_ANGLE = 4.0, 1.5
"""Pixels and degrees of points that stay, as COLMAP has them while it maps."""
MIN_POINTS = 20
MIN_FRAMES = 3
MIN_PARALLAX = 2.0
"""Degrees, in the median over points: below, depth is a guess whatever the reprojection error."""
RIVAL_SHARE = 0.5
"""Of the best model's observations, from which on another one is an explanation too."""
RIVAL_ERROR = 1.25
"""Of its reprojection error, up to which; one that fits worse has merely got stuck."""
FOCALS = (0.3, 4.0)
"""Widths that a focal length may have: from 118 to 14 degrees wide. A camera that moves ahead is
explained as well by one far away with a long lens: a shipped dolly ended at 16 widths, from two
beginnings, with an AUC@30 of 0 against its exact cameras."""
MAX_FOCAL_RATIO = 1.6
MAX_TURN = 20.0
"""Largest factor between focal lengths, and largest angle in degrees between directions of motion,
of models that began with different focal lengths. Of the twelve shipped clips the five orbits pass,
at an AUC@30 of 0.87 to 0.94 against exact cameras; dollies and pans do not, whose models were often
reversed, or wrong by a factor of two, at the same reprojection error."""


def _missing() -> str | None:
    if importlib.util.find_spec("pycolmap") is not None:
        return None
    return "the reference colmap needs pycolmap: pip install 'emerge3d[colmap]'"


@register(
    "colmap",
    "COLMAP: cameras and sparse points, by geometry alone",
    missing=_missing,
    licence="BSD-3-Clause",
)
def reconstruct(clip: Clip, context: Context) -> Reconstruction:
    """Cameras and sparse points of the frames that COLMAP registers, normalised.

    Frames are decoded again at up to `WIDTH` columns where the video is at hand; the result is at
    the clip's own size. A pixel is known where a point that was observed in that frame projects
    into it, with confidence 1. Provenance: `registered` of `frames`, `missing_frames`, `points`,
    `reprojection_error_px` in pixels of `matched_size`, `parallax_degrees` (median over points of
    the widest angle between two of its rays), `focal_px` in the clip's pixels, and a `note`.

    Raises:
        NoReconstruction: too few frames, features, matches, points or parallax, or more than one
            explanation.
        Cancelled: `context.should_stop` became true.
    """
    recipe = {
        "name": "colmap",
        "version": metadata.version("pycolmap"),
        "width": WIDTH,
        "features": MAX_FEATURES,
        "seed": SEED,
        "limits": [
            MIN_FEATURES,
            MIN_OFF_PLANE,
            *FOCAL_RATIOS,
            MAX_ERROR,
            MIN_ANGLE,
            MIN_FRAMES,
            MIN_POINTS,
            MIN_PARALLAX,
            RIVAL_SHARE,
            RIVAL_ERROR,
            *FOCALS,
            MAX_FOCAL_RATIO,
            MAX_TURN,
        ],
    }
    found = context.cached(clip, recipe, lambda: _reconstruct(clip, context))
    return replace(found, provenance={**found.provenance, "note": _note(found.provenance)})


def _note(facts: dict[str, Any]) -> str:
    return (
        f"the reference is colmap's: it registered {facts['registered']} of {facts['frames']} "
        f"frames at {facts['reprojection_error_px']:.2f} px, and no network had a hand in it"
    )


def _reconstruct(clip: Clip, context: Context) -> Reconstruction:
    from explorer.references._colmap_steps import run

    if len(clip) < MIN_FRAMES:
        raise NoReconstruction(
            f"COLMAP needs {MIN_FRAMES} frames or more, and this window has {len(clip)}"
        )
    # in whole multiples: what the limits above were measured on
    fine = context.closer(clip, WIDTH, whole=True)
    model, *others = run(
        fine.frames, max_features=MAX_FEATURES, seed=SEED, should_stop=context.should_stop
    )
    parallax = float(np.median(widest_angles(model)))
    registered = len(model.frames)
    found = f"COLMAP found {len(model.points)} points in {registered} of {len(clip)} frames"
    if registered < MIN_FRAMES or len(model.points) < MIN_POINTS:
        raise NoReconstruction(
            f"{found}, too few to measure with: take a longer window with more movement and texture"
        )
    if parallax < MIN_PARALLAX:
        raise NoReconstruction(
            f"too little parallax: {found}, seen from directions only {parallax:.1f} degrees apart "
            "in the median: the camera hardly moves; take a longer window"
        )
    _check_unambiguous(model, others, fine.size[1])
    return _as_reconstruction(model, clip, fine, parallax)


def _check_unambiguous(model: Model, others: list[Model], width: int) -> None:
    """Whoever begins with another focal length must end at the same geometry, a possible one.

    Raises:
        NoReconstruction: nobody does, or somebody ends elsewhere with about as many observations,
            or the lens would be one that videos are not taken with.
    """
    least = RIVAL_SHARE * model.observed.sum()
    most = RIVAL_ERROR * model.reprojection_error
    rivals = [
        other
        for other in others
        if other.observed.sum() >= least and other.reprojection_error <= most
    ]
    advice = (
        "the camera hardly moves, or only ahead; take a longer window in which it moves sideways"
    )
    focal = model.focal / width
    if not FOCALS[0] <= focal <= FOCALS[1]:
        raise NoReconstruction(
            f"implausible: COLMAP explains these frames with a focal length of {focal:.1f} widths: "
            f"{advice}"
        )
    if not rivals:
        raise NoReconstruction(
            f"unconfirmed: COLMAP explains these frames with one focal length only: {advice}"
        )
    focals = sorted(each.focal / width for each in (model, *rivals))
    turned = max(_turned(model, rival) for rival in rivals)
    if focals[-1] > MAX_FOCAL_RATIO * focals[0] or turned > MAX_TURN:
        raise NoReconstruction(
            "ambiguous: COLMAP explains these frames equally well with focal lengths from "
            f"{focals[0]:.2f} to {focals[-1]:.2f} widths and motion {turned:.0f} degrees apart: "
            f"{advice}"
        )


def _turned(model: Model, other: Model) -> float:
    """Degrees between the directions that two models moved in, in the median over pairs."""
    _, here, there = np.intersect1d(model.frames, other.frames, return_indices=True)
    if len(here) < 2:
        return 180.0
    errors = pair_errors(other.cam_from_world[there], model.cam_from_world[here], min_baseline=0.0)
    return float(np.median(errors.translation))


def widest_angles(model: Model) -> Float[np.ndarray, " N"]:
    """(N,) degrees between the two most different rays to each point; NaN without points."""
    if len(model.points) == 0:
        return np.array([np.nan])
    rotation, translation = model.cam_from_world[:, :, :3], model.cam_from_world[:, :, 3]
    centers = -np.einsum("sji,sj->si", rotation, translation)
    angles = np.zeros(len(model.points))
    for number, point in enumerate(model.points):
        rays = point - centers[model.observed[:, number]]
        rays /= np.linalg.norm(rays, axis=1, keepdims=True)
        angles[number] = np.degrees(np.arccos(np.clip((rays @ rays.T).min(), -1.0, 1.0)))
    return angles


def _as_reconstruction(model: Model, clip: Clip, fine: Clip, parallax: float) -> Reconstruction:
    height, width = clip.size
    focal = np.diag([model.focal, model.focal, 1.0])
    focal[:2, 2] = fine.size[1] / 2, fine.size[0] / 2
    matched = Cameras(model.cam_from_world, np.tile(focal, (len(model.frames), 1, 1)), fine.size)
    cameras = matched.resized(height, width)
    maps = [
        splat(
            model.points[seen],
            np.ones(int(seen.sum())),
            cameras.cam_from_world[slot],
            cameras.intrinsics[slot],
            size=(height, width),
        )
        for slot, seen in enumerate(model.observed)
    ]
    depth, points, confidence = (np.stack(each) for each in zip(*maps, strict=True))
    missing = sorted(set(range(len(clip))) - set(model.frames.tolist()))
    whole = Reconstruction(
        frames=model.frames,
        depth=depth,
        points=points,
        confidence=confidence,
        cameras=cameras,
        source="colmap",
        provenance={
            "registered": len(model.frames),
            "frames": len(clip),
            "missing_frames": missing,
            "points": len(model.points),
            "reprojection_error_px": model.reprojection_error,
            "matched_size": list(fine.size),
            "parallax_degrees": parallax,
            "focal_px": model.focal * width / fine.size[1],
            "seed": SEED,
            "pycolmap": metadata.version("pycolmap"),
        },
        sparse=True,
    )
    if not whole.valid[0].any():
        raise NoReconstruction("COLMAP's first frame sees none of its points")
    return whole.normalized()
