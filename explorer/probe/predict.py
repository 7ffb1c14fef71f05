"""A probe's reconstruction of one clip, frame by frame as it is computed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from explorer._typing import Float
from explorer.camera import Cameras
from explorer.errors import ProbeError
from explorer.features import Features
from explorer.nets.pose import decode_pose
from explorer.probe.checkpoint import ProbeCard
from explorer.probe.model import Probe
from explorer.reconstruction import Reconstruction

FIELD_OF_VIEW = (0.05, 3.0)
"""Radians between which a predicted field of view gives a usable focal length."""


@dataclass(frozen=True)
class FramePrediction:
    """What a probe says about one slot, in the frame of the first predicted camera.

    Lengths of depth, points and cameras are in one unit: the probe's estimate of the mean distance
    of the first frame's points, in which depth and translations were trained.

    Attributes:
        slot: which time slot of the features.
        frame: the frame of the clip that stands for it.
        depth: (H, W) z-depth.
        points: (H, W, 3).
        confidence: (H, W) of the points, > 1.
        cam_from_world: (3, 4); the identity for slot 0.
        intrinsics: (3, 3) in pixels of the (H, W) maps.
    """

    slot: int
    frame: int
    depth: Float[np.ndarray, "H W"]
    points: Float[np.ndarray, "H W 3"]
    confidence: Float[np.ndarray, "H W"]
    cam_from_world: Float[np.ndarray, "3 4"]
    intrinsics: Float[np.ndarray, "3 3"]


def predict_frames(probe: Probe, features: Features) -> Iterator[FramePrediction]:
    """Predictions of all slots, in order; nothing but the trunk is computed ahead of time.

    The point loss is free of scale (`explorer.probe.losses`), so the network's points have a unit
    of their own. One factor, from slot 0, brings those of all slots into that of depth and cameras.

    Args:
        probe: in evaluation mode, on any device.
        features: of the cell that the probe was trained on.

    Raises:
        ProbeError: the features have another number of channels than the probe reads.
    """
    channels = features.values.shape[-1]
    if channels != probe.config.in_channels:
        raise ProbeError(
            f"this probe reads {probe.config.in_channels} channels; {features.backbone} layer "
            f"{features.layer} has {channels}: use a probe trained on this cell"
        )
    device = next(probe.parameters()).device
    with torch.inference_mode():
        values = torch.from_numpy(np.asarray(features.values, dtype=np.float32))
        taps = probe.trunk(values[None].to(device))
        size = probe.config.size_for(features.grid)
        cameras = cameras_of(probe.cameras(taps)[-1][0], size)
    unit = None
    for slot, frame in enumerate(features.slot_frames.tolist()):
        # a generator must not leave inference mode switched on in its caller
        with torch.inference_mode():
            maps = probe.dense(taps, features.grid, frames=slice(slot, slot + 1))
            depth, points, confidence = (
                field[0].cpu().numpy()
                for field in (maps.depth, maps.points, maps.points_confidence)
            )
        if unit is None:
            unit = point_unit(points, depth)
        yield FramePrediction(
            slot=slot,
            frame=frame,
            depth=depth,
            points=points / unit,
            confidence=confidence,
            cam_from_world=cameras.cam_from_world[slot],
            intrinsics=cameras.intrinsics[slot],
        )


def point_unit(points: Float[np.ndarray, "H W 3"], depth: Float[np.ndarray, "H W"]) -> np.float32:
    """The length of depth's unit in that of the points of the first camera: median of z / depth.

    A median, as most of a frame agrees and its sky, where neither map was trained, does not. 1
    where no pixel has both in front of the camera.
    """
    z = points[..., 2]
    known = (z > 0) & (depth > 0) & np.isfinite(z) & np.isfinite(depth)
    if not known.any():
        return np.float32(1.0)
    return np.float32(np.median(z[known].astype(np.float64) / depth[known]))


def cameras_of(encoding: Float[torch.Tensor, "S 9"], size: tuple[int, int]) -> Cameras:
    """Cameras of pose encodings in the frame of the first, for pictures of (H, W) `size`."""
    encoding = encoding.double().cpu()
    fov = encoding[:, 7:].clamp(*FIELD_OF_VIEW)
    extrinsics, intrinsics = decode_pose(torch.cat([encoding[:, :7], fov], dim=1), size)
    relative = Cameras(extrinsics.numpy(), intrinsics.numpy(), size).relative_to_first()
    return Cameras(
        relative.cam_from_world.astype(np.float32), relative.intrinsics.astype(np.float32), size
    )


def assemble(
    frames: Sequence[FramePrediction], features: Features, *, card: ProbeCard | None = None
) -> Reconstruction:
    """One reconstruction of the predictions of all slots.

    Args:
        frames: from `predict_frames`, in order.
        features: what they were predicted from.
        card: of the probe, for the provenance.
    """
    provenance: dict[str, Any] = {
        "probe": card.sha256 if card else None,
        "trained": card.trained if card else None,
        "backbone": features.backbone,
        "backbone_hash": features.backbone_hash,
        "layer": features.layer,
        "sigma": features.sigma,
        "seed": features.seed,
    }
    depth = np.stack([frame.depth for frame in frames])
    return Reconstruction(
        frames=np.array([frame.frame for frame in frames], dtype=np.int64),
        depth=depth,
        points=np.stack([frame.points for frame in frames]),
        confidence=np.stack([frame.confidence for frame in frames]),
        cameras=Cameras(
            np.stack([frame.cam_from_world for frame in frames]),
            np.stack([frame.intrinsics for frame in frames]),
            (depth.shape[1], depth.shape[2]),
        ),
        source=f"probe {features.backbone} layer {features.layer} sigma {features.sigma:g}",
        provenance=provenance,
    )


def predict(probe: Probe, features: Features, *, card: ProbeCard | None = None) -> Reconstruction:
    """The whole reconstruction at once.

    Raises:
        ProbeError: as `predict_frames`.
    """
    return assemble(list(predict_frames(probe, features)), features, card=card)
