"""Targets and losses of the probe, after VidFM3D (arXiv 2512.19949) section 3.

All functions are batched torch without host synchronisation, so that they run inside a compiled
training step. `weight` is the confidence of the reference per pixel: 0 where there is no geometry
(sky, holes), 1 where it is exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F

from explorer._typing import Bool, Float
from explorer.nets.pose import encode_pose
from explorer.probe.model import ProbeOutput

CLAMP = 100.0
CAMERA_WEIGHT = 5.0
"""Of the camera loss in the sum, as in VGGT (arXiv 2503.11651). The published probe's loss has 1,
at which the Huber differences of poses are about a hundredth of the sum and hardly trained."""

CONFIDENCE_WEIGHT = 0.1
"""Of the confidence loss in the sum."""


class LossWeights(NamedTuple):
    """What the parts of the loss count.

    Attributes:
        camera_weight, confidence_weight, all_pixels: see `probe_loss`.
    """

    camera_weight: float = CAMERA_WEIGHT
    confidence_weight: float = CONFIDENCE_WEIGHT
    all_pixels: bool = False


PUBLISHED_LOSS = LossWeights(camera_weight=1.0, confidence_weight=0.0, all_pixels=True)
"""Of the published probe, whose confidences nobody trains."""


class Targets(NamedTuple):
    """What the probe should say about B clips of S frames.

    Lengths are relative to the mean distance of the first frame's valid points from its camera;
    the world frame is the first camera.

    Attributes:
        depth: (B, S, H, W) z-depth; 0 where invalid.
        points: (B, S, H, W, 3); 0 where invalid.
        cam_from_world: (B, S, 3, 4).
        pose_encoding: (B, S, 9), see `explorer.nets.pose`.
        weight: (B, S, H, W) confidence of the reference; 0 where invalid.
        unit: (B,) the length that everything was divided by.
    """

    depth: torch.Tensor
    points: torch.Tensor
    cam_from_world: torch.Tensor
    pose_encoding: torch.Tensor
    weight: torch.Tensor
    unit: torch.Tensor


def normalize_targets(
    depth: Float[torch.Tensor, "B S H W"],
    cam_from_world: Float[torch.Tensor, "B S 3 4"],
    intrinsics: Float[torch.Tensor, "B S 3 3"],
    valid: Bool[torch.Tensor, "B S H W"],
    *,
    weight: Float[torch.Tensor, "B S H W"] | None = None,
    pixel_center: float = 0.5,
) -> Targets:
    """Depth maps and cameras moved into the first camera's frame and scaled to unit distance.

    Args:
        depth: (B, S, H, W) z-depth in any unit.
        cam_from_world: (B, S, 3, 4) extrinsics in the same unit, in any world frame.
        intrinsics: (B, S, 3, 3) in pixels of an (H, W) picture, without skew.
        valid: (B, S, H, W) where there is geometry. A clip whose first frame has none keeps its
            unit.
        weight: (B, S, H, W) confidence of the depth; 1 when None.
        pixel_center: coordinate of the centre of the first pixel; the official code has 0.
    """
    height, width = depth.shape[-2:]
    depth = torch.where(valid, depth, 0.0)
    rotation, translation = cam_from_world[..., :3], cam_from_world[..., 3]
    rotation = rotation @ rotation[:, :1].transpose(-1, -2)
    translation = translation - (rotation @ translation[:, :1, :, None]).squeeze(-1)
    x = torch.arange(width, device=depth.device, dtype=depth.dtype) + pixel_center
    y = torch.arange(height, device=depth.device, dtype=depth.dtype) + pixel_center
    k = intrinsics[..., None, None]
    ray_x = (x - k[:, :, 0, 2]) / k[:, :, 0, 0]
    ray_y = (y[:, None] - k[:, :, 1, 2]) / k[:, :, 1, 1]
    in_camera = torch.stack([ray_x * depth, ray_y * depth, depth], dim=-1)
    points = (in_camera - translation[:, :, None, None]) @ rotation[:, :, None]
    points = torch.where(valid[..., None], points, 0.0)

    count = valid[:, 0].sum((-1, -2))
    unit = points[:, 0].norm(dim=-1).sum((-1, -2)) / count.clamp_min(1)
    unit = torch.where(unit > 0, unit, 1.0)
    extrinsics = torch.cat([rotation, translation[..., None] / unit[:, None, None, None]], dim=-1)
    return Targets(
        depth=depth / unit[:, None, None, None],
        points=points / unit[:, None, None, None, None],
        cam_from_world=extrinsics,
        pose_encoding=encode_pose(extrinsics, intrinsics, (height, width)),
        weight=valid.to(depth.dtype) if weight is None else torch.where(valid, weight, 0.0),
        unit=unit,
    )


def mean_distance(
    points: Float[torch.Tensor, "B S H W 3"], valid: Bool[torch.Tensor, "B S H W"]
) -> Float[torch.Tensor, " B"]:
    """(B,) mean distance of the valid points of all frames from the origin."""
    distance = torch.where(valid, points.norm(dim=-1), 0.0).sum((1, 2, 3))
    return (distance / (valid.sum((1, 2, 3)) + 1e-3)).clamp(1e-3, 1e3)


def point_errors(
    predicted: Float[torch.Tensor, "B S H W 3"],
    target: Float[torch.Tensor, "B S H W 3"],
    valid: Bool[torch.Tensor, "B S H W"],
) -> Float[torch.Tensor, "B S H W"]:
    """Distances between two point maps, each first divided by its own mean distance."""
    ours = predicted / mean_distance(predicted, valid)[:, None, None, None, None]
    theirs = target / mean_distance(target, valid)[:, None, None, None, None]
    return torch.where(valid, (ours - theirs).norm(dim=-1).clamp(max=CLAMP), 0.0)


def weighted_mean(
    errors: Float[torch.Tensor, "B S H W"],
    weight: Float[torch.Tensor, "B S H W"],
    *,
    all_pixels: bool = False,
) -> Float[torch.Tensor, ""]:
    """Sum of weight * error over the number of pixels with weight > 0, or over all pixels."""
    total = (weight * errors).clamp(max=CLAMP).sum()
    if all_pixels:
        return total / weight.numel()
    return total / (weight > 0).sum().clamp_min(1)


def point_loss(
    predicted: Float[torch.Tensor, "B S H W 3"],
    target: Float[torch.Tensor, "B S H W 3"],
    weight: Float[torch.Tensor, "B S H W"],
    *,
    all_pixels: bool = False,
) -> Float[torch.Tensor, ""]:
    """L_pmap: weighted mean distance of two point maps, free of either one's scale."""
    errors = point_errors(predicted, target, weight > 0)
    return weighted_mean(errors, weight, all_pixels=all_pixels)


