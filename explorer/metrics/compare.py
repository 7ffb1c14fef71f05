"""`compare`: a prediction against a reference, as a `Report`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from explorer._typing import Bool, Float
from explorer.errors import ComparisonError
from explorer.metrics.depth import depth_error
from explorer.metrics.points import point_error
from explorer.metrics.pose import auc, pair_errors
from explorer.reconstruction import Reconstruction
from explorer.report import Report


def compare(prediction: Reconstruction, reference: Reconstruction) -> Report:
    """Errors of a prediction, in the reference's units.

    The reference is sampled at the prediction's frames and resolution. A pixel counts where the
    reference has geometry and the prediction's confidence is above 0; the share of the reference
    that counts is `provenance["coverage"]`. Weights are the reference's confidence. With fewer than
    two frames there is no pair of cameras and both AUCs are NaN. A sparse reference may lack
    frames: the others are compared, `provenance["frames"]` lists them, and what is said of each
    missing one is NaN.

    Raises:
        ComparisonError: the reference lacks one of the frames, no pixel is known to both sides, or
            the prediction holds a number that is not finite.
    """
    if reference.sparse:
        shared = np.isin(prediction.frames, reference.frames)
        if shared.any() and not shared.all():
            return _compare_shared(prediction, reference, shared)
    try:
        sampled = reference.at_frames(prediction.frames)
    except KeyError as error:
        raise ComparisonError(str(error.args[0])) from None
    if sampled.size != prediction.size:
        sampled = sampled.resized(*prediction.size)
    known = sampled.valid & (prediction.confidence > 0)
    weights = np.where(known, sampled.confidence, 0.0).astype(np.float64)

    points = point_error(prediction.points, sampled.points, weights)
    depth = depth_error(prediction.depth, sampled.depth, known)
    if not np.isfinite(prediction.cameras.cam_from_world).all():
        raise ComparisonError("a predicted camera is not a finite number; the prediction is broken")
    poses = pair_errors(prediction.cameras.cam_from_world, sampled.cameras.cam_from_world).worst
    per_frame = [
        {
            "frame": float(frame),
            "point_error": _mean(points.map[slot], weights[slot], known[slot]),
            "depth_error": _mean(depth.map[slot], np.ones_like(weights[slot]), known[slot]),
        }
        for slot, frame in enumerate(prediction.frames)
    ]
    return Report(
        point_error=points.error,
        depth_error=depth.error,
        auc5=auc(poses, 5.0),
        auc30=auc(poses, 30.0),
        alignment=points.alignment,
        depth_scale=depth.scale,
        point_error_map=points.map,
        depth_error_map=depth.map,
        per_frame=per_frame,
        provenance={
            "prediction": _origin(prediction),
            "reference": _origin(reference),
            "coverage": float(known.sum() / sampled.valid.sum()),
        },
    )


def _compare_shared(
    prediction: Reconstruction, reference: Reconstruction, shared: Bool[np.ndarray, " S"]
) -> Report:
    """The report on the frames of a prediction that the reference has, with room for the others."""
    frames = prediction.frames[shared]
    found = compare(prediction.at_frames(frames), reference)
    maps = [np.full(prediction.depth.shape, np.nan) for _ in range(2)]
    maps[0][shared], maps[1][shared] = found.point_error_map, found.depth_error_map
    unknown = {"point_error": float("nan"), "depth_error": float("nan")}
    rows = {int(frame): {"frame": float(frame), **unknown} for frame in prediction.frames}
    rows.update({int(row["frame"]): row for row in found.per_frame})
    return replace(
        found,
        point_error_map=maps[0],
        depth_error_map=maps[1],
        per_frame=[rows[int(frame)] for frame in prediction.frames],
        provenance={**found.provenance, "frames": frames.tolist()},
    )


def _mean(
    values: Float[np.ndarray, "H W"],
    weights: Float[np.ndarray, "H W"],
    known: Bool[np.ndarray, "H W"],
) -> float:
    if not known.any():
        return float("nan")
    return float(np.average(values[known], weights=weights[known]))


def _origin(side: Reconstruction) -> dict[str, Any]:
    return {"source": side.source, **side.provenance}
