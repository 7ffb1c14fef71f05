"""The similarity that most points agree on."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from explorer.errors import ComparisonError
from explorer.metrics.align import similarity
from explorer.metrics.robust import distances, trimmed_similarity


@pytest.mark.parametrize("share", [0.0, 0.2, 0.45])
def test_points_that_lie_anywhere_change_nothing(share: float) -> None:
    rng = np.random.default_rng(1)
    source = rng.normal(size=(500, 3))
    turn = Rotation.from_rotvec([0.3, -0.2, 0.5])
    target = 2.5 * turn.apply(source) + [1, 2, 3]
    wrong = np.arange(500) < share * 500
    target[wrong] = 3 * target[wrong] + 5
    found = trimmed_similarity(source, target)
    assert found.scale == pytest.approx(2.5, abs=1e-9)
    np.testing.assert_allclose(found.rotation, turn.as_matrix(), atol=1e-9)
    assert distances(found, source, target)[~wrong].max() < 1e-9
    if share:
        assert abs(similarity(source, target).scale - 2.5) > 0.2


def test_with_noise_alone_it_is_near_least_squares_and_always_the_same() -> None:
    rng = np.random.default_rng(1)
    source = rng.normal(size=(3000, 3))
    target = 2 * source + 0.05 * rng.normal(size=source.shape)
    found, again = (trimmed_similarity(source, target) for _ in range(2))
    assert found.scale == again.scale
    assert found.scale == pytest.approx(similarity(source, target).scale, rel=0.01)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_points_have_a_similarity_too(count: int) -> None:
    source = np.eye(3)[:count]
    found = trimmed_similarity(source, source + [0, 0, 1])
    assert distances(found, source, source + [0, 0, 1]).max() < 1e-9


def test_no_points_have_none() -> None:
    with pytest.raises(ComparisonError):
        trimmed_similarity(np.zeros((0, 3)), np.zeros((0, 3)))
