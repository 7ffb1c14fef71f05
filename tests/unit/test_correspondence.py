"""Correspondence: matches, truth, occlusion and errors against scenes solved by hand."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest

from explorer.backbones.base import slot_map
from explorer.camera import Cameras, unproject
from explorer.correspondence import (
    correspond,
    correspondence_summary,
    token_centers,
    upsample_heat,
)
from explorer.features import Features
from explorer.metrics.correspondence import STATUSES, true_matches
from explorer.reconstruction import Reconstruction

SIZE = (48, 80)
GRID = (6, 10)  # tokens of 8 x 8 pixels
FOCAL = 40.0
FRAMES = 9


def features(values, frames=FRAMES):
    frame_to_slot, slot_frames = slot_map(frames, 4)
    return Features(
        values.astype(np.float16), frame_to_slot, slot_frames, "test", "0", 5, 0.3, 300.0, 0, 0
    )


def reconstruction(depth, shift):
    """Frames of a camera that moves right by `shift` a frame, looking straight ahead."""
    frames, height, width = depth.shape
    intrinsics = np.array([[FOCAL, 0, width / 2], [0, FOCAL, height / 2], [0, 0, 1]])
    pose = np.tile(np.eye(3, 4), (frames, 1, 1))
    pose[:, 0, 3] = -shift * np.arange(frames)
    cameras = Cameras(pose, np.tile(intrinsics, (frames, 1, 1)), (height, width))
    depth = depth.astype(np.float32)
    return Reconstruction(
        np.arange(frames),
        depth,
        unproject(depth, cameras),
        (depth > 0).astype(np.float32),
        cameras,
        "exact",
    )


def wall(depth=2.0, pixels_per_frame=8.0):
    """A wall that moves left by whole tokens: `pixels_per_frame` pixels every frame."""
    return reconstruction(np.full((FRAMES, *SIZE), depth), shift=pixels_per_frame * depth / FOCAL)


def moving_tokens(tokens_per_frame=1):
    """Features that are a function of the wall's surface: the perfect backbone."""
    rng = np.random.default_rng(0)
    surface = rng.normal(size=(GRID[0], GRID[1] + FRAMES * tokens_per_frame, 32))
    slot_frames = slot_map(FRAMES, 4)[1]
    return features(
        np.stack(
            [
                surface[:, frame * tokens_per_frame : frame * tokens_per_frame + GRID[1]]
                for frame in slot_frames
            ]
        )
    )


def test_perfect_features_find_the_true_match_in_every_slot():
    found = correspond(moving_tokens(), 68.0, 20.0, 0, size=SIZE, reference=wall())
    assert [match.frame for match in found.matches] == [0, 1, 5]
    assert [match.status for match in found.matches] == ["visible"] * 3
    assert [match.best for match in found.matches] == [(68.0, 20.0), (60.0, 20.0), (28.0, 20.0)]
    for match in found.matches:
        np.testing.assert_allclose(match.true, match.best, atol=1e-6)
        assert match.similarity == pytest.approx(1.0, abs=1e-5)
        assert match.error_px == pytest.approx(0.0, abs=1e-6)
        assert match.within_5
    assert found.error_px == pytest.approx(0.0, abs=1e-6)


def test_a_pixel_off_the_token_centre_is_wrong_by_exactly_that_offset():
    found = correspond(moving_tokens(), 70.0, 23.0, 0, size=SIZE, reference=wall())
    assert found.token == (2, 8)
    assert found.error_px == pytest.approx(math.hypot(2, 3), abs=1e-6)


def test_perfect_features_have_no_error_in_the_summary():
    found = correspondence_summary(moving_tokens(), wall(), size=SIZE)
    assert found["error_px"] == pytest.approx(0.0, abs=1e-6)
    assert found["pck"] == found["pck5"] == found["pck10"] == 1.0
    # Between frames 0, 1 and 5, one, five and four of the ten token columns are lost, both ways.
    assert found["queries"] == 2 * 6 * (9 + 5 + 6)
    assert found["out_of_view"] == 2 * 6 * (1 + 5 + 4)
    assert found["occluded"] == found["unknown"] == 0
    assert found["nothing_moves_px"] == pytest.approx((9 * 8 + 5 * 40 + 6 * 32) / 20)


