"""`Reconstruction`: the geometry of one clip, from anywhere."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from explorer._sparse import splat
from explorer._typing import Bool, Float, Int
from explorer.camera import Cameras, unproject


@dataclass(frozen=True)
class Reconstruction:
    """Depth, points and cameras of S frames of a clip, in the frame of the first camera.

    Attributes:
        frames: (S,) which frames of the clip.
        depth: (S, H, W) z-depth; 0 where nothing is known (sky, holes of a sensor).
        points: (S, H, W, 3) world points; the world frame is the first frame's camera.
        confidence: (S, H, W) >= 0; 0 where nothing is known.
        cameras: S cameras with `size` (H, W).
        source: who made it, e.g. "exact" or "probe toy-wan layer 5 sigma 0.3".
        provenance: hashes, scale, seeds: what a reader needs to trust or rebuild it.
        sparse: few pixels are known, each by a point that projects somewhere into it rather than to
            its centre; frames of the clip may be missing.

    Lengths are relative to the mean distance of the first frame's points from its camera.
    """

    frames: Int[np.ndarray, " S"]
    depth: Float[np.ndarray, "S H W"]
    points: Float[np.ndarray, "S H W 3"]
    confidence: Float[np.ndarray, "S H W"]
    cameras: Cameras
    source: str
    provenance: dict[str, Any] = field(default_factory=dict)
    sparse: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the maps."""
        return self.depth.shape[1], self.depth.shape[2]

    @property
    def valid(self) -> Bool[np.ndarray, "S H W"]:
        """(S, H, W) where there is geometry."""
        return (self.confidence > 0) & (self.depth > 0)

    def normalized(self) -> Reconstruction:
        """Moved into the first camera's frame and scaled to unit mean distance of its points.

        Raises:
            ValueError: the first frame has no valid point.
        """
        rotation, translation = (
            self.cameras.cam_from_world[0, :, :3],
            self.cameras.cam_from_world[0, :, 3],
        )
        points = self.points @ rotation.T + translation
        first = points[0][self.valid[0]]
        if len(first) == 0:
            raise ValueError("the first frame has no valid point to take the scale from")
        scale = float(np.linalg.norm(first.astype(np.float64), axis=-1).mean())
        points = np.where(self.valid[..., None], points / scale, 0.0)
        return Reconstruction(
            frames=self.frames,
            depth=(self.depth / scale).astype(np.float32),
            points=points.astype(np.float32),
            confidence=self.confidence,
            cameras=self.cameras.relative_to_first().scaled(1.0 / scale),
            source=self.source,
            provenance={**self.provenance, "unit": scale * self.provenance.get("unit", 1.0)},
            sparse=self.sparse,
        )

    def at_frames(self, frames: Int[np.ndarray, " K"]) -> Reconstruction:
        """The maps and cameras of the given frames of the clip; the world frame stays as it is.

        Raises:
            KeyError: a frame was not reconstructed.
        """
        position = {int(frame): index for index, frame in enumerate(self.frames)}
        missing = [int(frame) for frame in frames if int(frame) not in position]
        if missing:
            raise KeyError(f"{self.source} has no frames {missing}; it has {self.frames.tolist()}")
        index = np.array([position[int(frame)] for frame in frames], dtype=np.int64)
        return Reconstruction(
            frames=np.asarray(frames, dtype=np.int64),
            depth=self.depth[index],
            points=self.points[index],
            confidence=self.confidence[index],
            cameras=self.cameras.select(index),
            source=self.source,
            provenance=self.provenance,
            sparse=self.sparse,
        )

    def resized(self, height: int, width: int) -> Reconstruction:
        """Nearest-neighbour samples on another pixel grid (no value is mixed across an edge).

        The nearest pixel's centre may lie half a pixel off the new one. Points that are unprojected
        depth are unprojected again, so that they project to the centres of the new pixels; a point
        map of its own, as a probe's, is sampled as it is. Sparse points go to the new pixels that
        they project into, so that none is lost but those behind another in the same pixel.
        """
        if self.sparse:
            return self._splatted(height, width)
        rows = ((np.arange(height) + 0.5) * self.size[0] / height).astype(np.int64)
        columns = ((np.arange(width) + 0.5) * self.size[1] / width).astype(np.int64)
        pick = np.ix_(np.arange(len(self.frames)), rows, columns)
        depth, cameras = self.depth[pick], self.cameras.resized(height, width)
        points = self.points[pick]
        if self.points_are_depth():
            known = self.valid[pick][..., None]
            points = np.where(known, unproject(depth, cameras), 0.0).astype(points.dtype)
        return Reconstruction(
            frames=self.frames,
            depth=depth,
            points=points,
            confidence=self.confidence[pick],
            cameras=cameras,
            source=self.source,
            provenance=self.provenance,
        )

    def _splatted(self, height: int, width: int) -> Reconstruction:
        cameras = self.cameras.resized(height, width)
        maps = [
            splat(
                self.points[slot][known],
                self.confidence[slot][known],
                cameras.cam_from_world[slot],
                cameras.intrinsics[slot],
                size=(height, width),
            )
            for slot, known in enumerate(self.valid)
        ]
        depth, points, confidence = (np.stack(each) for each in zip(*maps, strict=True))
        return replace(self, depth=depth, points=points, confidence=confidence, cameras=cameras)

    def points_are_depth(self) -> bool:
        """Whether every known point is its pixel's depth seen through its camera."""
        valid = self.valid
        again = unproject(self.depth.astype(np.float64), self.cameras)[valid]
        off = np.linalg.norm(again - self.points[valid], axis=-1)
        # Above float32's rounding, below the quarter of a pixel that sampling at half size shifts.
        return bool((off <= 2e-4 * self.depth[valid]).all())
