"""VGGT as a reference: a tiny one in a folder, and the golden one end to end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from small_models import TINY_VGGT
from vggt_samples import clip, small, write

from explorer import references
from explorer.camera import project
from explorer.errors import Cancelled, ReferenceError3D
from explorer.nets.vggt import VGGT
from explorer.references import Context, _vggt_files, _vggt_run, vggt
from explorer.references._turn import turn
from explorer.store import Store


@pytest.mark.parametrize("name", ["model.safetensors", "model.pt"])
def test_golden_numbers_come_out_of_a_folder(
    name: str, tmp_path: Path, golden: Path, state: dict[str, torch.Tensor]
) -> None:
    expected = load_file(golden / "vggt-tiny.safetensors")
    tolerance = json.loads((golden / "vggt-tiny.json").read_text())["tolerance"]["atol"]
    images = expected["input.images"][0].permute(0, 2, 3, 1).numpy()
    pictures = np.round(images * 255).astype(np.uint8)
    found = _vggt_run.run(
        pictures,
        _vggt_files.in_folder(write(tmp_path / "tiny", state, name=name)),
        size=(42, 70),
        device="cpu",
        should_stop=lambda: False,
    )
    # the golden pictures are not made of whole 255ths: the network's own answer to rounded ones
    model = VGGT(TINY_VGGT)
    model.load_state_dict(state)
    with torch.no_grad():
        exact = model(expected["input.images"])
        rounded = model(torch.from_numpy(pictures / np.float32(255)).permute(0, 3, 1, 2)[None])
    for ours, reference in ((found.depth, rounded.depth), (found.points, rounded.points)):
        scale = float(reference.abs().mean())
        assert np.abs(ours - reference[0].numpy()).max() < tolerance * scale
    golden_depth = expected["output.depth"][..., 0]
    assert float((exact.depth - golden_depth).abs().max() / golden_depth.mean()) < tolerance
    assert np.abs(found.depth - golden_depth[0].numpy()).mean() < 0.05 * float(golden_depth.mean())
    assert np.abs(found.intrinsics - expected["output.intrinsics"][0].numpy()).max() < 1.0
    assert found.dtype == "float32"


def test_points_are_unprojected_depth_or_those_of_the_point_head(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small(monkeypatch)
    depth = references.reconstruct("vggt", clip())
    head = references.reconstruct("vggt-point-head", clip())
    assert depth is not None
    assert head is not None
    assert depth.size == head.size == (42, 70)
    assert depth.frames.tolist() == [0, 1, 2, 3, 4]
    for slot in (0, 4):
        pixels, z = project(
            depth.points[slot].reshape(-1, 3).astype(np.float64),
            depth.cameras.cam_from_world[slot],
            depth.cameras.intrinsics[slot],
        )
        y, x = np.divmod(np.arange(42 * 70), 70)
        np.testing.assert_allclose(pixels, np.stack([x + 0.5, y + 0.5], axis=1), atol=1e-2)
        np.testing.assert_allclose(z, depth.depth[slot].ravel(), rtol=1e-4)
    assert depth.provenance["points_from"] == "depth"
    assert head.provenance["points_from"] == "point head"
    assert not np.allclose(depth.points, head.points)
    for found in (depth, head):
        assert found.confidence.min() > 1  # 1 + exp: kept as it is
        assert np.linalg.norm(found.points[0], axis=-1).mean() == pytest.approx(1, rel=1e-5)
        np.testing.assert_allclose(found.cameras.cam_from_world[0], np.eye(3, 4), atol=1e-5)
        assert found.provenance["estimate"]
    assert not np.allclose(depth.confidence, head.confidence)


def test_a_few_frames_of_the_heads_at_a_time_change_nothing(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small(monkeypatch)
    whole = references.reconstruct("vggt", clip())
    monkeypatch.setattr(_vggt_run, "CHUNK", 2)
    parts = references.reconstruct("vggt", clip())
    assert whole is not None
    assert parts is not None
    np.testing.assert_allclose(parts.depth, whole.depth, rtol=1e-4)


def test_attention_runs_in_half_precision_and_the_heads_in_whole(
    state: dict[str, torch.Tensor],
) -> None:
    model = VGGT(TINY_VGGT)
    model.load_state_dict(state)
    seen: dict[str, set[torch.dtype]] = {"attention": set(), "heads": set()}

    def note(kind: str, outputs: Any) -> None:
        first = outputs[0] if isinstance(outputs, tuple) else outputs
        seen[kind].add(first.dtype)

    attention = model.aggregator.global_blocks[0].attn.qkv
    attention.register_forward_hook(lambda module, inputs, output: note("attention", output))
    for head in (model.depth_head, model.point_head, model.camera_head):
        for part in head.modules():
            if isinstance(part, (torch.nn.Conv2d, torch.nn.Linear)):
                part.register_forward_hook(lambda module, inputs, output: note("heads", output))
    images = torch.rand(1, 3, 3, 28, 42, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        whole, _ = _vggt_run.infer(model, images, (28, 42), half=False)
        assert seen["attention"] == {torch.float32}
        seen["attention"].clear()
        half, encoding = _vggt_run.infer(model, images, (28, 42), half=True)
    assert seen == {"attention": {torch.bfloat16}, "heads": {torch.float32}}
    assert encoding.dtype == half.depth.dtype == torch.float32
    assert 0 < float((half.depth / whole.depth - 1).abs().median()) < 0.1


def test_what_was_estimated_is_kept_per_weights_and_choice(
    weights: Path,
    state: dict[str, torch.Tensor],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    small(monkeypatch)
    calls = []
    run = _vggt_run.run
    monkeypatch.setattr(_vggt_run, "run", lambda *a, **k: calls.append(1) or run(*a, **k))
    context = Context(store=Store(tmp_path / "store"))
    for name, expected in (("vggt", 1), ("vggt", 1), ("vggt-point-head", 2)):
        references.reconstruct(name, clip(), context)
        assert len(calls) == expected, name
    other = {name: value * 1.01 for name, value in state.items()}
    write(weights, other)
    references.reconstruct("vggt", clip(), context)
    assert len(calls) == 3
    (weights / "card.json").write_text(json.dumps({"input": [42, 70], "maps": [21, 35]}))
    found = references.reconstruct("vggt", clip(), context)
    assert found is not None
    assert found.size == (21, 35)


@pytest.mark.parametrize(
    ("size", "expected"),
    [((540, 960), (294, 518)), ((144, 256), (294, 518)), ((480, 640), (392, 518))],
)
def test_pictures_are_prepared_as_published(
    size: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert vggt.input_size(size, 14) == expected


def test_the_toy_sees_the_compared_frames_at_the_sizes_on_its_card(
    tmp_path: Path, state: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMERGE3D_ASSETS", str(tmp_path))
    assert "toy-vggt" not in references.offered()
    with pytest.raises(ReferenceError3D, match="not part of this installation"):
        references.reconstruct("toy-vggt", clip())
    write(tmp_path / "models" / "toy-vggt", state, input=[28, 56], maps=[20, 32])
    assert "toy-vggt" in references.offered()
    assert references.label("toy-vggt") == "toy-vggt (toy estimate, not ground truth)"
    found = references.reconstruct("toy-vggt", clip(9), Context(frames=(0, 2, 3)))
    assert found is not None
    assert found.frames.tolist() == [0, 2, 3]
    assert found.size == (20, 32)
    assert found.cameras.size == (20, 32)
    alone = references.reconstruct("toy-vggt", clip(9))
    assert alone is not None
    assert alone.frames.tolist() == [0, 1, 5]


BLOCKS = TINY_VGGT.embedder_depth + 2 * TINY_VGGT.pairs


@pytest.mark.parametrize("allowed", [1, 1 + BLOCKS // 2, 1 + BLOCKS, 1 + BLOCKS + 4])
def test_stop_is_asked_before_every_block_and_between_frames_of_the_heads(
    allowed: int, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small(monkeypatch)
    monkeypatch.setattr(_vggt_run, "CHUNK", 1)
    asked: list[None] = []
    context = Context(should_stop=lambda: asked.append(None) or len(asked) > allowed)
    with pytest.raises(Cancelled):
        references.reconstruct("vggt", clip(), context)
    assert len(asked) == allowed + 1
    assert references.reconstruct("vggt", clip(2)) is not None  # no hook is left behind


def test_stop_is_heard_while_another_pass_is_under_way(weights: Path) -> None:
    with turn(lambda: False), pytest.raises(Cancelled):
        references.reconstruct("vggt", clip(), Context(should_stop=lambda: True))
