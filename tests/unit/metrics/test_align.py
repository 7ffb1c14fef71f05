"""The alignment against Umeyama's closed form, written out here with numpy's SVD."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from explorer.errors import ComparisonError
from explorer.metrics.align import confident, similarity


def umeyama(source, target):
    """Umeyama 1991, equations 34 to 43."""
    mean_source, mean_target = source.mean(0), target.mean(0)
    x, y = source - mean_source, target - mean_target
    u, d, vt = np.linalg.svd(y.T @ x / len(x))
    sign = np.ones(3)
    sign[2] = np.sign(np.linalg.det(u) * np.linalg.det(vt))
    rotation = u @ np.diag(sign) @ vt
    scale = (d * sign).sum() / (x**2).sum(1).mean()
    return scale, rotation, mean_target - scale * rotation @ mean_source


def cloud(seed, count=200, noise=0.1):
    rng = np.random.default_rng(seed)
    source = rng.normal(size=(count, 3)) * [1.0, 2.0, 0.5]
    turn = Rotation.random(random_state=seed).as_matrix()
    return source, 1.7 * source @ turn.T + [0.3, -2, 1] + rng.normal(scale=noise, size=(count, 3))


@pytest.mark.parametrize("seed", range(5))
def test_similarity_equals_umeyamas_closed_form(seed):
    source, target = cloud(seed)
    found = similarity(source, target)
    scale, rotation, translation = umeyama(source, target)
    assert found.scale == pytest.approx(scale, rel=1e-9)
    np.testing.assert_allclose(found.rotation, rotation, atol=1e-9)
    np.testing.assert_allclose(found.translation, translation, atol=1e-9)


def test_rotation_equals_scipys_align_vectors():
    source, target = cloud(7)
    expected, _ = Rotation.align_vectors(target - target.mean(0), source - source.mean(0))
    np.testing.assert_allclose(similarity(source, target).rotation, expected.as_matrix(), atol=1e-8)


def test_a_mirrored_cloud_still_gets_a_proper_rotation():
    source, _ = cloud(1)
    found = similarity(source, source * [1, 1, -1])
    assert np.linalg.det(found.rotation) == pytest.approx(1.0)


def test_no_other_similarity_nearby_fits_better():
    source, target = cloud(3, noise=0.3)
    found = similarity(source, target)
    best = ((found.apply(source) - target) ** 2).sum()
    rng = np.random.default_rng(0)
    for _ in range(50):
        turn = Rotation.from_rotvec(rng.normal(scale=0.02, size=3)).as_matrix()
        scale = found.scale * (1 + rng.normal(scale=0.02))
        shifted = found.translation + rng.normal(scale=0.02, size=3)
        other = scale * source @ (turn @ found.rotation).T + shifted
        assert ((other - target) ** 2).sum() > best


def test_coinciding_points_are_moved_onto_the_mean_without_scaling():
    found = similarity(np.full((4, 3), 2.0), np.arange(12.0).reshape(4, 3))
    assert found.scale == 1.0
    np.testing.assert_allclose(found.apply(np.full((1, 3), 2.0))[0], [4.5, 5.5, 6.5])


def test_nothing_to_align_is_an_error_that_says_so():
    with pytest.raises(ComparisonError, match="nothing can be aligned"):
        similarity(np.zeros((0, 3)), np.zeros((0, 3)))


def test_a_point_that_is_not_finite_is_refused():
    with pytest.raises(ComparisonError, match="not a finite number"):
        similarity(np.array([[0.0, 0, np.nan]]), np.zeros((1, 3)))


def test_constant_confidence_chooses_all_known_pixels_and_no_others():
    confidence = np.array([[1.0, 0, 1], [0, 1, 1]])
    np.testing.assert_array_equal(confident(confidence), confidence > 0)


def test_confident_is_the_top_quarter_counted_by_hand():
    confidence = np.random.default_rng(0).permutation(np.arange(1.0, 101.0))
    np.testing.assert_array_equal(confident(confidence), confidence >= 76)


def test_nothing_known_chooses_nothing():
    assert not confident(np.zeros((2, 3))).any()
