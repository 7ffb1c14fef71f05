"""toy-jepa: masks, objective, a whole run on a pool that takes no rendering, and its backbone."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from explorer.backbones import toy_jepa
from explorer.backbones._toy_jepa import JepaBackbone, load_jepa, to_boxes
from explorer.clip import clip_from_frames
from explorer.nets.vjepa import VideoViT, VideoViTConfig
from explorer.toy import probe_models, ship, train_jepa
from explorer.toy.cells import Cell
from explorer.toy.config import JEPA_CONFIG
from explorer.toy.jepa import Jepa, draw_masks, encode, jepa_losses
from explorer.toy.probe_pool import Needs, Sources
from explorer.toy.shards import load_checkpoint

SMALL: dict[str, Any] = {**JEPA_CONFIG, "dim": 24, "depth": 2, "heads": 2}
GRID = (3, 12, 20)


def test_masks_are_blocks_of_the_picture_through_all_of_time() -> None:
    kept, masked = draw_masks(4, GRID, torch.Generator().manual_seed(0))
    places = GRID[1] * GRID[2]
    assert masked.shape == (4, 3 * round(0.75 * places))
    for clip in range(4):
        both = torch.cat([kept[clip], masked[clip]]).sort().values
        assert torch.equal(both, torch.arange(3 * places)), "every token is in one of the two"
        pictures = masked[clip].reshape(3, -1) - torch.arange(3)[:, None] * places
        assert torch.equal(pictures[0], pictures[2]), "the same places in every frame"
    covered = torch.zeros(places)
    covered[masked[0, : round(0.75 * places)]] = 1
    picture = covered.reshape(GRID[1:])
    edges = (picture[1:] != picture[:-1]).float().mean()
    assert edges < 0.3, "coherent blocks; three quarters by chance have 0.375"
    assert not torch.equal(kept[0], kept[1])


def some_clips(count: int, size: tuple[int, int] = (32, 48)) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 255, (count, 17, *size, 3), dtype=torch.uint8, generator=generator)


def test_the_encoder_of_all_tokens_is_that_of_the_features() -> None:
    torch.manual_seed(0)
    model = VideoViT(VideoViTConfig(**SMALL))
    video = to_boxes(some_clips(1))
    torch.testing.assert_close(encode(model, video), model.norm(model(video)))
    everything = torch.arange(video.shape[2] // 2 * 4 * 6)[None]
    torch.testing.assert_close(encode(model, video, everything), encode(model, video))


def test_the_loss_reaches_encoder_and_predictor_and_not_the_target() -> None:
    torch.manual_seed(0)
    model = Jepa(VideoViTConfig(**SMALL))
    video = to_boxes(some_clips(2))
    kept, masked = draw_masks(2, model.encoder.grid(*video.shape[2:]), torch.Generator())
    loss, spread = jepa_losses(model, video, kept, masked, autocast=False)
    loss.backward()
    assert 0 < float(spread.detach()) <= 1.01
    named = dict(model.named_parameters())
    assert all(p.grad is None for n, p in named.items() if n.startswith("target."))
    trained = [n for n, p in named.items() if p.requires_grad and p.grad is None]
    assert trained == []
    changed = video.clone()
    grid = model.encoder.grid(*video.shape[2:])
    row, column = divmod(int(masked[0, 0]) % (grid[1] * grid[2]), grid[2])
    changed[0, :, :, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8] = 0.0
    torch.testing.assert_close(
        encode(model.encoder, changed, kept), encode(model.encoder, video, kept)
    )


def test_the_target_follows_the_encoder_by_its_momentum() -> None:
    model = Jepa(VideoViTConfig(**SMALL))
    old = model.target.norm.bias.clone()
    with torch.no_grad():
        model.encoder.norm.bias += 1.0
    model.follow(0.9)
    torch.testing.assert_close(model.target.norm.bias, old + 0.1)


def made_up_images(renderer: Any, seeds: list[int], **options: Any) -> Tensor:
    return some_clips(len(seeds))


def test_the_encoder_is_trained_resumed_and_shipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (train_jepa, ship, probe_models):
        monkeypatch.setattr(module, "JEPA_CONFIG", SMALL)
    monkeypatch.setattr(train_jepa, "image_pool", made_up_images)

    def run(out: str, *more: str) -> dict[str, Any]:
        words = ["--out", str(tmp_path / out), "--seconds", "99", "--pool", "2", "--held-out", "1"]
        words += ["--batch", "2", "--large-batch", "1", "--steps", "3", *more]
        monkeypatch.setattr(sys, "argv", ["train_jepa", *words])
        train_jepa.main()
        card: dict[str, Any] = json.loads((tmp_path / out / "jepa.json").read_text())
        return card

    first = run("first")
    assert (first["steps"], first["distinct_clips"]) == (3, 4)
    second = run("second", "--resume", str(tmp_path / "first"))
    assert (second["steps"], second["distinct_clips"]) == (6, 4)
    assert second["validation"].keys() == {"loss", "spread"}
    folder = ship.ship_jepa(tmp_path / "second", tmp_path / "models")
    assert "| steps | 6 |" in (folder / "README.md").read_text()
    tensors, _ = load_checkpoint(tmp_path / "second", "jepa")
    shipped = load_jepa(folder, device="cpu").state_dict()
    for name, value in shipped.items():
        torch.testing.assert_close(value, tensors[f"target.{name}"], atol=1e-3, rtol=1e-3)
    for source in (folder, tmp_path / "second"):
        model = probe_models._network("jepa", source).state_dict()
        assert model.keys() == shipped.keys()


def test_slots_are_the_pairs_that_hold_their_frames_and_probes_read_the_same() -> None:
    torch.manual_seed(0)
    model = VideoViT(VideoViTConfig(**SMALL)).eval().requires_grad_(False)
    backbone = JepaBackbone(toy_jepa.CARD, model, weights_hash="w", trained=False)
    images = some_clips(1, (144, 256))
    found = backbone.extract(clip_from_frames(images[0].numpy(), name="n"), layers=[1], sigma=0.3)
    assert found[1].sigma == 0.0
    assert found[1].slot_frames.tolist() == [0, 1, 5, 9, 13]
    tokens = model(to_boxes(images)).unflatten(1, (9, 18, 32))[0]
    values = torch.from_numpy(found[1].values).float()
    torch.testing.assert_close(values, tokens[[0, 1, 3, 5, 7]], atol=5e-3, rtol=5e-3)
    first = to_boxes(images)[0]
    assert torch.equal(first[:, 0], first[:, 1]), "the first frame stands twice"
    cell = Cell("toy-jepa", 1, 0.0)
    assert Needs.of([cell]) == Needs(clips=True)
    nothing = torch.zeros(1, 16, 5, 36, 64)
    sources = Sources([cell], {"toy-jepa": model}, "cpu")
    slots = images[:, [0, 1, 5, 9, 13]]
    read = sources(nothing, slots, nothing, nothing[:0], images)[cell.name]
    torch.testing.assert_close(read[0], values, atol=5e-3, rtol=5e-3)
    with pytest.raises(ValueError, match="none given"):
        sources(nothing, slots, nothing)


def test_the_card_is_that_of_the_full_encoder() -> None:
    with torch.device("meta"):
        model = VideoViT(VideoViTConfig(**JEPA_CONFIG))
    assert sum(p.numel() for p in model.parameters()) == toy_jepa.CARD.parameters
    assert np.isfinite(toy_jepa.CARD.memory_bytes)
