"""Held-out scenes of the world with exact geometry, and the constant answer to hold probes against.

Runs where only torch and numpy are: pictures come from the renderer, not from a video file.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from explorer._typing import Float, Int
from explorer.camera import Cameras, unproject
from explorer.clip import Clip, clip_from_frames
from explorer.data.world.render import render
from explorer.data.world.scene import sample_scenes
from explorer.data.world.splits import split_seeds
from explorer.reconstruction import Reconstruction

if TYPE_CHECKING:
    from explorer.data.world.scene import Scenes

BATCH = 8


@dataclass(frozen=True)
class Scene:
    """One rendered clip and its geometry at the frames that reconstructions are compared at.

    Attributes:
        seed: of the scene.
        clip: its pictures, as rendered.
        exact: geometry of the slots' frames, by the (height, width) of its maps.
    """

    seed: int
    clip: Clip
    exact: dict[tuple[int, int], Reconstruction]


def render_scene(
    seed: int,
    frames: int,
    slot_frames: Int[np.ndarray, " S"],
    *,
    size: tuple[int, int],
    maps: Collection[tuple[int, int]],
    device: str,
) -> Scene | None:
    """Pictures of the first `frames` frames and exact geometry; None where frame 0 sees only sky.

    Args:
        seed: of the scene.
        frames: how many pictures.
        slot_frames: frames with geometry.
        size: (height, width) of the pictures; there is always geometry of this size.
        maps: further sizes of geometry, traced at their own pixel centres.
        device: where to render.
    """
    exact = {}
    for shape in {size, *maps}:
        found = exact_geometry([seed], slot_frames, size=shape, device=device)[0]
        if found is None:
            return None
        exact[shape] = found
    scenes = sample_scenes([seed])
    # One frame at a time keeps the rays of a frame in a processor's cache.
    groups = [[frame] for frame in range(frames)] if device == "cpu" else [list(range(frames))]
    parts = [
        render(scenes, height=size[0], width=size[1], device=device, frames=group).images[0]
        for group in groups
    ]
    pictures = np.concatenate([part.cpu().numpy() for part in parts])
    return Scene(seed, clip_from_frames(pictures, name=f"scene {seed}", fps=8.0), exact)


def exact_geometry(
    seeds: Sequence[int],
    frames: Int[np.ndarray, " S"],
    *,
    size: tuple[int, int],
    device: str,
) -> list[Reconstruction | None]:
    """Normalised exact geometry of scenes at the pixel centres of any size, without pictures.

    Args:
        seeds: of the scenes.
        frames: of each clip.
        size: (height, width) of the maps.
        device: where to trace rays.

    Returns:
        One reconstruction a scene; None where the first frame sees only sky.
    """
    scenes = sample_scenes(list(seeds))
    rendered = render(
        scenes,
        height=size[0],
        width=size[1],
        device=device,
        frames=[int(frame) for frame in frames],
        images=False,
    )
    depth = rendered.depth.cpu().numpy()
    return [_reconstruction(scenes, index, depth[index], frames) for index in range(len(seeds))]


def _reconstruction(
    scenes: Scenes, index: int, depth: Float[np.ndarray, "S H W"], frames: Int[np.ndarray, " S"]
) -> Reconstruction | None:
    if not (depth[0] > 0).any():
        return None
    height, width = depth.shape[1:]
    matrix = scenes.intrinsics(height, width)[index]
    poses = scenes.cam_from_world[index][np.asarray(frames)]
    cameras = Cameras(poses, np.repeat(matrix[None], len(frames), axis=0), (height, width))
    whole = Reconstruction(
        frames=np.asarray(frames, dtype=np.int64),
        depth=depth,
        points=unproject(depth, cameras),
        confidence=(depth > 0).astype(np.float32),
        cameras=cameras,
        source="exact",
        provenance={"seed": int(scenes.seeds[index])},
    )
    return whole.normalized()


def training_geometry(
    count: int, frames: Int[np.ndarray, " S"], *, size: tuple[int, int], device: str
) -> Iterator[Reconstruction]:
    """Normalised geometry of the first scenes of the training split."""
    seeds = split_seeds("train", count)
    for start in range(0, count, BATCH):
        batch = seeds[start : start + BATCH]
        for found in exact_geometry(batch, frames, size=size, device=device):
            if found is not None:
                yield found


def mean_reconstruction(
    many: Iterator[Reconstruction] | Sequence[Reconstruction],
) -> Reconstruction:
    """The mean of normalised reconstructions, pixel by pixel: the best answer without looking.

    Depth and points average over the scenes that have geometry at a pixel. Rotations are averaged
    as the nearest rotation to the mean matrix (chordal mean), translations and intrinsics plainly.

    Raises:
        ValueError: there is none.
    """
    count = 0
    for each in many:
        known = each.valid
        fields = {
            "known": known.astype(np.float64),
            "depth": np.where(known, each.depth, 0.0).astype(np.float64),
            "points": np.where(known[..., None], each.points, 0.0).astype(np.float64),
            "cam_from_world": each.cameras.cam_from_world.astype(np.float64),
            "intrinsics": each.cameras.intrinsics.astype(np.float64),
        }
        if count == 0:
            sums, first = fields, each
        else:
            sums = {name: sums[name] + values for name, values in fields.items()}
        count += 1
    if count == 0:
        raise ValueError("the mean of no reconstruction: give at least one")
    seen = np.maximum(sums["known"], 1.0)
    poses = sums["cam_from_world"] / count
    poses[:, :, :3] = _nearest_rotation(poses[:, :, :3])
    return Reconstruction(
        frames=first.frames,
        depth=(sums["depth"] / seen).astype(np.float32),
        points=(sums["points"] / seen[..., None]).astype(np.float32),
        confidence=(sums["known"] > 0).astype(np.float32),
        cameras=Cameras(
            poses.astype(np.float32), (sums["intrinsics"] / count).astype(np.float32), first.size
        ),
        source="training mean per pixel",
        provenance={"scenes": count},
    )


def _nearest_rotation(matrices: Float[np.ndarray, "S 3 3"]) -> Float[np.ndarray, "S 3 3"]:
    u, _, v = np.linalg.svd(matrices)
    sign = np.sign(np.linalg.det(u @ v))
    u[:, :, 2] *= sign[:, None]
    return np.asarray(u @ v)
