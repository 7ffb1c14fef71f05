"""One prepared clip: its pictures and reference geometry as bytes, and the record that says how to
read them.

Points are not kept: unprojecting the depth gives them back. Only a sparse reference, whose points
lie beside the pixels' centres, is kept as points.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from explorer.camera import Cameras
from explorer.clip import Clip
from explorer.data.prepared.codes import (
    CONFIDENCE_STEP,
    DEPTH_STEP,
    LOSSLESS,
    LogCode,
    decode_map,
    decode_picture,
    encode_map,
    encode_picture,
    psnr,
)
from explorer.errors import DatasetError
from explorer.reconstruction import Reconstruction

Payload = dict[str, list[bytes]]
"""Bytes by kind: "pictures" of all frames, then "depth" and "confidence", or "points", of those
that have geometry."""


@dataclass(frozen=True)
class EncodedClip:
    """What a clip takes on disk.

    Attributes:
        payload: see `Payload`.
        record: how to decode it, JSON-ready.
        precision: what was lost, measured on this clip: "picture_psnr_db" (None without loss), and
            the largest and mean relative errors "depth_error", "depth_error_mean",
            "confidence_error" (0 for sparse points, which are exact).
    """

    payload: Payload
    record: dict[str, Any]
    precision: dict[str, float | None]


def encode_clip(clip: Clip, found: Reconstruction, *, quality: int) -> EncodedClip:
    """Bytes of a clip and what a reference says about it.

    Args:
        clip: its pictures, of any whole multiple of the size that the reference saw.
        found: the geometry, normalised.
        quality: of the pictures: 1 to 100, or `LOSSLESS`.

    Raises:
        DatasetError: the reference's points are not its depth seen through its cameras, so they
            would be lost.
        ValueError: numbers that are negative or not finite.
    """
    pictures = [encode_picture(frame, quality=quality) for frame in clip.frames]
    shown = np.stack([decode_picture(clip.name, data) for data in pictures])
    quietness = psnr(clip.frames, shown)
    if found.sparse:
        maps, stated, precision = _sparse(found)
    else:
        maps, stated, precision = _dense(found)
    cameras = found.cameras
    record = {
        "timestamps": clip.timestamps.tolist(),
        "pictures": {
            "size": list(clip.size),
            "suffix": "png" if quality >= LOSSLESS else "jpg",
            "quality": quality,
        },
        "maps": {"size": list(found.size), "frames": found.frames.tolist(), **stated},
        "cameras": {
            "cam_from_world": cameras.cam_from_world.astype(np.float64).tolist(),
            "intrinsics": cameras.intrinsics.astype(np.float64).tolist(),
        },
    }
    precision["picture_psnr_db"] = None if np.isinf(quietness) else quietness
    return EncodedClip({"pictures": pictures, **maps}, record, precision)


def decode_cameras(record: dict[str, Any]) -> Cameras:
    """The cameras of the frames that have geometry, float64, in pixels of the maps."""
    height, width = record["maps"]["size"]
    values = record["cameras"]
    return Cameras(
        np.asarray(values["cam_from_world"], dtype=np.float64),
        np.asarray(values["intrinsics"], dtype=np.float64),
        (int(height), int(width)),
    )


def _dense(found: Reconstruction) -> tuple[Payload, dict[str, Any], dict[str, float | None]]:
    if not found.points_are_depth():
        raise DatasetError(
            f"the points of {found.source} are not its depth seen through its cameras, and only "
            "depth and cameras are kept: choose a reference whose points are its depth"
        )
    payload: Payload = {}
    stated: dict[str, Any] = {"sparse": False}
    precision: dict[str, float | None] = {}
    for kind, step in (("depth", DEPTH_STEP), ("confidence", CONFIDENCE_STEP)):
        values = np.where(found.valid, getattr(found, kind), 0.0)
        code = LogCode.fit(values, step=step)
        codes = code.encode(values)
        payload[kind] = [encode_map(each) for each in codes]
        stated[kind] = code.to_dict()
        again = np.stack([code.decode(decode_map(kind, each)) for each in payload[kind]])
        errors = np.abs(again[found.valid].astype(np.float64) / values[found.valid] - 1)
        precision[f"{kind}_error"] = float(errors.max(initial=0.0))
        if kind == "depth":
            precision["depth_error_mean"] = float(errors.mean()) if len(errors) else 0.0
    return payload, stated, precision


def _sparse(found: Reconstruction) -> tuple[Payload, dict[str, Any], dict[str, float | None]]:
    points = [
        np.concatenate(
            [found.points[slot][known], found.confidence[slot][known][:, None]], axis=1
        ).astype("<f4")
        for slot, known in enumerate(found.valid)
    ]
    precision: dict[str, float | None] = {
        "depth_error": 0.0, "depth_error_mean": 0.0, "confidence_error": 0.0,
    }  # fmt: skip
    return {"points": [each.tobytes() for each in points]}, {"sparse": True}, precision
