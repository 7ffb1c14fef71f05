"""VGGT as a reference: a tiny one in a folder, the golden one end to end, and what is refused."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from explorer import references
from explorer.backbones import _memory
from explorer.camera import project
from explorer.clip import Clip, clip_from_frames
from explorer.errors import Cancelled, NoReconstruction, ReferenceError3D
from explorer.nets.pose import decode_pose
from explorer.nets.vggt import VGGT, VGGTConfig
from explorer.references import Context, _published, _room, _vggt_files, _vggt_run, vggt
from explorer.references._turn import turn
from explorer.store import Store

TINY = VGGTConfig(
    dim=32,
    heads=4,
    pairs=4,
    native_grid=4,
    embedder_depth=2,
    embedder_heads=4,
    dpt_layers=(0, 1, 2, 3),
    dpt_dim=16,
    dpt_stage_channels=(8, 12, 16, 20),
)


def write(
    folder: Path, state: dict[str, torch.Tensor], *, name: str = "model.safetensors", **card: Any
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    if name.endswith(".safetensors"):
        save_file(state, folder / name)
    else:
        torch.save(state, folder / name)
    (folder / "config.json").write_text(json.dumps(asdict(TINY)))
    if card:
        (folder / "card.json").write_text(json.dumps(card))
    return folder


@pytest.fixture(scope="module")
def state(golden: Path) -> dict[str, torch.Tensor]:
    found = load_file(golden / "vggt-tiny.safetensors")
    return {
        name.removeprefix("weight."): value.float().contiguous()
        for name, value in found.items()
        if name.startswith("weight.")
    }


@pytest.fixture
def weights(
    tmp_path: Path, state: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> Path:
    monkeypatch.setenv("EMERGE3D_WEIGHTS", str(tmp_path))
    monkeypatch.setattr(_room, "_kept", [])
    return write(tmp_path / "vggt", state)


def clip(count: int = 5, size: tuple[int, int] = (60, 100)) -> Clip:
    rng = np.random.default_rng(0)
    return clip_from_frames(rng.integers(0, 256, (count, *size, 3), dtype=np.uint8), name="noise")


def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures of 70 columns: the tiny network needs no 518."""
    monkeypatch.setattr(vggt, "SIDE", 70)


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
    model = VGGT(TINY)
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
    model = VGGT(TINY)
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


BLOCKS = TINY.embedder_depth + 2 * TINY.pairs


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


