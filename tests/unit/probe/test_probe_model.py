from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from explorer.nets.pose import decode_pose
from explorer.probe.model import Probe, ProbeConfig

GOLDEN = Path(__file__).parents[2] / "golden"
PUBLISHED = ProbeConfig(
    in_channels=48,
    dim=32,
    heads=4,
    dpt_dim=16,
    dpt_stage_channels=(8, 12, 16, 20),
    output_size=(40, 66),
)


@pytest.fixture(scope="module")
def golden() -> dict[str, torch.Tensor]:
    return load_file(GOLDEN / "vidfm3d-probe-tiny.safetensors")


@pytest.fixture(scope="module")
def facts() -> dict:
    return json.loads((GOLDEN / "vidfm3d-probe-tiny.json").read_text())


@pytest.mark.parametrize("variant", ["", "small."])
def test_the_published_probe_is_reproduced_from_its_own_weights(
    golden: dict[str, torch.Tensor], facts: dict, variant: str
) -> None:
    weights = {k.removeprefix("weight."): v.float() for k, v in golden.items() if k[:2] == "we"}
    if variant:
        small = facts["variants"]["small"]
        for name in weights:
            if any(re.search(one, name) for one in small["weights_matching_any_regex"]):
                weights[name] = weights[name] * small["multiply_by"]
    probe = Probe(PUBLISHED)
    probe.load_state_dict(weights)
    features = golden["input.video_features"].permute(0, 1, 3, 4, 2)
    with torch.no_grad():
        taps = probe.trunk(features)
        out = probe(features)
    extrinsics, intrinsics = decode_pose(out.pose_encodings[-1], (40, 66))
    found = {
        "depth": out.depth[..., None],
        "depth_conf": out.depth_confidence,
        "world_points": out.points,
        "world_points_conf": out.points_confidence,
        "pose_enc": out.pose_encodings[-1],
        "extrinsics": extrinsics,
        "intrinsics": intrinsics,
        **{f"tokens.{i}": tap for i, tap in enumerate(taps)},
        **{f"pose_enc_list.{i}": encoding for i, encoding in enumerate(out.pose_encodings)},
    }
    expected = {
        name.removeprefix(f"output.{variant}"): value
        for name, value in golden.items()
        if name.startswith(f"output.{variant}") and ("small" in name) == bool(variant)
    }
    assert expected
    for name, value in expected.items():
        error = ((found[name] - value).abs().max() / value.abs().mean()).item()
        assert error < facts["tolerance"]["atol"], name


def test_the_published_configuration_has_the_published_size() -> None:
    with torch.device("meta"):
        probe = Probe(ProbeConfig(in_channels=1536))
    names = {"camera_head": 216.2e6, "point_head": 32.65e6, "depth_head": 32.65e6}
    for name, expected in names.items():
        count = sum(p.numel() for p in getattr(probe, name).parameters())
        assert count == pytest.approx(expected, rel=2e-3), name
    assert sum(p.numel() for p in probe.parameters()) == pytest.approx(383.9e6, rel=1e-3)


@pytest.mark.parametrize("channels", [16, 192, 384])
def test_the_compact_probe_has_at_most_three_quarters_of_a_million_parameters(
    channels: int,
) -> None:
    probe = Probe(ProbeConfig.compact(channels))
    assert sum(p.numel() for p in probe.parameters()) <= 750_000


def test_training_starts_from_a_flat_world_seen_by_equal_cameras() -> None:
    torch.manual_seed(0)
    probe = Probe(ProbeConfig.compact(24))
    with torch.no_grad():
        out = probe(torch.randn(2, 3, 6, 8, 24))
    assert out.depth.mean() == pytest.approx(1.0, abs=0.1)
    assert out.depth_confidence.mean() == pytest.approx(2.0, abs=0.1)
    torch.testing.assert_close(
        out.points.mean((0, 1, 2, 3)), torch.tensor([0.0, 0.0, 1.0]), atol=0.1, rtol=0
    )
    start = torch.tensor(probe.config.camera_start)
    assert (out.pose_encodings[-1] - start).abs().max() < 0.3


@pytest.mark.parametrize(("frames", "grid"), [(1, (18, 32)), (3, (6, 8)), (2, (5, 7))])
def test_any_number_of_frames_on_any_grid_gives_maps_four_times_the_grid(
    frames: int, grid: tuple[int, int]
) -> None:
    probe = Probe(ProbeConfig.compact(8))
    with torch.no_grad():
        out = probe(torch.zeros(1, frames, *grid, 8))
    size = (4 * grid[0], 4 * grid[1])
    assert out.depth.shape == out.depth_confidence.shape == (1, frames, *size)
    assert out.points.shape == (1, frames, *size, 3)
    assert out.points_confidence.shape == (1, frames, *size)
    assert [tuple(encoding.shape) for encoding in out.pose_encodings] == [(1, frames, 9)] * 4


def test_maps_of_one_frame_equal_the_maps_of_all() -> None:
    torch.manual_seed(0)
    probe = Probe(ProbeConfig.compact(8))
    features = torch.randn(1, 3, 4, 5, 8)
    with torch.no_grad():
        taps = probe.trunk(features)
        together = probe(features)
        alone = probe.dense(taps, (4, 5), frames=slice(2, 3))
    torch.testing.assert_close(alone.depth[0], together.depth[0, 2])
    torch.testing.assert_close(alone.points[0], together.points[0, 2])


def test_heads_stay_in_float32_under_bfloat16_autocast() -> None:
    torch.manual_seed(0)
    probe = Probe(ProbeConfig.compact(8))
    features = torch.randn(1, 2, 4, 5, 8)
    with torch.no_grad():
        exact = probe(features)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            mixed = probe(features)
    assert mixed.depth.dtype == mixed.pose_encodings[-1].dtype == torch.float32
    torch.testing.assert_close(mixed.depth, exact.depth, atol=0.05, rtol=0)
    assert not torch.equal(mixed.depth, exact.depth)


def test_a_configuration_survives_json() -> None:
    config = ProbeConfig.compact(8)
    assert ProbeConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_another_number_of_pairs_than_four_is_refused() -> None:
    with pytest.raises(ValueError, match="four pairs"):
        Probe(ProbeConfig(in_channels=8, dim=16, heads=2, pairs=3))
