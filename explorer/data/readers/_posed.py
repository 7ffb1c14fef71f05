"""Scenes of pictures with known cameras, and depth maps or sparse points where there are some."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from explorer import _images
from explorer._sparse import splat
from explorer._typing import Float, Int, UInt8
from explorer.backbones.base import never, stop_check
from explorer.clip import Clip
from explorer.data.lens import Lens
from explorer.data.readers import _common as common
from explorer.data.scene import Scene, SceneEntry, View
from explorer.errors import DatasetError
from explorer.reconstruction import Reconstruction


@dataclass(frozen=True)
class Posed:
    """A picture.

    Attributes:
        path: of its file.
        cam_from_world: (3, 4).
        lens: its camera for pictures of a (height, width).
        depth: reads its depth map in the scene's unit, None without.
        points: (N,) rows of the scene's sparse points that were observed in it.
    """

    path: Path
    cam_from_world: Float[np.ndarray, "3 4"]
    lens: Callable[[tuple[int, int]], Lens]
    depth: Callable[[], Float[np.ndarray, "h w"]] | None = None
    points: Int[np.ndarray, " N"] | None = None


class PosedScene(Scene):
    """Pictures in order; distortion is taken out of them.

    Args:
        entry: of the scene.
        pictures: at least one.
        points: (P, 3) sparse points in the cameras' world, instead of depth maps.
    """

    def __init__(
        self,
        entry: SceneEntry,
        *,
        dataset: str,
        pictures: Sequence[Posed],
        geometry: str | None,
        unit: str | None = None,
        points: Float[np.ndarray, "P 3"] | None = None,
    ) -> None:
        self.pictures = pictures
        self.points = points
        treatments = {each.lens(self.size).treatment for each in pictures}
        super().__init__(
            entry,
            dataset=dataset,
            frames=len(pictures),
            geometry=geometry,
            unit=unit,
            treatment=" ".join(sorted(treatments)),
        )

    @cached_property
    def size(self) -> tuple[int, int]:
        """(height, width) of the pictures, from the first one's header."""
        path = self.pictures[0].path
        return _images.header_size(path.name, common.read_bytes(path))

    def source(self, frame: int) -> bytes:
        """The picture's file."""
        return common.read_bytes(self.pictures[frame].path)

    def picture(self, frame: int, data: bytes) -> UInt8[np.ndarray, "H W 3"]:
        """Without distortion."""
        image = super().picture(frame, data)
        if image.shape[:2] != self.size:
            raise DatasetError(
                f"{self.pictures[frame].path} is {image.shape[1]}x{image.shape[0]}, others of its "
                f"scene are {self.size[1]}x{self.size[0]}"
            )
        return self.pictures[frame].lens(self.size).picture(image)

    def view(self, frame: int) -> View:
        """Camera, and the depth map where there is one, without distortion."""
        found = self.pictures[frame]
        lens = found.lens(self.size)
        depth = None
        if found.depth is not None:
            depth = found.depth()
            if not lens.straight:
                depth = straightened(lens, depth)
        return View(lens.intrinsics, found.cam_from_world, depth)

    def reconstruction(
        self, clip: Clip, *, should_stop: Callable[[], bool] = never
    ) -> Reconstruction:
        """From depth maps; without them the sparse points, each in the pixel it projects into.

        Raises:
            NoReconstruction: neither is there, or the clip's first frame has none.
            DatasetError: the clip is not of this scene, or the dataset's files are damaged.
            Cancelled: `should_stop` became true.
        """
        if self.points is None:
            return super().reconstruction(clip, should_stop=should_stop)
        cameras = self.cameras(clip)
        maps = []
        for slot, frame in enumerate(clip.source_frames):
            stop_check(should_stop)
            rows = self.pictures[int(frame)].points
            points = self.points[[] if rows is None else rows]
            maps.append(
                splat(
                    points,
                    np.ones(len(points)),
                    cameras.cam_from_world[slot],
                    cameras.intrinsics[slot],
                    size=clip.size,
                )
            )
        depth, points_map, confidence = (np.stack(each) for each in zip(*maps, strict=True))
        return self.normalized(
            Reconstruction(
                frames=np.arange(len(clip), dtype=np.int64),
                depth=depth,
                points=points_map,
                confidence=confidence,
                cameras=cameras,
                source=f"{self.dataset}: {self.geometry}",
                provenance=self.provenance(clip),
                sparse=True,
            )
        )


def straightened(lens: Lens, depth: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "h w"]:
    """A depth map of any resolution without the distortion of a camera."""
    height, width = depth.shape
    matrix = common.scaled(lens.intrinsics, width / lens.size[1], height / lens.size[0])
    return replace(lens, intrinsics=matrix, size=(height, width)).depth(depth)
