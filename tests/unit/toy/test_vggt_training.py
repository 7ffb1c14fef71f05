"""toy-vggt: a whole run on a pool that takes no rendering, and its backbone."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from explorer import references
from explorer.backbones import registry, toy_vggt
from explorer.backbones._toy_vggt import VggtBackbone, load_vggt, to_images, tokens_of
from explorer.clip import clip_from_frames
from explorer.errors import BackboneError, Cancelled
from explorer.nets.vggt import VGGT, VGGTConfig
from explorer.toy import config, ship, train_vggt
from explorer.toy.cells import Cell
from explorer.toy.config import VGGT_CONFIG, VGGT_MAPS
from explorer.toy.probe_pool import Sources, Views
from explorer.toy.shards import load_checkpoint, save_shards

SMALL: dict[str, Any] = {
    **VGGT_CONFIG,
    "dim": 24,
    "heads": 2,
    "embedder_depth": 1,
    "embedder_heads": 2,
    "dpt_dim": 8,
    "dpt_stage_channels": (4, 4, 8, 8),
    "dpt_hidden": 4,
    "camera_dim": 24,
    "camera_heads": 2,
}


def made_up_views(renderer: Any, seeds: list[int], **_: Any) -> Views:
    count, generator = len(seeds), torch.Generator().manual_seed(0)
    pose = torch.eye(4)[:3].expand(count, 5, 3, 4).clone()
    pose[:, :, 0, 3] = torch.arange(5) * 0.1
    intrinsics = torch.tensor([[100.0, 0.0, 64.0], [0.0, 100.0, 36.0], [0.0, 0.0, 1.0]])
    shape = (count, 5, 144, 256, 3)
    return Views(
        frames=torch.randint(0, 255, shape, dtype=torch.uint8, generator=generator),
        depth=torch.rand(count, 5, *VGGT_MAPS, generator=generator) + 1.0,
        cam_from_world=pose,
        intrinsics=intrinsics.expand(count, 3, 3).clone(),
    )


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (train_vggt, ship):
        monkeypatch.setattr(module, "VGGT_CONFIG", SMALL)
    monkeypatch.setattr(train_vggt, "make_views", made_up_views)


def run(out: Path, monkeypatch: pytest.MonkeyPatch, *more: str) -> dict[str, Any]:
    words = ["--out", str(out), "--seconds", "99", "--pool", "2", "--held-out", "1", "--batch", "1"]
    monkeypatch.setattr(sys, "argv", ["train_vggt", *words, "--subsets", "0.5", *more])
    train_vggt.main()
    card: dict[str, Any] = json.loads((out / "vggt.json").read_text())
    return card


@pytest.mark.usefixtures("small")
def test_the_expert_is_trained_resumed_and_shipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(tmp_path / "first", monkeypatch, "--steps", "3")
    assert (first["steps"], first["distinct_clips"]) == (3, 2)
    assert first["validation"].keys() == {"loss", "points", "depth", "camera"}
    again = ("--steps", "2", "--resume", str(tmp_path / "first"), "--first-seed", "900000000")
    second = run(tmp_path / "second", monkeypatch, *again)
    assert (second["steps"], second["distinct_clips"], len(second["slices"])) == (5, 4, 2)
    before, _ = load_checkpoint(tmp_path / "first", "vggt")
    after, _ = load_checkpoint(tmp_path / "second", "vggt")
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[name], after[name]) for name in before)

    folder = ship.ship_vggt(tmp_path / "second", tmp_path / "models")
    assert json.loads((folder / "card.json").read_text())["maps"] == list(VGGT_MAPS)
    model = load_vggt(folder, device="cpu")
    name, value = next(iter(after.items()))
    torch.testing.assert_close(dict(model.named_parameters())[name], value, atol=1e-3, rtol=1e-3)
    shipped, card = load_checkpoint(folder, "vggt")
    assert shipped.keys() == after.keys()
    assert card["steps"] == 5
    (folder / "config.json").write_text(json.dumps({**SMALL, "dim": 48}))
    with pytest.raises(BackboneError, match="do not fit"):
        load_vggt(folder, device="cpu")


def test_steps_see_two_to_five_frames_in_any_order() -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = [train_vggt.draw_slots(generator, 1.0) for _ in range(300)]
    assert {len(slots or []) for slots in drawn} == {2, 3, 4, 5}
    assert {slots[0] for slots in drawn if slots} == set(range(5))
    assert all(len(set(slots)) == len(slots) for slots in drawn if slots)
    assert train_vggt.draw_slots(generator, 0.0) is None


def test_targets_of_some_frames_have_the_first_of_them_as_origin() -> None:
    views = made_up_views(None, [0])
    index = torch.tensor([0])
    some, every = views.targets(index, [3, 1]), views.targets(index)
    identity = torch.eye(4)[:3]
    torch.testing.assert_close(some.cam_from_world[0, 0], identity)
    torch.testing.assert_close(every.cam_from_world[0, 0], identity)
    shift = some.cam_from_world[0, 1, 0, 3] * some.unit[0]
    assert float(shift) == pytest.approx(-0.2, abs=1e-5)


def test_the_loss_weighs_the_camera_five_times() -> None:
    torch.manual_seed(0)
    model = VGGT(VGGTConfig(**SMALL))
    views, index = made_up_views(None, [0]), torch.tensor([0])
    targets = views.targets(index)
    total, points, depth, camera = train_vggt.losses_of(
        model, views.frames, *targets, autocast=False
    ).tolist()
    moved = targets._replace(pose_encoding=targets.pose_encoding + 0.5)
    other, _, _, further = train_vggt.losses_of(
        model, views.frames, *moved, autocast=False
    ).tolist()
    assert other - total == pytest.approx(5.0 * (further - camera), rel=1e-3)
    assert min(points, depth) > 0


def test_the_card_is_that_of_the_full_network() -> None:
    with torch.device("meta"):
        model = VGGT(VGGTConfig(**config.VGGT_CONFIG))
    assert sum(p.numel() for p in model.parameters()) == toy_vggt.CARD.parameters
    assert toy_vggt.CARD.layers == model.config.pairs
    assert ("toy-vggt" in {card.id for card in registry.cards()}) == bool(
        list((toy_vggt._toy.folder("toy-vggt")).glob("*.safetensors"))
    )


@pytest.fixture
def backbone() -> VggtBackbone:
    torch.manual_seed(0)
    model = VGGT(VGGTConfig(**SMALL)).eval().requires_grad_(False)
    return VggtBackbone(toy_vggt.CARD, model, weights_hash="w", trained=False)


def test_features_are_the_patch_tokens_of_the_aggregator(backbone: VggtBackbone) -> None:
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 255, (5, 144, 256, 3), dtype=np.uint8)
    found = backbone.extract(clip_from_frames(frames, name="n"), layers=[0, 4], sigma=0.3)
    assert found[4].sigma == 0.0
    assert found[4].slot_frames.tolist() == [0, 1]
    images = to_images(torch.from_numpy(frames[[0, 1]])[None])
    taps = backbone.transformer.aggregator(images)
    for layer in (0, 4):
        expected = taps[layer][0, :, 5:].unflatten(1, (18, 32))
        values = torch.from_numpy(found[layer].values).float()
        torch.testing.assert_close(values, expected, atol=5e-3, rtol=5e-3)


def test_a_pass_of_the_expert_can_be_stopped(backbone: VggtBackbone) -> None:
    asked: list[None] = []

    def soon() -> bool:
        asked.append(None)
        return len(asked) > 3

    with pytest.raises(Cancelled):
        tokens_of(backbone.transformer, torch.rand(1, 1, 3, 16, 16), layers=[5], should_stop=soon)
    assert len(asked) == 4


def test_probes_are_trained_on_what_the_expert_extracts(backbone: VggtBackbone) -> None:
    views = made_up_views(None, [0])
    cell = Cell("toy-vggt", 2, 0.0)
    sources = Sources([cell], {"toy-vggt": backbone.transformer}, "cpu")
    latents = torch.zeros(1, 16, 5, 36, 64)
    found = sources(latents, views.frames, latents)[cell.name]
    frames = np.zeros((17, 144, 256, 3), dtype=np.uint8)
    frames[[0, 1, 5, 9, 13]] = views.frames[0].numpy()
    expected = backbone.extract(clip_from_frames(frames, name="n"), layers=[2], sigma=0.0)[2]
    values = torch.from_numpy(expected.values).float()
    torch.testing.assert_close(found[0], values, atol=5e-3, rtol=5e-3)
    assert sources.wide("toy-vggt") == toy_vggt.CARD.width


@pytest.mark.usefixtures("small")
def test_the_reference_takes_the_folder_that_shipping_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    network = VGGT(VGGTConfig(**SMALL)).half()
    card = {"world": 2, "data": "", "distinct_clips": 0, "steps": 0, "train_seconds": 0.0}
    save_shards(network.state_dict(), tmp_path, "vggt", {**card, "history": [{"loss": 1.0}]})
    ship.ship_vggt(tmp_path, tmp_path / "models")
    monkeypatch.setenv("EMERGE3D_ASSETS", str(tmp_path))
    frames = np.random.default_rng(0).integers(0, 255, (9, 144, 256, 3), dtype=np.uint8)
    clip = clip_from_frames(frames, name="n")
    found = references.reconstruct("toy-vggt", clip, references.Context(frames=(0, 1, 5)))
    assert found is not None
    assert found.frames.tolist() == [0, 1, 5]
    assert found.size == VGGT_MAPS
    images = to_images(torch.from_numpy(frames[[0, 1, 5]])[None])
    network = network.float()
    with torch.no_grad():
        expected = network.geometry(network.trunk(images), (18, 32), VGGT_MAPS).depth[0].numpy()
    # nothing but the unit of length may differ
    np.testing.assert_allclose(found.depth * found.provenance["unit"], expected, rtol=1e-4)
