from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from explorer.errors import ProbeError
from explorer.features import Features
from explorer.nets.geometry import DenseMaps
from explorer.nets.pose import decode_pose
from explorer.probe.model import Probe, ProbeConfig
from explorer.probe.predict import FIELD_OF_VIEW, cameras_of, point_unit, predict, predict_frames


@pytest.fixture
def probe() -> Probe:
    torch.manual_seed(0)
    return Probe(ProbeConfig.compact(8)).eval()


@pytest.fixture
def features() -> Features:
    values = np.random.default_rng(0).normal(size=(3, 4, 6, 8)).astype(np.float16)
    return Features(
        values=values,
        frame_to_slot=np.array([0, 1, 1, 1, 1, 2, 2, 2, 2]),
        slot_frames=np.array([0, 1, 5]),
        backbone="toy-wan",
        backbone_hash="a" * 64,
        layer=5,
        sigma=0.3,
        timestep=300.0,
        official_index=700,
        seed=11,
    )


def test_streamed_frames_equal_the_network_s_own_output(probe: Probe, features: Features) -> None:
    frames = list(predict_frames(probe, features))
    with torch.no_grad():
        out = probe(torch.from_numpy(features.values.astype(np.float32))[None])
    unit = point_unit(out.points[0, 0].numpy(), out.depth[0, 0].numpy())
    assert [(frame.slot, frame.frame) for frame in frames] == [(0, 0), (1, 1), (2, 5)]
    for frame in frames:
        np.testing.assert_allclose(frame.depth, out.depth[0, frame.slot], rtol=1e-4)
        np.testing.assert_allclose(frame.points * unit, out.points[0, frame.slot], atol=1e-4)
        np.testing.assert_allclose(
            frame.confidence, out.points_confidence[0, frame.slot], rtol=1e-4
        )
        assert frame.depth.shape == (16, 24)
        assert frame.depth.dtype == frame.points.dtype == np.float32


@pytest.mark.parametrize("stretch", [0.1, 1.7, 40.0])
def test_points_are_in_the_unit_of_depth_and_cameras_whatever_the_network_s_own(
    probe: Probe, features: Features, monkeypatch: pytest.MonkeyPatch, stretch: float
) -> None:
    """A network whose maps are one scene, its points stretched; the first frame partly sky."""
    rows, columns = torch.linspace(-0.4, 0.4, 16), torch.linspace(-0.6, 0.6, 24)
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    depth = (1.2 + 0.3 * torch.sin(9 * x) + 0.2 * y) * torch.tensor([1.0, 1.1, 0.9])[:, None, None]
    points = torch.stack([x, y, torch.ones_like(x)], dim=-1) * depth[..., None]
    unit = points[0, 4:].norm(dim=-1).mean()
    depth, points = (depth / unit)[None], (points / unit)[None]
    points[0, 0, :4] *= 8  # sky: neither map was trained there
    confidence = torch.ones_like(depth)

    def dense(taps: object, grid: object, *, frames: slice) -> DenseMaps:
        return DenseMaps(
            depth=depth[:, frames][0],
            depth_confidence=confidence[:, frames][0],
            points=stretch * points[:, frames][0],
            points_confidence=confidence[:, frames][0],
        )

    monkeypatch.setattr(probe, "dense", dense)
    found = predict(probe, features)
    np.testing.assert_allclose(found.depth, depth[0], rtol=1e-6)
    np.testing.assert_allclose(found.points, points[0], rtol=1e-5, atol=1e-6)
    assert np.linalg.norm(found.points[0, 4:], axis=-1).mean() == pytest.approx(1.0, abs=1e-5)


def test_points_behind_the_camera_keep_their_unit() -> None:
    depth = np.ones((2, 3), dtype=np.float32)
    points = np.full((2, 3, 3), -4.0, dtype=np.float32)
    assert point_unit(points, depth) == 1
    points[0, 0, 2] = 3.0
    points[0, 1, 2] = np.nan
    assert point_unit(points, depth) == 3


def test_frames_are_computed_only_when_asked_for(
    probe: Probe, features: Features, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    dense = probe.dense
    monkeypatch.setattr(
        probe, "dense", lambda *args, **options: calls.append(1) or dense(*args, **options)
    )
    stream = predict_frames(probe, features)
    assert calls == []
    next(stream)
    assert calls == [1]
    # what a caller computes between two frames must still be able to carry gradients
    assert not torch.is_inference_mode_enabled()


def test_cameras_are_relative_to_the_first_predicted_one() -> None:
    generator = torch.Generator().manual_seed(0)
    encoding = torch.randn(4, 9, generator=generator)
    encoding[:, 7:] = 0.9
    extrinsics, intrinsics = decode_pose(encoding.double(), (16, 24))
    cameras = cameras_of(encoding, (16, 24))
    np.testing.assert_allclose(cameras.cam_from_world[0], np.eye(4)[:3], atol=1e-6)
    full = np.tile(np.eye(4), (4, 1, 1))
    full[:, :3] = extrinsics.numpy()
    expected = full @ np.linalg.inv(full[0])
    np.testing.assert_allclose(cameras.cam_from_world, expected[:, :3], atol=1e-5)
    np.testing.assert_allclose(cameras.intrinsics, intrinsics.numpy(), rtol=1e-5)
    assert cameras.size == (16, 24)


def test_a_vanished_field_of_view_still_gives_a_finite_focal_length() -> None:
    encoding = torch.tensor([[0.0, 0, 0, 0, 0, 0, 1, 0, 4]])
    intrinsics = cameras_of(encoding, (16, 24)).intrinsics[0]
    assert intrinsics[1, 1] == pytest.approx(8 / np.tan(FIELD_OF_VIEW[0] / 2), rel=1e-5)
    assert intrinsics[0, 0] == pytest.approx(12 / np.tan(FIELD_OF_VIEW[1] / 2), rel=1e-5)


def test_a_reconstruction_says_where_it_comes_from(probe: Probe, features: Features) -> None:
    found = predict(probe, features)
    assert found.source == "probe toy-wan layer 5 sigma 0.3"
    assert found.frames.tolist() == [0, 1, 5]
    assert found.size == found.cameras.size == (16, 24)
    assert found.points.shape == (3, 16, 24, 3)
    assert found.valid.all()
    wanted = {"backbone_hash": "a" * 64, "layer": 5, "sigma": 0.3, "seed": 11, "probe": None}
    assert wanted.items() <= found.provenance.items()


def test_features_of_another_width_are_refused(probe: Probe, features: Features) -> None:
    wide = dataclasses.replace(features, values=np.zeros((3, 4, 6, 16), np.float16))
    with pytest.raises(ProbeError, match="reads 8 channels; toy-wan layer 5 has 16"):
        next(predict_frames(probe, wide))
