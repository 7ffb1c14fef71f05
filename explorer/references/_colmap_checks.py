"""Whether COLMAP's first steps found enough to map, and why there is nothing to map."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pycolmap

from explorer.errors import NoReconstruction
from explorer.references.colmap import MIN_FEATURES, MIN_OFF_PLANE

MIN_HOMOGRAPHY = 15  # matches of a pair, as COLMAP has it


def check_features(database: Path) -> None:
    with pycolmap.Database.open(database) as opened:
        counts = [
            opened.num_keypoints_for_image(image.image_id) for image in opened.read_all_images()
        ]
    median = int(np.median(counts)) if counts else 0
    if median < MIN_FEATURES:
        raise NoReconstruction(
            f"too little texture: COLMAP found {median} features a frame in the median and needs "
            f"{MIN_FEATURES}"
        )


def check_matches(database: Path, frames: int) -> None:
    with pycolmap.Database.open(database) as opened:
        pairs = opened.num_verified_image_pairs()
    if pairs < 2:
        raise NoReconstruction(
            f"too few matches: of {frames * (frames - 1) // 2} pairs of frames COLMAP could match "
            f"{pairs}: choose a window whose frames show more of the same"
        )


def check_depth(database: Path) -> None:
    """Refuse at once what has no depth in any pair: looking for one to begin with takes minutes.

    COLMAP calls flat what a homography explains to 4 pixels. In the small frames of a video that
    is a far scene too, which can be mapped where many matches are off by more than one.

    Raises:
        NoReconstruction: all pairs are flat.
    """
    if _flat(database)[0] == 1.0 and _off_plane(database) < MIN_OFF_PLANE:
        raise NoReconstruction(why_no_model(database))


def _off_plane(database: Path) -> float:
    """Share of all matches that are over a pixel away from where their pair's homography says."""
    import cv2

    off = matches = 0
    with pycolmap.Database.open(database) as opened:
        pairs, geometries = opened.read_two_view_geometries()
        points = {
            image.image_id: opened.read_keypoints(image.image_id)[:, :2].astype(np.float64)
            for image in opened.read_all_images()
        }
    for pair, geometry in zip(pairs, geometries, strict=True):
        first, second = pycolmap.pair_id_to_image_pair(pair)
        here, there = geometry.inlier_matches.T
        if len(here) < MIN_HOMOGRAPHY:
            continue
        _, fits = cv2.findHomography(points[first][here], points[second][there], cv2.RANSAC, 1.0)
        off += len(here) if fits is None else int((fits == 0).sum())
        matches += len(here)
    return off / max(1, matches)


def _flat(database: Path) -> tuple[float, int]:
    """(share of the matched pairs in which the camera only turns or sees a plane, their number)."""
    kind = pycolmap.TwoViewGeometryConfiguration
    flat = (kind.PLANAR, kind.PANORAMIC, kind.PLANAR_OR_PANORAMIC)
    with pycolmap.Database.open(database) as opened:
        _, geometries = opened.read_two_view_geometries()
    verified = [geometry.config for geometry in geometries if len(geometry.inlier_matches)]
    return sum(config in flat for config in verified) / max(1, len(verified)), len(verified)


def why_no_model(database: Path) -> str:
    """Flat scenes and cameras that only turn match well and still give no depth."""
    share, verified = _flat(database)
    if share > 0.5:
        return (
            f"too little parallax: in {share:.0%} of the {verified} matched pairs of frames "
            "the camera only turns, or looks at a plane: take a longer window with more movement"
        )
    return (
        f"COLMAP found no pair of frames to begin with among {verified} that match: too few "
        "matches or too little parallax; take a longer window with more movement"
    )
