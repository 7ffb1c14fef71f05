from __future__ import annotations

import numpy as np
import pytest
from jaxtyping import TypeCheckError

from explorer.camera import Cameras


def test_shapes_of_the_library_are_checked_at_run_time_in_this_suite() -> None:
    extrinsics, intrinsics = np.zeros((2, 3, 4)), np.zeros((2, 3, 3))
    Cameras(extrinsics, intrinsics, (144, 256))
    with pytest.raises(TypeCheckError, match="S 3 3"):
        Cameras(extrinsics, intrinsics[:1], (144, 256))
