"""HunyuanVideo, its version 1.5 and Open-Sora 2.0 against their networks called by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import hunyuan_by_hand as hand
import numpy as np
import pytest
import torch
from hunyuan_cases import CASES, HUNYUAN, HUNYUAN15, WIDTH, Case, blocks_of
from weights_left import set_aside

from explorer.clip import Clip
from explorer.errors import BackboneError

MakeClip = Callable[..., Clip]
PASSES = [(case.id, *each) for case in CASES.values() for each in case.passes]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("hunyuan")
    return {name: case.write(root / name) for name, case in CASES.items()}


@pytest.fixture(scope="module")
def models(folders: dict[str, Path]) -> dict[str, Any]:
    return {name: hand.small(case.load(folders[name])) for name, case in CASES.items()}


@pytest.mark.parametrize(("name", "count", "sigma"), PASSES)
def test_features_are_the_image_tokens_of_a_plain_forward(
    models: dict[str, Any],
    folders: dict[str, Path],
    make_clip: MakeClip,
    name: str,
    count: int,
    sigma: float,
) -> None:
    case, clip, seed = CASES[name], make_clip(count, hand.SIZE), 5
    network = case.transformer(folders[name])
    with torch.no_grad(), hand.recorded(blocks_of(network)) as outputs:
        network(**case.given(folders[name], clip, sigma, seed))
    found = models[name].extract(clip, layers=range(case.layers), sigma=sigma, seed=seed)
    slots = 1 + (count - 1) // 4
    assert len(outputs) == len(found) == case.layers
    for layer, output in enumerate(outputs):
        expected = case.image(output).reshape(slots, *hand.GRID, WIDTH).numpy()
        np.testing.assert_allclose(found[layer].values, expected, rtol=2e-3, atol=2e-4)


@pytest.mark.parametrize("name", CASES)
def test_half_precision_tells_the_network_the_same(
    models: dict[str, Any], folders: dict[str, Path], make_clip: MakeClip, name: str
) -> None:
    half = hand.small(CASES[name].load(folders[name], "bfloat16"))
    hand.check_half_precision(models[name], half, make_clip(9, hand.SIZE), sigma=0.6257)


@pytest.mark.parametrize("tap", ["query", "key"])
@pytest.mark.parametrize("case", [HUNYUAN, HUNYUAN15], ids=lambda case: case.id)
def test_taps_are_the_normed_projections_of_the_image_tokens(
    models: dict[str, Any], folders: dict[str, Path], make_clip: MakeClip, case: Case, tap: str
) -> None:
    clip, count = make_clip(9, hand.SIZE), 3 * hand.GRID[0] * hand.GRID[1]
    network, letter = case.transformer(folders[case.id]), tap[0]
    blocks, projected = blocks_of(network), []
    for block in blocks:
        getattr(block.attn, f"to_{letter}").register_forward_hook(
            lambda module, inputs, out: projected.append(out[0, :count])
        )
    with torch.no_grad():
        network(**case.given(folders[case.id], clip, 0.5, 0))
    found = models[case.id].extract(clip, layers=range(case.layers), sigma=0.5, tap=tap)
    for layer, (block, raw) in enumerate(zip(blocks, projected, strict=True)):
        heads = raw.unflatten(-1, (2, 12))
        scale = getattr(block.attn, f"norm_{letter}").weight.detach()
        normed = heads / (heads.square().mean(-1, keepdim=True) + 1e-6).sqrt() * scale
        expected = normed.reshape(3, *hand.GRID, WIDTH).numpy()
        np.testing.assert_allclose(found[layer].values, expected, rtol=2e-3, atol=1e-3)


@pytest.mark.parametrize("how", ["missing", "unexpected", "has shape"])
@pytest.mark.parametrize("part", [0, 1], ids=["transformer", "vae"])
@pytest.mark.parametrize("name", CASES)
def test_weights_that_do_not_fit_are_refused_and_not_kept(
    tmp_path: Path, name: str, part: int, how: str
) -> None:
    case = CASES[name]
    folder = case.write(tmp_path / "tiny")
    (weights,) = folder.glob(case.files[part])
    hand.break_file(weights, how)
    with set_aside() as weights_left:
        with pytest.raises(BackboneError, match=f"the weights in .* do not fit .*{how}"):
            case.load(folder)
        assert weights_left() == []
