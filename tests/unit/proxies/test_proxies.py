"""Proxies on features that encode a scene perfectly, by chance, or in the wrong order."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
from box_scene import (
    GRID,
    SIZE,
    SLOT_FRAMES,
    as_features,
    box,
    cameras,
    noise,
    perfect,
    place_only,
)

from explorer.camera import project
from explorer.correspondence import correspondence_summary, token_centers
from explorer.features import Features
from explorer.proxies import (
    cycle_consistency,
    epipolar_consistency,
    proxies_of,
    true_match_errors,
)
from explorer.proxies.epipolar import epipolar_distances, fit_fundamental, true_fundamental
from explorer.proxies.matching import mutual_matches, top_matches
from explorer.reconstruction import Reconstruction

TOKENS = GRID[0] * GRID[1]
HALF_TOKEN = 0.5 * np.hypot(SIZE[0] / GRID[0], SIZE[1] / GRID[1])


@pytest.fixture(scope="module")
def truth() -> Reconstruction:
    return box(SIZE)


@pytest.fixture(scope="module")
def knows() -> Features:
    return perfect(box(GRID))


def swapped(features: Features) -> Features:
    """The second and third slot hold each other's features."""
    return dataclasses.replace(features, values=features.values[[0, 2, 1]])


def test_the_true_matrix_holds_for_the_projections_of_any_points(truth: Reconstruction) -> None:
    points = np.random.default_rng(0).uniform([-2, -1, 2], [2, 1, 5], size=(50, 3))
    seen = cameras(SIZE)
    one, two = (
        project(points, seen.cam_from_world[frame], seen.intrinsics[frame])[0] for frame in (1, 5)
    )
    matrix = true_fundamental(truth, 1, 5, size=SIZE)
    assert matrix is not None
    assert epipolar_distances(matrix, one, two).max() < 1e-8
    # Other image sizes are other pixels, not another geometry.
    half = true_fundamental(truth, 1, 5, size=(72, 128))
    assert half is not None
    assert epipolar_distances(half, one / 2, two / 2).max() < 1e-8


def test_the_distance_is_in_pixels_and_the_same_both_ways(truth: Reconstruction) -> None:
    matrix = true_fundamental(truth, 0, 5, size=SIZE)
    assert matrix is not None
    rng = np.random.default_rng(1)
    one, two = rng.uniform(0, 144, size=(2, 20, 2))
    both = epipolar_distances(matrix, one, two)
    np.testing.assert_allclose(epipolar_distances(matrix.T, two, one), both)
    np.testing.assert_allclose(epipolar_distances(-3 * matrix, one, two), both)
    lines = np.concatenate([one, np.ones((20, 1))], axis=1) @ matrix.T
    normal = lines[:, :2] / np.linalg.norm(lines[:, :2], axis=1, keepdims=True)
    offset = lines[:, 2] / np.linalg.norm(lines[:, :2], axis=1)
    there = abs((normal * two).sum(axis=1) + offset)
    assert (both >= there / np.sqrt(2) - 1e-9).all()


def test_cameras_that_stand_still_have_no_epipolar_geometry() -> None:
    turning = box(SIZE, step=0.0)
    assert true_fundamental(turning, 0, 5, size=SIZE) is None
    assert true_fundamental(box(SIZE), 0, 99, size=SIZE) is None
    found = epipolar_consistency(perfect(box(GRID, step=0.0)), turning, size=SIZE)
    assert found.true_pairs == 0
    assert found.true_inlier_share is None
    assert found.true_median_px is None
    assert found.pairs == 3


