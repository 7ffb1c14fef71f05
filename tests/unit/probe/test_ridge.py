"""The ridge readout against its definition: normal equations, streaming, choice, refusals."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from ridge_samples import (
    FRAMES,
    GRID,
    MAP,
    SHAPE,
    SLOT_FRAMES,
    WIDE,
    data,
    features,
    fitted,
    linear_clip,
    maps,
    room,
    unrelated_clip,
)

from explorer.backbones._position import CHANNELS, position_channels
from explorer.errors import ComparisonError, ProbeError
from explorer.probe.moments import Moments, RidgePath
from explorer.probe.ridge import (
    PENALTIES,
    RidgeData,
    TokenMaps,
    fit_ridge,
    token_errors,
    token_inputs,
    token_targets,
)


def test_a_linear_map_is_recovered_exactly() -> None:
    clips = [linear_clip(seed) for seed in range(4)]
    ridge = fit_ridge(data(clips[:3]), data(clips[3:]), penalties=[1e-12])
    np.testing.assert_allclose(ridge.fit.weights / ridge.fit.scale[:, None], MAP, atol=1e-8)
    seen, target = linear_clip(99)
    answer = ridge.predict(seen)
    np.testing.assert_allclose(answer.depth, target.depth, rtol=1e-8)
    np.testing.assert_allclose(answer.points, target.points, atol=1e-8)
    assert ridge.validation_r2 == pytest.approx({"log_depth": 1.0, "points": 1.0})
    assert token_errors(answer, target) == pytest.approx(
        {"depth_error": 0.0, "point_error": 0.0}, abs=1e-8
    )


def test_among_many_penalties_an_exact_map_chooses_the_smallest() -> None:
    clips = [linear_clip(seed) for seed in range(4)]
    ridge = fit_ridge(data(clips[:3]), data(clips[3:]))
    assert ridge.penalties == {"log_depth": min(PENALTIES), "points": min(PENALTIES)}


@pytest.mark.parametrize("penalty", [1e-3, 0.5, 30.0])
def test_a_fit_solves_the_normal_equations(penalty: float) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, 7)) @ rng.normal(size=(7, 7)) + 3.0
    y = rng.normal(size=(50, 4))
    moments = Moments(7, 4)
    moments.add(x, y)
    fit = RidgePath(moments).fit(penalty)
    z = (x - x.mean(0)) / x.std(0)
    expected = np.linalg.solve(z.T @ z / 50 + penalty * np.eye(7), z.T @ (y - y.mean(0)) / 50)
    np.testing.assert_allclose(fit.weights, expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(fit(x), z @ expected + y.mean(0), rtol=1e-9, atol=1e-10)
    residual = ((y - fit(x)) ** 2).sum(axis=0)
    np.testing.assert_allclose(moments.squared_error(fit), residual, rtol=1e-9)


def test_errors_on_other_data_need_its_moments_alone() -> None:
    rng = np.random.default_rng(1)
    train, other = Moments(5, 2), Moments(5, 2)
    train.add(rng.normal(size=(40, 5)), rng.normal(size=(40, 2)))
    x, y = rng.normal(2.0, 3.0, size=(30, 5)), rng.normal(-1.0, 2.0, size=(30, 2))
    other.add(x, y)
    fit = RidgePath(train).fit(0.1)
    np.testing.assert_allclose(other.squared_error(fit), ((y - fit(x)) ** 2).sum(axis=0))


def test_streaming_and_merging_give_what_one_pass_gives() -> None:
    rng = np.random.default_rng(2)
    x, y = rng.normal(1e4, 1.0, size=(300, 6)), rng.normal(size=(300, 3))
    whole, streamed, left, right = (Moments(6, 3) for _ in range(4))
    whole.add(x, y)
    for start in (0, 1, 64, 200):
        stop = {0: 1, 1: 64, 64: 200, 200: 300}[start]
        streamed.add(x[start:stop], y[start:stop])
    streamed.add(x[:0], y[:0])
    left.add(x[:120], y[:120])
    right.add(x[120:], y[120:])
    left.merge(right)
    left.merge(Moments(6, 3))
    for found in (streamed, left):
        assert found.count == 300
        for name in ("mean_x", "mean_y", "xx", "xy", "yy"):
            np.testing.assert_allclose(getattr(found, name), getattr(whole, name), atol=1e-7)
    # Sums of squares alone would have lost these variances to the mean's 1e8.
    np.testing.assert_allclose(np.diag(streamed.xx) / 300, x.var(axis=0), rtol=1e-9)


def test_moments_take_one_clip_of_memory_whatever_their_number() -> None:
    many = data([linear_clip(seed) for seed in range(20)]).whole[1]
    assert many.count == 20 * np.prod(SHAPE)
    assert sum(value.size for value in vars(many).values() if isinstance(value, np.ndarray)) == (
        WIDE + 4 + WIDE * WIDE + WIDE * 4 + 4
    )


def test_the_chosen_penalty_does_not_overfit_features_of_noise() -> None:
    wide = 60
    train = data([unrelated_clip(seed, wide=wide) for seed in range(2)])
    held_out = data([unrelated_clip(seed, wide=wide) for seed in range(10, 14)])
    chosen = fit_ridge(train, held_out)
    free = fit_ridge(train, held_out, penalties=[min(PENALTIES)])
    assert min(chosen.penalties.values()) > 1.0
    for name in ("log_depth", "points"):
        assert chosen.validation_r2[name] == pytest.approx(0.0, abs=0.05)
        assert free.train_r2[name] > 0.3
        assert free.validation_r2[name] < -0.3


def test_random_features_do_worse_on_clips_that_were_not_fitted() -> None:
    train = [unrelated_clip(seed, wide=40) for seed in range(3)]
    others = [unrelated_clip(seed, wide=40) for seed in range(20, 23)]
    ridge = fit_ridge(data(train), data(others), penalties=[1e-3])

    def mean_error(clips: list[tuple[Features, TokenMaps]]) -> float:
        return float(np.mean([token_errors(ridge.predict(f), t)["point_error"] for f, t in clips]))

    assert mean_error(others) > 1.1 * mean_error(train)
    assert ridge.train_r2["points"] > ridge.validation_r2["points"] + 0.3


def test_each_group_of_targets_has_a_penalty_of_its_own() -> None:
    def half_linear(seed: int) -> tuple[Features, TokenMaps]:
        seen, target = linear_clip(seed)
        unrelated = np.random.default_rng(seed + 100).normal(size=target.points.shape)
        return seen, dataclasses.replace(target, points=unrelated)

    ridge = fit_ridge(
        data([half_linear(s) for s in range(3)]), data([half_linear(s) for s in range(5, 8)])
    )
    assert ridge.penalties["log_depth"] == min(PENALTIES)
    assert ridge.penalties["points"] > 0.1
    assert ridge.validation_r2["log_depth"] == pytest.approx(1.0)


def test_tokens_without_geometry_are_left_out() -> None:
    seen, target = linear_clip(0)
    valid = np.ones(SHAPE, dtype=bool)
    valid[:, 0] = False
    broken = TokenMaps(
        target.frames,
        np.where(valid, target.depth, 0.0),
        np.where(valid[..., None], target.points, 1e6),
        valid,
    )
    rest = [linear_clip(seed) for seed in (1, 2)]
    ridge = fit_ridge(data([(seen, broken), *rest]), data([linear_clip(3)]), penalties=[1e-12])
    assert ridge.tokens == 3 * np.prod(SHAPE) - (~valid).sum()
    np.testing.assert_allclose(ridge.predict(seen).points, target.points, atol=1e-7)


def test_a_constant_channel_counts_for_nothing_whatever_rounding_leaves_of_it() -> None:
    rng = np.random.default_rng(4)
    x, y = rng.normal(size=(49, 3)), rng.normal(size=(49, 2))
    constant = 1e7 / 3 + rng.normal(scale=1e-4, size=49)
    plain, wider = Moments(3, 2), Moments(5, 2)
    plain.add(x, y)
    wider.add(np.concatenate([x, constant[:, None], np.zeros((49, 1))], axis=1), y)
    expected, found = (RidgePath(moments).fit(1e-8) for moments in (plain, wider))
    np.testing.assert_allclose(found.weights[:3], expected.weights, atol=1e-12)
    np.testing.assert_array_equal(found.weights[3:], 0.0)
    moved = np.concatenate([x, np.full((49, 2), 5.0)], axis=1)
    np.testing.assert_allclose(found(moved), expected(x), atol=1e-12)
    np.testing.assert_allclose(wider.squared_error(found), plain.squared_error(expected), rtol=1e-9)


def test_position_lets_a_fit_know_the_place_and_is_added_once() -> None:
    position = position_channels(SLOT_FRAMES, GRID, max_frames=FRAMES).astype(np.float64)
    by_place = position @ np.random.default_rng(3).normal(size=(CHANNELS, 4)) * 0.1

    def clip(seed: int) -> tuple[Features, TokenMaps]:
        values = np.random.default_rng(seed).normal(size=(*SHAPE, 3))
        return features(values), maps(by_place)

    blind = fit_ridge(data([clip(0), clip(1)]), data([clip(2)]))
    placed = fit_ridge(data([clip(0), clip(1)], position=FRAMES), data([clip(2)], position=FRAMES))
    assert blind.validation_r2["points"] < 0.1
    assert placed.validation_r2["points"] > 0.999
    assert len(placed.fit.mean) == 3 + CHANNELS
    control = features(np.concatenate([clip(0)[0].values, position], axis=-1))
    assert token_inputs(control, position_frames=FRAMES).shape[-1] == 3 + CHANNELS
    with pytest.raises(ProbeError, match="extract them alike"):
        fit_ridge(data([clip(0)]), data([clip(1)], position=FRAMES))


def test_targets_are_what_is_seen_at_the_centre_of_a_token() -> None:
    fine = room((GRID[0] * 3, GRID[1] * 3), unit=7.0)
    target = token_targets(fine, SLOT_FRAMES, GRID)
    exact = room((GRID[0] * 3, GRID[1] * 3)).at_frames(SLOT_FRAMES).normalized()
    np.testing.assert_allclose(target.depth, exact.depth[:, 1::3, 1::3], rtol=1e-5)
    np.testing.assert_allclose(target.points, exact.points[:, 1::3, 1::3], atol=1e-5)
    first = fine.points[0][fine.valid[0]]
    unit = np.linalg.norm(first, axis=-1).mean()
    np.testing.assert_allclose(
        target.depth, fine.depth[SLOT_FRAMES][:, 1::3, 1::3] / unit, rtol=1e-5
    )
    assert not target.valid[:, 0].any()
    assert target.valid[:, 1:].all()


def test_the_unit_is_that_of_the_probes_targets() -> None:
    import torch

    from explorer.probe.losses import normalize_targets

    fine = room((GRID[0] * 3, GRID[1] * 3), unit=3.0).at_frames(SLOT_FRAMES)
    theirs = normalize_targets(
        torch.from_numpy(fine.depth)[None],
        torch.from_numpy(fine.cameras.cam_from_world)[None],
        torch.from_numpy(fine.cameras.intrinsics)[None],
        torch.from_numpy(fine.valid)[None],
    )
    ours = token_targets(fine, SLOT_FRAMES, GRID)
    np.testing.assert_allclose(ours.depth, theirs.depth[0, :, 1::3, 1::3], rtol=1e-5)
    np.testing.assert_allclose(ours.points, theirs.points[0, :, 1::3, 1::3], atol=1e-5)


def test_errors_do_not_see_scale_or_a_moved_frame() -> None:
    target = token_targets(room((12, 18)), SLOT_FRAMES, GRID)
    turn = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    moved = TokenMaps(
        target.frames, 5 * target.depth, 2 * target.points @ turn.T + [1, 2, 3], target.valid
    )
    assert token_errors(moved, target) == pytest.approx(
        {"depth_error": 0.0, "point_error": 0.0}, abs=1e-6
    )
    flat = TokenMaps(target.frames, np.ones(SHAPE), target.points, target.valid)
    assert token_errors(flat, target)["depth_error"] > 0.05


def test_a_reference_without_the_frames_or_geometry_is_refused() -> None:
    whole = room((12, 18))
    with pytest.raises(ComparisonError, match="has no frames"):
        token_targets(whole.at_frames(np.array([0])), SLOT_FRAMES, GRID)
    sky = dataclasses.replace(whole, confidence=np.zeros_like(whole.confidence))
    with pytest.raises(ComparisonError, match="no valid point"):
        token_targets(sky, SLOT_FRAMES, GRID)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"backbone_hash": "c" * 64}, "other weights"),
        ({"layer": 6}, "reads layer 5"),
        ({"sigma": 0.4}, "sigma 0.3"),
    ],
)
def test_features_of_another_cell_are_refused(change: dict[str, object], message: str) -> None:
    ridge = fitted()
    seen, target = linear_clip(0)
    other = dataclasses.replace(seen, **change)
    with pytest.raises(ProbeError, match=message):
        ridge.predict(other)
    both = data([(seen, target)])
    with pytest.raises(ProbeError, match=message):
        both.add(other, target)


def test_what_cannot_be_fitted_is_refused() -> None:
    seen, target = linear_clip(0)
    one = data([(seen, target)])
    with pytest.raises(ProbeError, match="at least one"):
        fit_ridge(RidgeData(), one)
    with pytest.raises(ValueError, match="above 0"):
        fit_ridge(one, one, penalties=[0.0])
    with pytest.raises(ProbeError, match="different cells"):
        fit_ridge(one, data([(features(seen.values, weights="c" * 64), target)]))
    with pytest.raises(ProbeError, match="targets of"):
        RidgeData().add(features(seen.values[:, :2]), target)
    values = seen.values.copy()
    values[0, 0, 0, 0] = np.inf
    with pytest.raises(ProbeError, match="not a finite number"):
        RidgeData().add(features(values), target)
    same = data([(seen, maps(np.ones((*SHAPE, 4))))])
    with pytest.raises(ProbeError, match="nothing to explain"):
        fit_ridge(same, one)
    with pytest.raises(ProbeError, match="reads 12 channels"):
        fitted().predict(features(seen.values[..., :5]))