def test_weights_that_are_here_for_the_backbone_serve_the_reference_too(
    tmp_path: Path, state: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMERGE3D_WEIGHTS", str(tmp_path))
    write(tmp_path / "vggt-1b", state)
    assert _vggt_files.published().folder == tmp_path / "vggt-1b"
    write(tmp_path / "vggt", state)
    assert _vggt_files.published().folder == tmp_path / "vggt"


def test_missing_weights_say_how_to_get_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EMERGE3D_WEIGHTS", raising=False)
    monkeypatch.setattr(_published, "_cached", lambda source: None)
    assert "vggt" not in references.offered()
    with pytest.raises(ReferenceError3D, match="emerge3d references vggt --download"):
        references.reconstruct("vggt", clip())


def test_an_empty_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMERGE3D_WEIGHTS", str(tmp_path))
    (tmp_path / "vggt").mkdir()
    with pytest.raises(ReferenceError3D, match=r"no files of weights.*model\.safetensors"):
        references.reconstruct("vggt", clip())


def damage(kind: str, folder: Path, state: dict[str, torch.Tensor]) -> None:
    first = next(iter(state))
    match kind:
        case "another shape":
            write(folder, {**state, first: state[first][..., :1].contiguous()})
        case "a name is missing":
            write(folder, {name: value for name, value in state.items() if name != first})
        case "an unexpected name":
            write(folder, {**state, "extra": torch.zeros(1)})
        case "cut short":
            path = folder / "model.safetensors"
            path.write_bytes(path.read_bytes()[:-100])
        case "not finite":
            name = "depth_head.norm.weight"
            write(folder, {**state, name: torch.full_like(state[name], torch.nan)})
        case "configuration":
            (folder / "config.json").write_text(json.dumps({**asdict(TINY), "colour": 1}))
        case "layers":
            wrong = asdict(replace(TINY, dpt_layers=(0, 1, 2, 2)))
            (folder / "config.json").write_text(json.dumps(wrong))
        case "a program":
            (folder / "model.safetensors").unlink()
            torch.save({"model": state, "run": Path()}, folder / "model.pt")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("another shape", "of another shape"),
        ("a name is missing", "1 missing"),
        ("an unexpected name", "1 unexpected: extra"),
        ("cut short", "damaged"),
        ("not finite", "not finite"),
        ("configuration", "config.json"),
        ("layers", "dpt_layers"),
        ("a program", "can run any program"),
    ],
)
def test_weights_that_do_not_fit_are_refused(
    kind: str,
    message: str,
    weights: Path,
    state: dict[str, torch.Tensor],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    small(monkeypatch)
    damage(kind, weights, state)
    with pytest.raises(ReferenceError3D, match=message):
        references.reconstruct("vggt", clip())


def test_too_little_memory_is_said_before_anything_is_loaded(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_memory, "free", lambda device: 10_000)
    monkeypatch.setattr(_vggt_run, "_load", None)
    with pytest.raises(ReferenceError3D, match="take fewer frames"):
        references.reconstruct("vggt", clip())


def test_weights_that_are_loaded_are_not_asked_for_again(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small(monkeypatch)
    asked: list[int] = []
    make_room = _room.make_room

    def noted(need: int, device: str, what: str) -> None:
        asked.append(need)
        make_room(need, device, what)

    monkeypatch.setattr(_room, "make_room", noted)
    for _ in range(2):
        references.reconstruct("vggt", clip())
    assert asked[0] - asked[1] == 4 * _vggt_run._parameters(TINY)


def test_a_pass_that_runs_out_of_memory_is_no_traceback(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: Any, **named: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    small(monkeypatch)
    monkeypatch.setattr(_vggt_run, "infer", full)
    with pytest.raises(ReferenceError3D, match="5 frames by this VGGT do not fit"):
        references.reconstruct("vggt", clip())


@pytest.mark.parametrize("name", ["vggt", "vggt-point-head"])
@pytest.mark.parametrize(
    ("value", "kind", "message"),
    [
        (torch.inf, NoReconstruction, "no field of view in 1 of 5 frames"),
        (torch.nan, ReferenceError3D, "not finite"),
    ],
)
def test_cameras_that_are_not_finite_are_refused(
    name: str,
    value: float,
    kind: type[Exception],
    message: str,
    weights: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def blind(*arguments: Any) -> tuple[torch.Tensor, torch.Tensor]:
        pose, lens = decode_pose(*arguments)
        lens[1, 0, 0] = value
        return pose, lens

    small(monkeypatch)
    monkeypatch.setattr(_vggt_run, "decode_pose", blind)
    with pytest.raises(kind, match=message):
        references.reconstruct(name, clip())


@pytest.mark.parametrize("size", [[42, 71], [0, 70], [42], "large", ["a", "b"]])
def test_a_card_with_another_size_than_whole_patches_is_refused(size: Any, weights: Path) -> None:
    (weights / "card.json").write_text(json.dumps({"input": size}))
    with pytest.raises(ReferenceError3D, match=r"card\.json"):
        references.reconstruct("vggt", clip())


def test_tracks_are_left_out_of_a_published_file(
    tmp_path: Path, state: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    small(monkeypatch)
    monkeypatch.setenv("EMERGE3D_WEIGHTS", str(tmp_path))
    write(tmp_path / "vggt", {**state, "track_head.tracker.weight": torch.zeros(3)})
    assert references.reconstruct("vggt", clip(2)) is not None
