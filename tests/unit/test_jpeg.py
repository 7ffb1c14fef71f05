from __future__ import annotations

import cv2
import numpy as np
import pytest

from explorer.jpeg import encode_jpeg


def test_a_picture_comes_back_with_its_colours_in_order() -> None:
    image = np.zeros((16, 24, 3), dtype=np.uint8)
    image[:] = (200, 120, 20)
    data = encode_jpeg(image)
    assert data.startswith(b"\xff\xd8")
    back = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert back.shape == image.shape
    assert np.abs(back.astype(int) - image).max() <= 3


def test_less_quality_takes_less_room() -> None:
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    assert len(encode_jpeg(image, quality=30)) < len(encode_jpeg(image, quality=90)) / 1.5


@pytest.mark.parametrize("shape", [(0, 4, 3), (1, 65536, 3)])
def test_what_cannot_be_jpeg_is_refused(shape: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="cannot be JPEG"):
        encode_jpeg(np.zeros(shape, dtype=np.uint8))
