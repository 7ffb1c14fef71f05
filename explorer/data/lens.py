"""Lens distortion, taken out of pictures and depth maps: what follows is a pinhole camera."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from explorer._typing import Float, UInt8


@dataclass(frozen=True)
class Lens:
    """A pinhole camera with OpenCV's radial and tangential distortion (Brown 1966).

    Attributes:
        intrinsics: (3, 3) in pixels of `size`, pixel centres at +0.5.
        distortion: (k1, k2, p1, p2, k3).
        size: (height, width) of the pictures.
    """

    intrinsics: Float[np.ndarray, "3 3"]
    distortion: tuple[float, float, float, float, float]
    size: tuple[int, int]

    @property
    def straight(self) -> bool:
        """Whether there is nothing to take out."""
        return not any(self.distortion)

    @property
    def treatment(self) -> str:
        """What is done to the pictures, for the hashes of clips."""
        if self.straight:
            return ""
        numbers = [*self.intrinsics.ravel().tolist(), *self.distortion]
        return "undistorted " + " ".join(repr(float(number)) for number in numbers)

    def picture(self, image: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "H W 3"]:
        """The picture that a pinhole camera of the same intrinsics takes; black where unseen."""
        if self.straight:
            return image
        import cv2

        return np.asarray(cv2.remap(image, *self._maps, cv2.INTER_LINEAR), dtype=np.uint8)

    def depth(self, depth: Float[np.ndarray, "H W"]) -> Float[np.ndarray, "H W"]:
        """The same for a depth map of the same camera: nearest neighbour, 0 where unseen."""
        if self.straight:
            return depth
        import cv2

        return np.asarray(cv2.remap(depth, *self._maps, cv2.INTER_NEAREST), dtype=depth.dtype)

    @cached_property
    def _maps(self) -> tuple[Float[np.ndarray, "H W"], Float[np.ndarray, "H W"]]:
        import cv2

        matrix = self.intrinsics.astype(np.float64)
        matrix[:2, 2] -= 0.5  # OpenCV puts the first pixel's centre at (0, 0)
        numbers, (height, width) = np.array(self.distortion), self.size
        across, down = cv2.initUndistortRectifyMap(
            matrix, numbers, None, matrix, (width, height), cv2.CV_32FC1
        )
        return np.asarray(across), np.asarray(down)