def test_heat_is_the_cosine_of_every_token_by_a_plain_loop():
    rng = np.random.default_rng(1)
    cell = features(rng.normal(size=(3, *GRID, 7)) + 0.5)
    found = correspond(cell, 41.0, 30.0, 4, size=SIZE)
    row, column = found.token
    picked = [float(value) for value in cell.values[1, row, column]]
    assert (found.slot, row, column) == (1, 3, 5)
    for match in found.matches:
        best, best_at = -2.0, (0, 0)
        for i in range(GRID[0]):
            for j in range(GRID[1]):
                other = [float(value) for value in cell.values[match.slot, i, j]]
                dot = math.fsum(a * b for a, b in zip(picked, other, strict=True))
                cosine = dot / math.hypot(*picked) / math.hypot(*other)
                assert match.heat[i, j] == pytest.approx(cosine, abs=1e-5)
                if cosine > best:
                    best, best_at = cosine, (i, j)
        assert match.best == ((best_at[1] + 0.5) * 8, (best_at[0] + 0.5) * 8)
    assert found.matches[1].heat[row, column] == pytest.approx(1.0, abs=1e-5)


def brute_force_summary(cell, reference, size):
    errors, counts = [], dict.fromkeys(STATUSES, 0)
    values = cell.values.astype(np.float64)
    for i in range(GRID[0]):
        for j in range(GRID[1]):
            x, y = (j + 0.5) * size[1] / GRID[1], (i + 0.5) * size[0] / GRID[0]
            for anchor, slot in itertools.permutations(range(len(cell.slot_frames)), 2):
                start, frame = int(cell.slot_frames[anchor]), int(cell.slot_frames[slot])
                depth = float(reference.depth[start, int(y), int(x)])
                if depth == 0:
                    counts["unknown"] += 1
                    continue
                moved = (reference.cameras.centers[frame] - reference.cameras.centers[start])[0]
                u, v = x - FOCAL * moved / depth, y
                if not (0 <= u < size[1] and 0 <= v < size[0]):
                    counts["out of view"] += 1
                    continue
                around = []
                for down in (0, 1):
                    for right in (0, 1):
                        r = min(max(math.floor(v - 0.5) + down, 0), size[0] - 1)
                        c = min(max(math.floor(u - 0.5) + right, 0), size[1] - 1)
                        around.append(float(reference.depth[frame, r, c]))
                if max(around) > 0 and depth > 1.02 * max(around):
                    counts["occluded"] += 1
                    continue
                counts["visible"] += 1
                picked = values[anchor, i, j]
                flat = values[slot].reshape(-1, values.shape[-1])
                cosine = flat @ picked / np.linalg.norm(flat, axis=1) / np.linalg.norm(picked)
                near = int(cosine.argmax())
                bx = (near % GRID[1] + 0.5) * size[1] / GRID[1]
                by = (near // GRID[1] + 0.5) * size[0] / GRID[0]
                errors.append(math.hypot(bx - u, by - v))
    return errors, counts


def box_before_wall():
    """A near box (depth 1) before a far wall (depth 4), sky in the top rows."""
    shift = 0.11
    depth = np.full((FRAMES, *SIZE), 4.0)
    for frame in range(FRAMES):
        left = 30 - FOCAL * shift * frame / 1.0
        columns = np.arange(SIZE[1]) + 0.5
        depth[frame][:, (columns >= left) & (columns < left + 24)] = 1.0
    depth[:, :7] = 0.0
    return reconstruction(depth, shift)


def test_the_summary_equals_a_plain_loop_with_occlusion_sky_and_borders():
    reference = box_before_wall()
    cell = features(np.random.default_rng(2).normal(size=(3, *GRID, 16)))
    found = correspondence_summary(cell, reference, size=SIZE)
    errors, counts = brute_force_summary(cell, reference, SIZE)
    assert min(counts.values()) > 0
    assert found["queries"] == counts["visible"]
    assert found["occluded"] == counts["occluded"]
    assert found["out_of_view"] == counts["out of view"]
    assert found["unknown"] == counts["unknown"]
    assert found["error_px"] == pytest.approx(np.mean(errors), rel=1e-6)
    assert found["pck5"] == pytest.approx(np.mean([error <= 4 for error in errors]))
    assert found["pck10"] == pytest.approx(np.mean([error <= 8 for error in errors]))


def test_a_wall_point_that_the_box_moves_over_is_occluded_and_has_no_error():
    found = correspond(moving_tokens(), 20.0, 30.0, 0, size=SIZE, reference=box_before_wall())
    assert [match.status for match in found.matches] == ["visible", "visible", "occluded"]
    hidden = found.matches[2]
    assert hidden.true == pytest.approx((20 - FOCAL * 0.55 / 4, 30.0))
    assert hidden.error_px is None
    assert hidden.within_10 is None
    assert found.error_px == found.matches[1].error_px


def test_a_point_that_leaves_the_picture_has_no_true_match():
    found = correspond(moving_tokens(), 4.0, 20.0, 0, size=SIZE, reference=wall())
    assert [match.status for match in found.others] == ["out of view"] * 2
    assert [match.true for match in found.others] == [None, None]
    assert found.error_px is None


def test_a_point_behind_the_camera_is_out_of_view():
    reference = wall()
    pose = reference.cameras.cam_from_world
    pose[5, 2, 3] = -10.0
    _, status = true_matches(reference, 0, np.array([[40.0, 24.0]]), np.array([5]), size=SIZE)
    assert STATUSES[status[0, 0]] == "out of view"


def test_the_sky_has_no_truth_but_still_a_heatmap():
    found = correspond(moving_tokens(), 20.0, 3.0, 0, size=SIZE, reference=box_before_wall())
    assert {match.status for match in found.matches} == {"unknown"}
    assert found.matches[1].heat.shape == GRID


def test_without_a_reference_everything_but_the_truth_is_there():
    found = correspond(moving_tokens(), 68.0, 20.0, 0, size=SIZE)
    assert found.matches[2].best == (28.0, 20.0)
    assert {match.status for match in found.matches} == {"unknown"}
    assert found.error_px is None


def test_a_frame_inside_a_slot_picks_the_slots_token_and_its_own_truth():
    # Frame 3 lies in slot 1, which frame 1 stands for; its surface has moved on by two tokens.
    found = correspond(moving_tokens(), 44.0, 20.0, 3, size=SIZE, reference=wall())
    assert (found.frame, found.slot) == (3, 1)
    assert [match.picked for match in found.matches] == [False, True, False]
    assert found.matches[0].true == pytest.approx((68.0, 20.0))
    assert found.matches[0].best == (52.0, 20.0)


def test_a_reference_at_slot_frames_only_stands_in_for_the_picked_frame():
    slots_only = wall().at_frames(np.array([0, 1, 5]))
    found = correspond(moving_tokens(), 44.0, 20.0, 3, size=SIZE, reference=slots_only)
    assert found.matches[0].true == pytest.approx((52.0, 20.0))


def test_a_frame_that_the_reference_lacks_is_unknown_there_only():
    part = wall().at_frames(np.array([0, 1]))
    found = correspondence_summary(moving_tokens(), part, size=SIZE)
    assert (found["queries"], found["unknown"]) == (2 * 54, 4 * 60)


def test_errors_are_in_pixels_of_the_image_and_not_of_the_reference():
    half = wall().resized(24, 40)
    coarse = correspond(moving_tokens(), 70.0, 23.0, 0, size=SIZE, reference=half)
    assert coarse.error_px == pytest.approx(math.hypot(2, 3), abs=1e-5)
    double = (2 * SIZE[0], 2 * SIZE[1])
    large = correspond(moving_tokens(), 140.0, 46.0, 0, size=double, reference=wall())
    assert large.error_px == pytest.approx(2 * math.hypot(2, 3), abs=1e-5)


def test_scaling_the_world_changes_nothing():
    reference = box_before_wall()
    cell = features(np.random.default_rng(2).normal(size=(3, *GRID, 16)))
    scaled = correspondence_summary(cell, reference.normalized(), size=SIZE)
    assert scaled == pytest.approx(correspondence_summary(cell, reference, size=SIZE), rel=1e-4)


def test_when_nothing_is_visible_the_means_are_none():
    blind = reconstruction(np.zeros((FRAMES, *SIZE)), 0.1)
    found = correspondence_summary(moving_tokens(), blind, size=SIZE)
    assert found["queries"] == 0
    assert found["error_px"] is found["pck"] is found["nothing_moves_px"] is None


def test_tokens_of_zeros_and_of_float16s_largest_numbers_give_finite_similarities():
    values = np.random.default_rng(0).normal(size=(3, *GRID, 8))
    values[1, 0, 0] = 0.0
    values[2] = 65504.0
    found = correspond(features(values), 4.0, 4.0, 0, size=SIZE)
    assert found.matches[1].heat[0, 0] == 0.0
    assert all(np.isfinite(match.heat).all() for match in found.matches)


def test_a_single_frame_has_one_slot_and_no_queries():
    cell = features(np.random.default_rng(0).normal(size=(1, *GRID, 8)), frames=1)
    found = correspondence_summary(cell, wall(), size=SIZE)
    assert found["queries"] == 0
    assert correspond(cell, 1.0, 1.0, 0, size=SIZE, reference=wall()).others == ()


@pytest.mark.parametrize(("x", "y"), [(0, 0), (80, 48), (79.9, 47.9)])
def test_every_point_of_the_image_picks_a_token(x, y):
    found = correspond(moving_tokens(), x, y, 0, size=SIZE, reference=wall())
    assert found.token in ((0, 0), (5, 9))


@pytest.mark.parametrize(
    ("x", "y", "frame"), [(-1.0, 3.0, 0), (3.0, 49.0, 0), (3.0, 3.0, 9), (3.0, 3.0, -1)]
)
def test_a_pick_outside_the_clip_is_refused(x, y, frame):
    with pytest.raises(ValueError, match="outside"):
        correspond(moving_tokens(), x, y, frame, size=SIZE)


def test_the_result_is_json_without_the_heat():
    found = correspond(moving_tokens(), 20.0, 30.0, 0, size=SIZE, reference=box_before_wall())
    again = json.loads(json.dumps(found.as_dict(), allow_nan=False))
    assert again["token"] == [3, 2]
    assert again["matches"][2]["status"] == "occluded"
    assert "heat" not in again["matches"][0]
    summary = correspondence_summary(moving_tokens(), wall(), size=SIZE)
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary


def test_upsampled_heat_keeps_token_centres_and_is_linear_between_them():
    heat = np.arange(60.0).reshape(GRID)
    # Odd multiples put a pixel centre on every token centre.
    large = upsample_heat(heat, (18, 30))
    assert large.shape == (18, 30)
    np.testing.assert_allclose(large[1::3, 1::3], heat, atol=1e-4)
    np.testing.assert_allclose(large[1, 2], heat[0, 0] * 2 / 3 + heat[0, 1] / 3, atol=1e-4)


def test_a_token_s_centre_lies_in_that_token():
    cell = moving_tokens()
    centers = token_centers(GRID, SIZE).reshape(*GRID, 2)
    for row, column in np.ndindex(*GRID):
        assert cell.token_at(*centers[row, column], SIZE) == (row, column)


def test_occlusion_agrees_with_tracing_the_rays_of_a_rendered_scene():
    import torch

    from explorer.camera import project
    from explorer.data.world.render import render
    from explorer.data.world.scene import sample_scenes
    from explorer.data.world.tensors import scene_tensors
    from explorer.data.world.tracing import intersect

    scenes = sample_scenes([1])
    images = render(scenes, height=72, width=128, supersample=1, frames=[0, 7])
    depth, pose = images.depth[0].numpy(), images.cam_from_world[0].numpy().astype(np.float64)
    intrinsics = images.intrinsics[0].numpy().astype(np.float64)
    cameras = Cameras(pose, np.tile(intrinsics, (2, 1, 1)), (72, 128))
    points = unproject(depth.astype(np.float64), cameras)
    known = depth > 0
    reference = Reconstruction(
        np.array([0, 7]), depth, points, known.astype(np.float32), cameras, "exact"
    )
    pixels = token_centers((72, 128), (72, 128))
    _, status = true_matches(reference, 0, pixels, np.array([7]), size=(72, 128))

    position, z = project(points[0].reshape(-1, 3), pose[1], intrinsics)
    homogeneous = np.concatenate([position, np.ones((len(position), 1))], axis=1)
    rays = homogeneous @ np.linalg.inv(intrinsics).T @ pose[1, :, :3]
    spread = np.broadcast_to(cameras.centers[1], rays.shape)

    def triple(values):
        return tuple(
            torch.from_numpy(values[:, axis].copy()).float()[None, None] for axis in range(3)
        )

    hit, _ = intersect(scene_tensors(scenes, "cpu", frames=[7]), triple(spread), triple(rays))
    hidden = z > 1.01 * hit.numpy().reshape(-1)
    in_view = status[0] <= 1
    assert in_view.sum() > 1000
    found = status[0][in_view] == STATUSES.index("occluded")
    assert (found & hidden[in_view]).sum() > 200
    assert not (found & ~hidden[in_view]).any()
    assert (found == hidden[in_view]).mean() > 0.97
