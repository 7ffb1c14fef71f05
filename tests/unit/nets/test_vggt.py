from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from small_models import TINY_VGGT

from explorer.nets.pose import decode_pose
from explorer.nets.vggt import VGGT, VGGTConfig, without_tracks

GOLDEN = Path(__file__).parents[2] / "golden"


@pytest.fixture(scope="module")
def golden() -> dict[str, torch.Tensor]:
    return load_file(GOLDEN / "vggt-tiny.safetensors")


@pytest.fixture(scope="module")
def facts() -> dict:
    return json.loads((GOLDEN / "vggt-tiny.json").read_text())


@pytest.mark.parametrize("variant", ["", "small."])
def test_vggt_is_reproduced_from_its_own_weights(
    golden: dict[str, torch.Tensor], facts: dict, variant: str
) -> None:
    weights = {k.removeprefix("weight."): v.float() for k, v in golden.items() if k[:2] == "we"}
    if variant:
        small = facts["variants"]["small"]
        for name in weights:
            if any(re.search(one, name) for one in small["weights_matching_any_regex"]):
                weights[name] = weights[name] * small["multiply_by"]
    model = VGGT(TINY_VGGT)
    model.load_state_dict(weights)
    images = golden["input.images"]
    aggregator = model.aggregator
    with torch.no_grad():
        flat = ((images - aggregator.mean) / aggregator.std).flatten(0, 1)
        patch_tokens = aggregator.patch_embed(flat)
        taps = model.trunk(images)
        out = model(images, chunk=2)
    extrinsics, intrinsics = decode_pose(out.pose_encodings[-1], tuple(images.shape[-2:]))
    found = {
        "patch_tokens": patch_tokens,
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


def test_names_and_shapes_of_vggt_1b_load_strictly() -> None:
    published = json.loads((GOLDEN / "vggt-1b-names.json").read_text())["tensors"]
    state = {name: torch.empty(shape, device="meta") for name, shape in published.items()}
    with torch.device("meta"):
        model = VGGT(VGGTConfig())
    assert any(name.startswith("track_head.") for name in state)
    model.load_state_dict(without_tracks(state), strict=True, assign=True)


def test_images_that_are_not_made_of_patches_are_refused() -> None:
    with pytest.raises(ValueError, match="patches of 14"):
        VGGT(TINY_VGGT)(torch.zeros(1, 1, 3, 42, 60))


def test_the_heads_must_read_four_pairs_up_to_the_last() -> None:
    for layers in ((0, 1, 2), (0, 2, 1, 3), (0, 1, 2, 2)):
        with pytest.raises(ValueError, match="dpt_layers"):
            VGGT(VGGTConfig(dim=16, heads=2, pairs=4, dpt_layers=layers))
