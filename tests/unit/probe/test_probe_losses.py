from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from explorer.camera import Cameras, unproject
from explorer.probe.losses import (
    Targets,
    camera_loss,
    confidence_loss,
    depth_loss,
    mean_distance,
    normalize_targets,
    point_loss,
    probe_loss,
)
from explorer.probe.model import Probe, ProbeConfig
from explorer.reconstruction import Reconstruction

GOLDEN = Path(__file__).parents[2] / "golden" / "official-metrics.safetensors"


@pytest.fixture(scope="module")
def golden() -> dict[str, torch.Tensor]:
    return {name: value.float() for name, value in load_file(GOLDEN).items()}


@pytest.fixture(scope="module")
def official(golden: dict[str, torch.Tensor]) -> Targets:
    depth = golden["input.raw_depth"][..., 0]
    return normalize_targets(
        depth,
        golden["input.raw_extrinsics"],
        golden["input.intrinsics"],
        torch.ones_like(depth, dtype=torch.bool),
        weight=golden["input.conf"],
        pixel_center=0.0,
    )


def scene(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    depth = 1 + torch.rand(2, 3, 6, 8, generator=generator)
    turn = torch.linalg.qr(torch.randn(2, 3, 3, 3, generator=generator)).Q
    turn = turn * torch.linalg.det(turn)[..., None, None]
    pose = torch.cat([turn, torch.randn(2, 3, 3, 1, generator=generator)], dim=-1)
    lens = torch.tensor([[9.0, 0, 4.2], [0, 8.0, 2.7], [0, 0, 1]]).expand(2, 3, 3, 3)
    valid = torch.rand(2, 3, 6, 8, generator=generator) > 0.3
    return depth, pose, lens, valid


def test_normalisation_equals_the_official_one(
    golden: dict[str, torch.Tensor], official: Targets
) -> None:
    expected = {
        "norm_depth": official.depth[..., None],
        "norm_world_points": official.points,
        "norm_extrinsics": official.cam_from_world,
        "gt_pose_enc": official.pose_encoding,
    }
    for name, found in expected.items():
        torch.testing.assert_close(found, golden[f"output.{name}"], rtol=1e-4, atol=1e-5)


def test_normalisation_agrees_with_the_noun_that_references_use() -> None:
    depth, pose, lens, valid = scene()
    targets = normalize_targets(depth, pose, lens, valid)
    for i in range(2):
        cameras = Cameras(pose[i].numpy(), lens[i].numpy(), (6, 8))
        shown = np.where(valid[i].numpy(), depth[i].numpy(), 0)
        expected = Reconstruction(
            frames=np.arange(3),
            depth=shown,
            points=unproject(shown, cameras),
            confidence=valid[i].numpy().astype(np.float32),
            cameras=cameras,
            source="test",
        ).normalized()
        np.testing.assert_allclose(targets.depth[i], expected.depth, atol=1e-5)
        np.testing.assert_allclose(targets.points[i], expected.points, atol=1e-5)
        np.testing.assert_allclose(
            targets.cam_from_world[i], expected.cameras.cam_from_world, atol=1e-5
        )


def test_a_clip_without_geometry_in_its_first_frame_keeps_its_unit() -> None:
    depth, pose, lens, valid = scene()
    valid[0, 0] = False
    targets = normalize_targets(depth, pose, lens, valid)
    assert targets.unit[0] == 1
    assert all(torch.isfinite(value).all() for value in targets)


@pytest.mark.parametrize("masked", [False, True])
def test_point_and_depth_losses_equal_the_official_ones(
    golden: dict[str, torch.Tensor], official: Targets, masked: bool
) -> None:
    weight = golden["input.conf"] * (golden["input.mask"] if masked else 1)
    points = point_loss(golden["input.pred_world_points"], official.points, weight)
    depth = depth_loss(golden["input.pred_depth"][..., 0], official.depth, weight)
    names = ("point_masked", "depth_masked") if masked else ("point_norm", "depth")
    expected = golden[f"output.{names[0]}.loss_point"], golden[f"output.{names[1]}.loss_depth"]
    torch.testing.assert_close(points, expected[0][0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(depth, expected[1][0], rtol=1e-4, atol=1e-5)


def test_the_scales_of_the_point_loss_equal_the_official_ones(
    golden: dict[str, torch.Tensor], official: Targets
) -> None:
    everywhere = torch.ones_like(official.depth, dtype=torch.bool)
    found = mean_distance(golden["input.pred_world_points"], everywhere)
    torch.testing.assert_close(found, golden["output.point_scale_pred"], rtol=1e-4, atol=1e-5)


def test_the_camera_loss_equals_the_official_one(
    golden: dict[str, torch.Tensor], official: Targets
) -> None:
    passes = [golden[f"input.pred_pose_enc_list.{i}"] for i in range(4)]
    found = camera_loss(passes, official.pose_encoding)
    names = {
        "camera": "loss_camera",
        "translation": "loss_T",
        "rotation": "loss_R",
        "fov": "loss_fl",
    }
    for ours, theirs in names.items():
        expected = golden[f"output.camera.{theirs}"][0]
        torch.testing.assert_close(found[ours], expected, rtol=1e-4, atol=1e-6)


def test_a_mean_over_all_pixels_counts_the_sky_as_zero() -> None:
    depth, *_, valid = scene()
    weight = valid.float()
    over_valid = depth_loss(depth + 1, depth, weight)
    over_all = depth_loss(depth + 1, depth, weight, all_pixels=True)
    assert over_valid == pytest.approx(1.0, abs=1e-5)
    assert over_all == pytest.approx(weight.mean().item(), abs=1e-5)


def test_the_point_loss_ignores_scale_and_what_the_sky_says() -> None:
    depth, pose, lens, valid = scene()
    targets = normalize_targets(depth, pose, lens, valid)
    wild = torch.where(valid[..., None], 3.0 * targets.points, 1e9)
    assert point_loss(wild, targets.points, targets.weight) < 1e-4


def test_the_confidence_loss_trains_confidence_alone_towards_alpha_over_error() -> None:
    raw = torch.zeros(1, 1, 1, 2, requires_grad=True)
    errors = torch.tensor([[[[0.05, 0.1]]]], requires_grad=True)
    weight = torch.ones(1, 1, 1, 2)
    optimizer = torch.optim.Adam([raw], lr=0.1)
    for _ in range(300):
        optimizer.zero_grad()
        confidence_loss(1 + raw.exp(), errors, weight, alpha=0.5).backward()
        optimizer.step()
    assert errors.grad is None
    torch.testing.assert_close(
        (1 + raw.exp()).detach()[0, 0, 0], torch.tensor([10.0, 5.0]), rtol=0.01, atol=0
    )


def test_the_total_is_the_sum_of_its_parts_and_every_parameter_is_trained() -> None:
    torch.manual_seed(0)
    probe = Probe(ProbeConfig.compact(8))
    depth, pose, lens, valid = scene()
    size = (6, 8)
    targets = normalize_targets(depth, pose, lens, valid)
    losses = probe_loss(probe(torch.randn(2, 3, 3, 4, 8), size=size), targets)
    parts = losses["points"] + losses["depth"] + 5 * losses["camera"] + 0.1 * losses["confidence"]
    torch.testing.assert_close(losses["total"], parts)
    losses["total"].backward()
    for name, parameter in probe.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


def test_the_published_sum_has_every_weight_at_one_and_no_confidence() -> None:
    torch.manual_seed(0)
    output = Probe(ProbeConfig.compact(8))(torch.randn(2, 3, 3, 4, 8), size=(6, 8))
    losses = probe_loss(
        output, normalize_targets(*scene()), camera_weight=1.0, confidence_weight=0.0
    )
    parts = losses["points"] + losses["depth"] + losses["camera"]
    torch.testing.assert_close(losses["total"], parts)


def test_a_few_steps_on_one_batch_lower_the_loss_by_half() -> None:
    torch.manual_seed(0)
    probe = Probe(ProbeConfig.compact(8))
    targets = normalize_targets(*scene())
    features = torch.randn(2, 3, 3, 4, 8)
    optimizer = torch.optim.AdamW(probe.parameters(), lr=2e-3)
    history = []
    for _ in range(40):
        losses = probe_loss(probe(features, size=(6, 8)), targets)
        optimizer.zero_grad()
        losses["total"].backward()
        optimizer.step()
        history.append((losses["points"] + losses["depth"] + losses["camera"]).item())
    assert history[-1] < 0.5 * history[0]