def test_a_fit_finds_the_geometry_under_a_third_of_wrong_matches(truth: Reconstruction) -> None:
    rng = np.random.default_rng(2)
    points = rng.uniform([-2, -1, 2], [2, 1, 5], size=(90, 3))
    seen = cameras(SIZE)
    one, two = (
        project(points, seen.cam_from_world[frame], seen.intrinsics[frame])[0] for frame in (0, 5)
    )
    wrong = two.copy()
    wrong[60:] = rng.uniform(0, 144, size=(30, 2))
    matrix = fit_fundamental(one, wrong, threshold_px=2.0)
    assert matrix is not None
    assert epipolar_distances(matrix, one[:60], two[:60]).max() < 0.5
    np.testing.assert_array_equal(fit_fundamental(one, wrong, threshold_px=2.0), matrix)
    assert fit_fundamental(one[:10], two[:10], threshold_px=2.0) is None
    same = np.tile([[5.0, 5.0]], (40, 1))
    fit = fit_fundamental(same, same, threshold_px=2.0)
    assert fit is None or np.isfinite(fit).all()


def test_perfect_features_match_on_true_epipolar_lines(
    truth: Reconstruction, knows: Features
) -> None:
    found = epipolar_consistency(knows, truth, size=SIZE)
    assert found.pairs == found.true_pairs == 3
    assert found.threshold_px == pytest.approx(HALF_TOKEN)
    assert found.matches > 0.65 * 3 * TOKENS
    for share in (found.inlier_share, found.true_inlier_share):
        assert share is not None
        assert share > 0.95
    for median in (found.median_px, found.true_median_px):
        assert median is not None
        assert median < 0.5 * HALF_TOKEN
    assert found.nothing_moves_px is not None
    assert found.true_median_px is not None
    assert found.true_median_px < 0.2 * found.nothing_moves_px


def test_noise_lies_on_no_epipolar_lines(truth: Reconstruction) -> None:
    found = epipolar_consistency(noise(), truth, size=SIZE)
    assert found.inlier_share is not None
    assert found.inlier_share < 0.2
    assert found.true_inlier_share is not None
    assert found.true_inlier_share < 0.2
    assert found.median_px is not None
    assert found.median_px > 20
    assert found.true_median_px is not None
    assert found.true_median_px > 20
    assert found.still_share == pytest.approx(1 / TOKENS, abs=0.01)


def test_swapped_frames_agree_among_themselves_and_not_with_the_cameras(
    truth: Reconstruction, knows: Features
) -> None:
    right = epipolar_consistency(knows, truth, size=SIZE)
    wrong = epipolar_consistency(swapped(knows), truth, size=SIZE)
    assert wrong.inlier_share == pytest.approx(right.inlier_share, abs=0.03)
    assert right.true_median_px is not None
    assert wrong.true_median_px is not None
    assert wrong.true_median_px > 4 * right.true_median_px
    assert right.true_inlier_share is not None
    assert wrong.true_inlier_share is not None
    assert wrong.true_inlier_share < 0.1 < 0.9 < right.true_inlier_share


def test_a_place_alone_deceives_the_fit_but_not_the_true_matrix(truth: Reconstruction) -> None:
    found = epipolar_consistency(place_only(), truth, size=SIZE)
    assert found.still_share == 1.0
    assert found.inlier_share == 1.0
    assert found.true_median_px == pytest.approx(found.nothing_moves_px)


def test_without_cameras_only_the_fit_is_known(knows: Features, truth: Reconstruction) -> None:
    alone = epipolar_consistency(knows, size=SIZE)
    both = epipolar_consistency(knows, truth, size=SIZE)
    assert alone.inlier_share == both.inlier_share
    assert alone.true_inlier_share is alone.true_median_px is alone.nothing_moves_px is None
    lacks = truth.at_frames(np.array([0, 1]))
    assert epipolar_consistency(knows, lacks, size=SIZE).true_pairs == 1


def test_top_matches_are_the_most_similar_tokens_and_mutual_ones_go_both_ways() -> None:
    rng = np.random.default_rng(3)
    values = rng.normal(size=(3, 2, 4, 5)).astype(np.float16)
    features = as_features(values)
    found = top_matches(features)
    tokens = values.astype(np.float64).reshape(3, 8, 5)
    tokens /= np.linalg.norm(tokens, axis=-1, keepdims=True)
    for a in range(3):
        for b in range(3):
            expected = np.arange(8) if a == b else (tokens[a] @ tokens[b].T).argmax(axis=1)
            np.testing.assert_array_equal(found[a, b], expected)
    pairs = mutual_matches(found, 0, 2)
    assert [
        (i, j) for i in range(8) for j in range(8) if (found[0, 2, i], found[2, 0, j]) == (j, i)
    ] == [tuple(pair) for pair in pairs.tolist()]


