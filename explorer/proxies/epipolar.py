"""Whether matches between slots obey one epipolar geometry, as those of a rigid scene must.

Mutual top-1 matches of each pair of slots are fitted with one fundamental matrix by a robust
estimator (MAGSAC++, Barath et al., CVPR 2020) and, where cameras are known, also held against the
true one. The fit asks whether *some* rigid motion explains the matches, and is blind in one way
that must be known: matches that stay where they are fit a whole family of matrices, so features
that encode a token's position alone look perfect. `still_share` tells. Against the true matrix
they do no better than `nothing_moves_px`, which is itself small where the camera moves a point
along its epipolar line: read the distance beside it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from explorer._typing import Float, Int
from explorer.correspondence import token_centers
from explorer.features import Features
from explorer.metrics.pose import MIN_BASELINE, relative_poses
from explorer.proxies.matching import mutual_matches, top_matches
from explorer.reconstruction import Reconstruction

MIN_MATCHES = 16
"""Pairs of slots with fewer mutual matches are not fitted: any seven lie on a matrix of their own.
"""
CONFIDENCE, ITERATIONS = 0.999, 5000


@dataclass(frozen=True)
class EpipolarConsistency:
    """Distances are symmetric epipolar distances in image pixels, see `epipolar_distances`.

    Figures pool the matches of all unordered pairs of slots; None where there are none.

    Attributes:
        matches: mutual matches in all pairs.
        threshold_px: up to this distance a match counts as an inlier.
        still_share: share of matches on the same token in both slots, 0 to 1.
        pairs: pairs of slots that were fitted.
        inlier_share: share of their matches that fit their pair's own matrix, 0 to 1.
        median_px: median distance of their matches to it.
        true_pairs: pairs whose cameras are known and stand apart.
        true_inlier_share, true_median_px: the same against the true matrix.
        nothing_moves_px: median distance, to the true matrix, of answering that nothing moves.
    """

    matches: int
    threshold_px: float
    still_share: float | None
    pairs: int
    inlier_share: float | None
    median_px: float | None
    true_pairs: int
    true_inlier_share: float | None
    true_median_px: float | None
    nothing_moves_px: float | None


def epipolar_consistency(
    features: Features,
    reference: Reconstruction | None = None,
    *,
    size: tuple[int, int],
    threshold_px: float | None = None,
    seed: int = 0,
    matches: Int[np.ndarray, "S S N"] | None = None,
) -> EpipolarConsistency:
    """Fit every pair of slots, and compare with the true cameras where they are known.

    Args:
        features: S slots of an h x w token grid.
        reference: cameras with the slots' frames; pairs that it lacks are only fitted.
        size: (height, width) of the image in whose pixels distances are given.
        threshold_px: of inliers; half the diagonal of a token when None, which is what rounding a
            perfect match to a token centre may cost.
        seed: of the estimator's samples; the same features and seed give the same figures.
        matches: `top_matches` of these features, where they are known already.
    """
    if matches is None:
        matches = top_matches(features)
    centers = token_centers(features.grid, size)
    if threshold_px is None:
        rows, columns = features.grid
        threshold_px = 0.5 * float(np.hypot(size[0] / rows, size[1] / columns))
    slots = len(features.slot_frames)
    fitted, true, unmoved, still, total = [], [], [], 0, 0
    for a in range(slots):
        for b in range(a + 1, slots):
            pair = mutual_matches(matches, a, b)
            first, second = centers[pair[:, 0]], centers[pair[:, 1]]
            total += len(pair)
            still += int((pair[:, 0] == pair[:, 1]).sum())
            matrix = fit_fundamental(first, second, threshold_px=threshold_px, seed=seed)
            if matrix is not None:
                fitted.append(epipolar_distances(matrix, first, second))
            frames = int(features.slot_frames[a]), int(features.slot_frames[b])
            known = None if reference is None else true_fundamental(reference, *frames, size=size)
            if known is not None:
                true.append(epipolar_distances(known, first, second))
                unmoved.append(epipolar_distances(known, centers, centers))
    inlier_share, median_px = _summary(fitted, threshold_px)
    true_inlier_share, true_median_px = _summary(true, threshold_px)
    return EpipolarConsistency(
        matches=total,
        threshold_px=threshold_px,
        still_share=still / total if total else None,
        pairs=len(fitted),
        inlier_share=inlier_share,
        median_px=median_px,
        true_pairs=len(true),
        true_inlier_share=true_inlier_share,
        true_median_px=true_median_px,
        nothing_moves_px=_summary(unmoved, threshold_px)[1],
    )


def fit_fundamental(
    first: Float[np.ndarray, "M 2"],
    second: Float[np.ndarray, "M 2"],
    *,
    threshold_px: float,
    seed: int = 0,
) -> Float[np.ndarray, "3 3"] | None:
    """The fundamental matrix F with x2^T F x1 ~ 0 that most matches agree on.

    None for fewer than `MIN_MATCHES` matches, where the estimator finds none, and where there is no
    OpenCV.

    Args:
        first: (M, 2) image points x1.
        second: (M, 2) their matches x2 in the other image.
        threshold_px: largest distance of a match that counts.
        seed: of the random samples.
    """
    if len(first) < MIN_MATCHES:
        return None
    try:
        import cv2
    except ImportError:  # on a bare GPU machine; what needs no estimator is measured there too
        return None

    settings = cv2.UsacParams()
    settings.score = cv2.SCORE_METHOD_MAGSAC
    settings.sampler = cv2.SAMPLING_UNIFORM
    settings.loMethod = cv2.LOCAL_OPTIM_SIGMA
    settings.threshold = threshold_px
    settings.confidence = CONFIDENCE
    settings.maxIterations = ITERATIONS
    settings.randomGeneratorState = seed
    settings.isParallel = False
    try:
        matrix, _ = cv2.findFundamentalMat(
            np.ascontiguousarray(first), np.ascontiguousarray(second), settings
        )
    except cv2.error:  # how some degenerate sets of points are answered
        return None
    if matrix is None or matrix.shape != (3, 3) or not np.isfinite(matrix).all():
        return None
    return np.asarray(matrix, dtype=np.float64)


def true_fundamental(
    reference: Reconstruction, first: int, second: int, *, size: tuple[int, int]
) -> Float[np.ndarray, "3 3"] | None:
    """F = K2^-T [t]x R K1^-1 of two frames' cameras (Hartley and Zisserman, eq. 9.12).

    None where a frame is missing, or where the cameras stand less than `MIN_BASELINE` apart: a
    camera that only turns has no epipolar geometry.

    Args:
        reference: cameras, in its unit of length.
        first: frame of x1.
        second: frame of x2.
        size: (height, width) of the image that x1 and x2 are measured in.
    """
    index = {int(frame): k for k, frame in enumerate(reference.frames)}
    if first not in index or second not in index:
        return None
    cameras = reference.cameras.select([index[first], index[second]]).resized(*size)
    pose = relative_poses(cameras.cam_from_world, np.array([[0, 1]]))[0]
    x, y, z = pose[:, 3]
    if float(np.hypot(np.hypot(x, y), z)) < MIN_BASELINE:
        return None
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    inverse = np.linalg.inv(cameras.intrinsics.astype(np.float64))
    return np.asarray(inverse[1].T @ cross @ pose[:, :3] @ inverse[0])


def epipolar_distances(
    matrix: Float[np.ndarray, "3 3"],
    first: Float[np.ndarray, "M 2"],
    second: Float[np.ndarray, "M 2"],
) -> Float[np.ndarray, " M"]:
    """(M,) symmetric epipolar distances in pixels.

    The root mean square of two distances: of x2 from the line F x1, and of x1 from the line F^T x2
    (Hartley and Zisserman, eq. 11.10, divided by two and rooted).

    >>> sideways = np.array([[0.0, 0, 0], [0, 0, -1], [0, 1, 0]])
    >>> epipolar_distances(sideways, np.array([[5.0, 2.0]]), np.array([[9.0, 5.0]])).tolist()
    [3.0]
    """
    one = np.concatenate([first, np.ones((len(first), 1))], axis=1)
    two = np.concatenate([second, np.ones((len(second), 1))], axis=1)
    lines, back = one @ matrix.T, two @ matrix
    off = np.abs((two * lines).sum(axis=1))
    # On the epipole itself there is no line, and nothing to be away from.
    tiny = 1e-12 * float(np.abs(matrix).max())
    there = off / np.maximum(np.linalg.norm(lines[:, :2], axis=1), tiny)
    here = off / np.maximum(np.linalg.norm(back[:, :2], axis=1), tiny)
    return np.sqrt((there**2 + here**2) / 2)


def _summary(
    distances: list[Float[np.ndarray, " _"]], threshold_px: float
) -> tuple[float | None, float | None]:
    pooled = np.concatenate(distances) if distances else np.empty(0)
    if not len(pooled):
        return None, None
    return float((pooled <= threshold_px).mean()), float(np.median(pooled))
