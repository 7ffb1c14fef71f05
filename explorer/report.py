"""`Report`: what a comparison of two reconstructions found."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from explorer._typing import Float


@dataclass(frozen=True)
class Alignment:
    """The similarity that carries predicted points onto the reference: x -> s R x + t."""

    scale: float
    rotation: Float[np.ndarray, "3 3"]
    translation: Float[np.ndarray, " 3"]

    def apply(self, points: Float[np.ndarray, "... 3"]) -> Float[np.ndarray, "... 3"]:
        """Aligned points, same shape."""
        return np.asarray(self.scale * points @ self.rotation.T + self.translation)


@dataclass(frozen=True)
class Report:
    """Errors of a prediction against a reference, lengths in the reference's units.

    Attributes:
        point_error: mean distance after Sim(3) alignment.
        depth_error: mean absolute depth difference after median scaling.
        auc5, auc30: area under the pose recall curve up to 5 and 30 degrees.
        alignment: the similarity used for the point error.
        depth_scale: the factor used for the depth error.
        point_error_map, depth_error_map: (S, H, W), NaN where the reference knows nothing.
        per_frame: one dict per slot: frame, point_error, depth_error.
        provenance: both sides' sources and hashes.
    """

    point_error: float
    depth_error: float
    auc5: float
    auc30: float
    alignment: Alignment
    depth_scale: float
    point_error_map: Float[np.ndarray, "S H W"]
    depth_error_map: Float[np.ndarray, "S H W"]
    per_frame: list[dict[str, float]]
    provenance: dict[str, Any] = field(default_factory=dict)