def test_perfect_features_come_back_and_noise_comes_back_by_chance(knows: Features) -> None:
    good = cycle_consistency(knows, size=SIZE)
    assert good.mutual_share is not None
    assert good.mutual_share > 0.65
    assert good.return_px is not None
    assert good.return_px < HALF_TOKEN
    assert good.loop_share is not None
    assert good.loop_share > 0.75
    chance = cycle_consistency(noise(), size=SIZE)
    assert chance.mutual_share == pytest.approx(TOKENS / (2 * TOKENS - 1), abs=0.05)
    assert chance.return_px is not None
    assert chance.return_px > 30
    assert chance.loop_share is not None
    assert chance.loop_share < 0.1
    still = cycle_consistency(place_only(), size=SIZE)
    assert (still.mutual_share, still.return_px) == (1.0, 0.0)
    assert (still.loop_share, still.loop_px) == (1.0, 0.0)


def test_swapped_frames_still_come_back(knows: Features) -> None:
    right, wrong = (cycle_consistency(f, size=SIZE) for f in (knows, swapped(knows)))
    assert wrong.mutual_share == pytest.approx(right.mutual_share)
    assert wrong.return_px == pytest.approx(right.return_px)


def test_one_slot_has_nothing_to_be_consistent_with(knows: Features) -> None:
    first = dataclasses.replace(
        knows, values=knows.values[:1], slot_frames=SLOT_FRAMES[:1], frame_to_slot=np.array([0])
    )
    found = proxies_of(first, size=SIZE)
    assert found["cycle_mutual_share"] is None
    assert found["cycle_loop_px"] is None
    assert found["epipolar_matches"] == found["epipolar_pairs"] == 0
    assert found["epipolar_inlier_share"] is None
    assert found["epipolar_still_share"] is None


def test_errors_at_true_matches_are_those_of_the_correspondence_test(
    truth: Reconstruction, knows: Features
) -> None:
    found = true_match_errors(knows, truth, size=SIZE)
    summary = correspondence_summary(knows, truth, size=SIZE)
    assert found.error_px == summary["error_px"]
    assert found.error_share == pytest.approx((found.error_px or 0) / SIZE[1])
    assert (found.pck5, found.pck10) == (summary["pck5"], summary["pck10"])
    assert found.queries == summary["queries"]
    assert found.error_px is not None
    assert found.error_px < HALF_TOKEN
    chance = true_match_errors(noise(), truth, size=SIZE)
    assert chance.error_px is not None
    # A token drawn at random is a third of each side away, and farther from tokens at the rim.
    centers = token_centers(GRID, SIZE)
    apart = np.linalg.norm(centers[:, None] - centers, axis=-1).mean()
    assert chance.error_px == pytest.approx(apart, rel=0.15)
    assert chance.nothing_moves_px == found.nothing_moves_px
    wrong = true_match_errors(swapped(knows), truth, size=SIZE)
    assert wrong.error_px is not None
    assert wrong.error_px > 2 * found.error_px


def test_all_proxies_are_gathered_as_numbers(truth: Reconstruction, knows: Features) -> None:
    found = proxies_of(knows, truth, size=SIZE)
    assert {name.split("_")[0] for name in found} == {"correspondence", "epipolar", "cycle"}
    assert all(isinstance(value, float | int) for value in found.values())
    assert found == proxies_of(knows, truth, size=SIZE)
    alone = proxies_of(knows, size=SIZE)
    assert {name for name in found if name not in alone} == {
        name for name in found if name.startswith("correspondence_")
    }
    assert alone["cycle_mutual_share"] == found["cycle_mutual_share"]
    assert alone["epipolar_true_median_px"] is None


def test_proxies_need_no_torch() -> None:
    code = "import sys, explorer.proxies; assert not {'torch', 'cv2'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
