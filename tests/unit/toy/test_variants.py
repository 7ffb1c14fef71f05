"""Variants of toy-wan: trained by one script, shipped beside it, read by probes as in use."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from torch import Tensor

from explorer.assets import assets_root
from explorer.backbones import controls, loaded, registry, toy_wan
from explorer.backbones._wan_frames import FrameWiseWan
from explorer.clip import Clip, clip_from_frames
from explorer.data.world.spec import WORLD_VERSION
from explorer.errors import BackboneError
from explorer.toy import config, latent_pools, probe_pool, ship, train_transformer
from explorer.toy.cells import Cell
from explorer.toy.config import TRANSFORMER_CONFIG, VARIANTS
from explorer.toy.latents import encode, encode_alone, fingerprint, load_vae, one_frame
from explorer.toy.parallel import Worker
from explorer.toy.probe_models import load_models
from explorer.toy.probe_pool import Needs, Sources
from explorer.toy.schedule import Clock
from explorer.toy.shards import load_shards, save_shards
from explorer.toy.train_slice import distinct_clips, distinct_of_sizes, spans_of

SMALL = {"num_attention_heads": 1, "attention_head_dim": 12, "ffn_dim": 24, "num_layers": 2}


def test_the_variants_are_the_promised_shapes() -> None:
    for variant in VARIANTS.values():
        with torch.device("meta"):
            model = WanTransformer3DModel(**variant.config)
        assert sum(p.numel() for p in model.parameters()) == variant.parameters
    assert VARIANTS["toy-wan-large"].width == 320
    assert 2.5 < VARIANTS["toy-wan-large"].parameters / VARIANTS["toy-wan"].parameters < 3.5


@pytest.mark.parametrize("clips", [4, 7, 293])
def test_exactly_the_asked_clips_are_rendered(clips: int) -> None:
    parts = [latent_pools.split_clips(clips, Worker(rank, 2, "cpu")) for rank in range(2)]
    assert sum(map(sum, parts)) == clips
    assert all(min(part) >= 1 for part in parts)
    with pytest.raises(ValueError, match="too few"):
        latent_pools.split_clips(3, Worker(0, 2, "cpu"))


def test_clips_seen_twice_count_once_unless_the_world_has_changed() -> None:
    first = {"world": 2, "spans": spans_of([100, 200, 300], [10, 0, 20])}
    assert first["spans"] == [[100, 10], [300, 20]]
    again = {"world": 2, "spans": [[105, 10], [300, 5]]}
    assert distinct_clips([first]) == 30
    assert distinct_clips([first, again]) == 35
    assert distinct_clips([first, {**again, "world": 3}]) == 45
    assert distinct_clips([first, {"world": 1, "steps": 3}]) is None


def test_a_card_says_how_many_different_clips_of_each_size_were_used() -> None:
    first = {"world": 2, "sizes": {"96x160": [[100, 10]], "144x256": [[200, 4]]}}
    again = {"world": 2, "sizes": {"96x160": [[105, 10], [300, 1]]}}
    assert distinct_of_sizes([first, again]) == {"144x256": 4, "96x160": 16}
    assert distinct_of_sizes([first, {"world": 2}]) is None


def test_a_run_of_fixed_length_ends_after_its_steps() -> None:
    clock = Clock(1e9, peak=1.0, floor=0.1, warmup=1, worker=Worker(0, 1, "cpu"), steps=3)
    assert [clock.advance() for _ in range(3)] == [True, True, False]
    assert clock.rate() == pytest.approx(0.1)


def test_single_frames_are_drawn_from_whole_clips() -> None:
    frames = {one_frame([seed])[0] for seed in range(200)}
    assert frames == set(range(17))
    assert one_frame([5, 6]) == one_frame([5])


CHANNELS = TRANSFORMER_CONFIG["in_channels"]


def made_up_latents(renderer: Any, vae: Any, seeds: list[int], **options: Any) -> Tensor:
    slots = 1 if options.get("frames") else 2
    return torch.randn(
        len(seeds), CHANNELS, slots, 4, 6, generator=torch.Generator().manual_seed(0)
    )


def made_up_batches(
    renderer: Any, vae: Any, seeds: list[int], *, batch: int, **_: Any
) -> Iterator[Tensor]:
    for start in range(0, len(seeds), batch):
        yield torch.full((batch, CHANNELS, 2, 4, 6), float(start + 1))


def run(out: Path, monkeypatch: pytest.MonkeyPatch, *more: str) -> dict[str, Any]:
    for module in (latent_pools, train_transformer):
        monkeypatch.setattr(module, "latent_pool", made_up_latents)
    monkeypatch.setattr(latent_pools, "latent_batches", made_up_batches)
    vae = str(assets_root() / "models" / "toy-wan")
    words = ["--vae", vae, "--out", str(out), "--seconds", "99", "--steps", "3", "--pool", "16"]
    words += ["--held-out", "2", "--batch", "2", "--large-batch", "2", *more]
    monkeypatch.setattr(sys, "argv", ["train_transformer", *words])
    train_transformer.main()
    card: dict[str, Any] = json.loads((out / "transformer.json").read_text())
    return card


@pytest.mark.usefixtures("small_variants")
def test_a_run_starts_from_one_on_the_latents_of_another_vae(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(tmp_path / "first", monkeypatch)
    path = tmp_path / "first" / "transformer.json"
    path.write_text(json.dumps({**first, "vae": "another"}))
    with pytest.raises(ValueError, match="latents of another VAE"):
        run(tmp_path / "second", monkeypatch, "--resume", str(tmp_path / "first"))
    start = ("--start-from", str(tmp_path / "first"), "--rate", "1e-12")
    second = run(tmp_path / "second", monkeypatch, *start)
    assert (second["steps"], len(second["slices"])) == (3, 1)
    assert second["started_from"]["steps"] == 3
    before, after = (load_shards(tmp_path / name, "transformer")[0] for name in ("first", "second"))
    assert all(torch.allclose(before[name], value, atol=1e-6) for name, value in after.items())
    other = ("--start-from", str(tmp_path / "first"), "--model", "toy-image")
    with pytest.raises(ValueError, match="trained toy-wan, not toy-image"):
        run(tmp_path / "third", monkeypatch, *other)


@pytest.fixture
def small_variants(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, variant in VARIANTS.items():
        small = replace(variant, config={**variant.config, **SMALL})
        monkeypatch.setitem(config.VARIANTS, name, small)
        monkeypatch.setitem(probe_pool.TRANSFORMERS, name, small)
    monkeypatch.setitem(probe_pool.TRANSFORMERS, "random-large", VARIANTS["toy-wan-large"])


@pytest.mark.usefixtures("small_variants")
def test_a_variant_is_trained_resumed_and_shipped_without_a_second_vae(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("--model", "toy-wan-1pct", "--clips", "8")
    first = run(tmp_path / "first", monkeypatch, *options)
    assert (first["model"], first["world"], first["steps"]) == ("toy-wan-1pct", WORLD_VERSION, 3)
    assert (first["distinct_clips"], first["clips"]) == (8, 6)
    resumed = (*options, "--resume", str(tmp_path / "first"))
    second = run(tmp_path / "second", monkeypatch, *resumed)
    assert (second["distinct_clips"], second["steps"], len(second["slices"])) == (8, 6, 2)
    assert second["history"][0] == first["history"][0]
    with pytest.raises(ValueError, match="give --model toy-wan-1pct"):
        run(tmp_path / "third", monkeypatch, "--resume", str(tmp_path / "first"))
    with pytest.raises(SystemExit):
        run(tmp_path / "third", monkeypatch, "--model", "toy-wan-10pct")

    models = tmp_path / "models"
    shutil.copytree(assets_root() / "models" / "toy-wan", models / "toy-wan")
    folder = ship.ship_variant(tmp_path / "second", models)
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md",
        "card.json",
        "transformer",
    ]
    facts = json.loads((folder / "card.json").read_text())
    assert (facts["distinct_clips"], facts["world"]) == (8, {"transformer": WORLD_VERSION})
    assert "| distinct clips | 8 |" in (folder / "README.md").read_text()

    tensors, card = load_shards(tmp_path / "second", "transformer")
    save_shards(tensors, tmp_path / "second", "transformer", {**card, "vae": "another"})
    with pytest.raises(ValueError, match="another"):
        ship.ship_variant(tmp_path / "second", models)


@pytest.mark.usefixtures("small_variants")
def test_fresh_clips_take_the_place_of_the_oldest_and_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = run(tmp_path, monkeypatch, "--fresh", "0.5", "--render-batch", "2")
    # Three steps owe three clips: 2 at 96x160 come at the first, 2 at 144x256 at the last.
    assert sum(card["distinct_clips_of_sizes"].values()) == card["distinct_clips"] == 2 * 16 + 4
    assert card["fresh_seconds"] >= 0
    again = run(tmp_path / "again", monkeypatch, "--fresh", "0.5", "--render-batch", "2")
    assert load_shards(tmp_path, "transformer")[1]["shards"] == again["shards"]
    with pytest.raises(SystemExit):
        run(tmp_path, monkeypatch, "--fresh", "0.5", "--clips", "8")


def test_a_pool_renews_as_many_clips_as_are_owed_oldest_first() -> None:
    fresh = iter([torch.full((2, 1), float(k)) for k in (1, 2, 3)])
    pool = latent_pools.LatentPool(torch.zeros(3, 1), 0, 100, fresh)
    assert not pool.owes(0.75)
    assert pool.owes(0.5)
    pool.renew()
    assert pool.latents.flatten().tolist() == [1, 1, 0]
    assert not pool.owes(0.5)
    assert pool.owes(1.5)
    pool.renew()
    assert pool.latents.flatten().tolist() == [2, 1, 2]
    assert pool.renewed == 4


@pytest.mark.usefixtures("small_variants")
@pytest.mark.parametrize(("share", "sizes"), [("1", ["144x256"]), ("0", ["96x160"])])
def test_a_slice_at_one_size_renders_no_clip_of_the_other(
    share: str, sizes: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = run(tmp_path, monkeypatch, "--large-share", share)
    assert list(card["distinct_clips_of_sizes"]) == sizes
    assert f"17 frames: 16 clips at {sizes[0]}" in card["data"]


@pytest.mark.usefixtures("small_variants")
def test_the_image_model_is_trained_on_as_many_tokens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = run(tmp_path, monkeypatch, "--model", "toy-image", "--clips", "8")
    assert card["clips"] == 3 * 2 * 5
    assert "single frames" in card["data"]


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_variants: None) -> Path:
    """Assets with a small toy-image and a small toy-wan-large beside toy-wan."""
    models = tmp_path / "models"
    shutil.copytree(assets_root() / "models" / "toy-wan", models / "toy-wan")
    of_vae = fingerprint(load_vae(models / "toy-wan", "cpu").state_dict())
    for name in ("toy-image", "toy-wan-large"):
        torch.manual_seed(1)
        transformer: Any = WanTransformer3DModel(**VARIANTS[name].config)
        card = {
            "model": name, "vae": of_vae, "world": 2, "data": "made up", "distinct_clips": 1,
            "steps": 1, "train_seconds": 1.0, "history": [{"loss": 1.0}],
        }  # fmt: skip
        save_shards(transformer.state_dict(), tmp_path / "runs" / name, "transformer", card)
        ship.ship_variant(tmp_path / "runs" / name, models)
    monkeypatch.setenv("EMERGE3D_ASSETS", str(tmp_path))
    monkeypatch.setattr(registry, "_entries", dict(registry._entries))
    monkeypatch.setattr(loaded, "models", {})
    for name in ("toy-image", "toy-wan-large"):
        registry._entries.pop(name, None)
        toy_wan.add(VARIANTS[name])
    registry._entries.pop("random-large", None)
    controls.add_random("random-large", "toy-wan-large", title="Random large")
    return tmp_path


def smooth_clip() -> Clip:
    small = torch.rand(9, 3, 9, 16, generator=torch.Generator().manual_seed(3))
    smooth = torch.nn.functional.interpolate(small, (144, 256), mode="bilinear")
    frames = (smooth * 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
    return clip_from_frames(frames, name="smooth", fps=8.0)


def test_the_image_model_sees_each_slots_frame_alone(shipped: Path) -> None:
    model: Any = registry.load("toy-image", device="cpu")
    assert isinstance(model, FrameWiseWan)
    clip = smooth_clip()
    latents = model.encode(clip)
    assert latents.shape == (CHANNELS, 3, 36, 64)
    video = registry.load("latent", device="cpu").encode(clip)
    np.testing.assert_allclose(latents[:, 0], video[:, 0], atol=1e-4)
    assert np.abs(latents[:, 1] - video[:, 1]).max() > 0.1
    features = model.extract(clip, layers=[1], sigma=0.0)[1]
    assert features.values.shape == (3, 18, 32, 12)
    assert features.slot_frames.tolist() == [0, 1, 5]
    alone = clip_from_frames(clip.frames[5:6], name="one", fps=8.0)
    single = model.extract(alone, layers=[1], sigma=0.0)[1]
    np.testing.assert_allclose(
        features.values[2].astype(np.float32), single.values[0].astype(np.float32), atol=5e-3
    )
    hashes = registry.hashes("toy-image")
    assert (hashes.weights, hashes.encoder) == (model.weights_hash, model.encoder_hash)
    assert hashes.encoder != registry.hashes("latent").encoder, "stored latents must not be mixed"


def test_probes_are_trained_on_what_the_variants_extract(shipped: Path) -> None:
    clip = smooth_clip()
    cells = [Cell("toy-image", 1, 0.3), Cell("toy-wan-large", 0, 0.3), Cell("random-large", 0, 0.3)]
    assert Needs.of(cells) == Needs(alone=True)
    assert Needs.of(cells[1:]) == Needs()
    vae: Any = registry.load("latent", device="cpu")
    runs = [shipped / "runs" / name for name in ("toy-image", "toy-wan-large")]
    models = load_models(runs, cells, vae.vae)
    sources = Sources(cells, models, "cpu")
    frames = torch.from_numpy(clip.frames)[None]
    slots = frames[:, [0, 1, 5]]
    latents = encode(vae.vae, frames)
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(0))
    found = sources(latents, slots, noise, encode_alone(vae.vae, slots))
    for cell in cells:
        backbone = registry.load(cell.backbone, device="cpu")
        expected = backbone.extract(clip, layers=[cell.layer], sigma=cell.sigma)[cell.layer]
        assert sources.wide(cell.backbone) == expected.values.shape[-1]
        values = torch.from_numpy(expected.values).float()
        torch.testing.assert_close(found[cell.name][0], values, atol=1e-2, rtol=1e-2)
    with pytest.raises(ValueError, match="none given"):
        sources(latents, slots, noise)
    with pytest.raises(ValueError, match="no run of toy-image"):
        load_models(runs[1:], cells, vae.vae)


def test_a_variant_is_refused_on_another_vae(shipped: Path) -> None:
    with (shipped / "models/toy-wan/vae/config.json").open("a") as file:
        file.write("\n")
    with pytest.raises(BackboneError, match="was trained on the VAE"):
        registry.hashes("toy-wan-large")


def test_the_fingerprint_of_a_vae_is_that_of_its_shipped_half_precision() -> None:
    vae: Any = AutoencoderKLWan(**{**config.VAE_CONFIG, "base_dim": 4})
    before = fingerprint(vae.state_dict())
    assert fingerprint(vae.half().state_dict()) == before
    with torch.no_grad():
        next(vae.parameters()).add_(1.0)
    assert fingerprint(vae.state_dict()) != before