def depth_loss(
    predicted: Float[torch.Tensor, "B S H W"],
    target: Float[torch.Tensor, "B S H W"],
    weight: Float[torch.Tensor, "B S H W"],
    *,
    all_pixels: bool = False,
) -> Float[torch.Tensor, ""]:
    """L_dmap: weighted mean absolute difference, in units of the target."""
    errors = torch.where(weight > 0, (predicted - target).abs(), 0.0)
    return weighted_mean(errors, weight, all_pixels=all_pixels)


def camera_loss(
    predicted: Sequence[torch.Tensor],
    target: Float[torch.Tensor, "B S 9"],
    *,
    gamma: float = 0.6,
    fov_weight: float = 0.5,
) -> dict[str, torch.Tensor]:
    """L_cam: Huber (delta 1) differences of pose encodings, later passes counting more.

    Args:
        predicted: one (B, S, 9) per pass; pass i of n weighs gamma^(n-1-i) / n.
        target: (B, S, 9) with a unit quaternion, w >= 0.
        gamma: see above.
        fov_weight: of the field of view; translation and rotation weigh 1.

    Returns:
        Scalars "camera" (the weighted sum), "translation", "rotation", "fov".
    """
    passes = len(predicted)
    # Weights as plain numbers: a tensor made here would break the capture of a CUDA graph.
    decay = [gamma ** (passes - 1 - i) / passes for i in range(passes)]
    stacked = torch.stack(list(predicted))
    huber = F.huber_loss(stacked, target.expand_as(stacked), reduction="none").clamp(max=CLAMP)
    parts = {
        name: torch.stack([huber[i, ..., part].mean() * decay[i] for i in range(passes)]).sum()
        for name, part in (
            ("translation", slice(0, 3)),
            ("rotation", slice(3, 7)),
            ("fov", slice(7, 9)),
        )
    }
    total = parts["translation"] + parts["rotation"] + fov_weight * parts["fov"]
    return {"camera": total, **parts}


def confidence_loss(
    confidence: Float[torch.Tensor, "B S H W"],
    errors: Float[torch.Tensor, "B S H W"],
    weight: Float[torch.Tensor, "B S H W"],
    *,
    alpha: float = 0.5,
) -> Float[torch.Tensor, ""]:
    """Mean of confidence * error - alpha * log(confidence) over valid pixels (DUSt3R's form).

    The errors are constants here: the loss teaches the confidence alpha / error and nothing else,
    so that the maps themselves are trained on every pixel alike, as in the official probe.
    """
    valid = weight > 0
    terms = confidence * errors.detach() - alpha * confidence.log()
    return torch.where(valid, terms, 0.0).sum() / valid.sum().clamp_min(1)


def probe_loss(
    output: ProbeOutput,
    targets: Targets,
    *,
    alpha: float = 0.5,
    confidence_weight: float = CONFIDENCE_WEIGHT,
    camera_weight: float = CAMERA_WEIGHT,
    all_pixels: bool = False,
) -> dict[str, torch.Tensor]:
    """L_pmap + L_dmap + camera_weight * L_cam + confidence_weight * L_conf of one batch.

    Args:
        output: of the probe.
        targets: from `normalize_targets`.
        alpha: see `confidence_loss`.
        confidence_weight: of the confidence loss; 0 in the published probe's loss.
        camera_weight: of the camera loss; 1 in the published probe's loss.
        all_pixels: take means over all pixels, as the published probe's loss does.

    Returns:
        Scalars "total" and, without their weights, "points", "depth", "camera", "translation",
        "rotation", "fov", "confidence".
    """
    valid = targets.weight > 0
    point_error = point_errors(output.points, targets.points, valid)
    depth_error = torch.where(valid, (output.depth - targets.depth).abs(), 0.0)
    points = weighted_mean(point_error, targets.weight, all_pixels=all_pixels)
    depth = weighted_mean(depth_error, targets.weight, all_pixels=all_pixels)
    camera = camera_loss(output.pose_encodings, targets.pose_encoding)
    confidence = confidence_loss(
        output.points_confidence, point_error, targets.weight, alpha=alpha
    ) + confidence_loss(output.depth_confidence, depth_error, targets.weight, alpha=alpha)
    total = points + depth + camera_weight * camera["camera"] + confidence_weight * confidence
    return {
        "total": total,
        "points": points,
        "depth": depth,
        **camera,
        "confidence": confidence,
    }
