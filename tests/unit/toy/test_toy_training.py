"""The parts of the toy laboratory's training that need no GPU and no pool."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from torch import nn

from explorer.toy import pool, whole
from explorer.toy.cells import Cell
from explorer.toy.config import TRANSFORMER_CONFIG, VAE_CONFIG
from explorer.toy.graphs import eager
from explorer.toy.parallel import Worker
from explorer.toy.pool import for_seconds
from explorer.toy.probe_pool import Sources
from explorer.toy.schedule import Clock, Every
from explorer.toy.shards import Average, load_checkpoint, load_shards, save_shards
from explorer.toy.ship import take_place
from explorer.toy.train_transformer import flow_loss, sample_sigma
from explorer.toy.train_vae import (
    KL_WEIGHT,
    crops,
    edge_loss,
    latent_shape,
    latent_statistics,
    psnr,
    slot_weights,
    to_unit,
)
from explorer.toy.train_vae import losses_of as vae_losses

ALONE = Worker(0, 1, "cpu")


def test_shards_stay_under_the_limit_and_come_back_equal(tmp_path: Path) -> None:
    tensors = {f"t{i}": torch.randn(100, 10) for i in range(5)}
    paths = save_shards(tensors, tmp_path, "x", {"steps": 3}, limit=9000)
    assert len(paths) == 3
    assert all(path.stat().st_size < 10_000 for path in paths)
    loaded, card = load_shards(tmp_path, "x")
    assert card["steps"] == 3
    assert all(torch.equal(loaded[name], value) for name, value in tensors.items())


def test_a_save_that_is_cut_short_leaves_the_checkpoint_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = {"a": torch.zeros(1000), "b": torch.zeros(1000)}
    save_shards(old, tmp_path, "x", {"steps": 1}, limit=4100)
    written: list[Path] = []

    def broken(path: Path, content: bytes) -> None:
        if written:
            raise OSError("no space left")
        written.append(path)
        path.write_bytes(content)

    with monkeypatch.context() as patch:
        patch.setattr("explorer.toy.shards.replace_file", broken)
        with pytest.raises(OSError, match="no space"):
            save_shards({k: v + 1 for k, v in old.items()}, tmp_path, "x", {}, limit=4100)
    loaded, card = load_shards(tmp_path, "x")
    assert card["steps"] == 1
    assert all(torch.equal(loaded[name], value) for name, value in old.items())
    save_shards({k: v + 2 for k, v in old.items()}, tmp_path, "x", {"steps": 2}, limit=4100)
    assert len(list(tmp_path.glob("*.safetensors"))) == 2
    assert float(load_shards(tmp_path, "x")[0]["b"].mean()) == 2.0


def test_training_can_go_on_from_the_shipped_model() -> None:
    from explorer.assets import assets_root
    from explorer.toy.latents import load_vae

    folder = assets_root() / "models" / "toy-wan"
    tensors, card = load_checkpoint(folder, "transformer")
    WanTransformer3DModel(**TRANSFORMER_CONFIG).load_state_dict(tensors)
    assert {"steps", "clips", "train_seconds", "history"} <= card.keys()
    assert load_checkpoint(folder, "vae")[1]["slices"]
    vae: Any = load_vae(folder, "cpu")
    assert vae.config.latents_std != [1.0] * 8


def test_the_model_card_says_data_steps_seconds_and_loss() -> None:
    from explorer.assets import assets_root
    from explorer.toy.model_card import model_card

    folder = assets_root() / "models" / "toy-wan"
    facts = json.loads((folder / "card.json").read_text())
    text = model_card(facts)
    assert text == (folder / "README.md").read_text()
    for name in ("vae", "transformer"):
        run = facts["runs"][name]
        assert run["data"] in text
        assert f"{run['steps']:,}" in text
        assert f"{run['train_seconds']:,.0f}" in text
    assert f"{facts['loss']:.3f}" in text


def test_a_shipped_folder_takes_the_place_of_the_old_one_whole(tmp_path: Path) -> None:
    old, fresh = tmp_path / "model", tmp_path / ".model.new"
    for folder, text in ((old, "old"), (fresh, "new")):
        folder.mkdir()
        (folder / text).write_text(text)
    take_place(fresh, old)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert (old / "new").read_text() == "new"


def test_a_damaged_shard_is_refused(tmp_path: Path) -> None:
    (path,) = save_shards({"a": torch.zeros(3)}, tmp_path, "x", {})
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    with pytest.raises(ValueError, match="damaged"):
        load_shards(tmp_path, "x")


def test_every_latent_slot_counts_the_same_in_the_loss() -> None:
    weights = slot_weights(17).flatten()
    assert float(weights.mean()) == pytest.approx(1.0)
    sums = [float(weights[0])] + [float(weights[k : k + 4].sum()) for k in range(1, 17, 4)]
    assert sums == pytest.approx([sums[0]] * 5)


def test_the_edge_loss_ignores_a_constant_shift_and_sees_a_ramp() -> None:
    x, weights = torch.rand(1, 3, 17, 4, 6), slot_weights(17)
    assert float(edge_loss(x, x + 0.3, weights)) == pytest.approx(0.0, abs=1e-6)
    ramp = torch.arange(6.0).expand(1, 3, 17, 4, 6)
    assert float(edge_loss(x + ramp, x, weights)) == pytest.approx(0.5, abs=1e-6)


def test_an_unfinished_checkpoint_is_not_read(tmp_path: Path) -> None:
    save_shards({"a": torch.zeros(3)}, tmp_path, "x", {})
    (tmp_path / "x.json").unlink()
    with pytest.raises(FileNotFoundError):
        load_shards(tmp_path, "x")


def test_the_average_follows_a_constant_exactly_and_a_jump_slowly() -> None:
    layer = nn.Linear(2, 2, bias=False)
    average = Average(layer, 0.9)
    before = layer.weight.detach().clone()
    average.update()
    torch.testing.assert_close(average.values["weight"], before)
    with torch.no_grad():
        layer.weight += 1.0
    for _ in range(200):
        average.update()
    torch.testing.assert_close(average.values["weight"], before + 1.0, atol=1e-4, rtol=0)
    with torch.no_grad():
        layer.weight += 1.0
    average.update()
    torch.testing.assert_close(average.values["weight"], before + 1.1, atol=1e-3, rtol=0)


def test_the_clock_warms_up_decays_and_ends() -> None:
    clock = Clock(1e9, peak=1.0, floor=0.1, warmup=4, worker=ALONE)
    rates = []
    for _ in range(4):
        rates.append(clock.rate())
        assert clock.advance()
    assert rates == [0.25, 0.5, 0.75, 1.0]
    clock.progress = 1.0
    assert clock.rate() == pytest.approx(0.1)
    assert not Every(1e9).due()
    assert Every(0.0).due()
    over = Clock(1e-9, peak=1.0, floor=0.1, warmup=1, worker=ALONE)
    assert not over.advance()


def test_the_rate_stays_at_its_peak_until_the_last_share_of_a_slice() -> None:
    def rates(decay: float) -> list[float]:
        clock = Clock(1e9, peak=1.0, floor=0.0, warmup=0, worker=ALONE, decay=decay)
        found = []
        for clock.progress in (0.0, 0.5, 0.75, 0.875, 1.0):
            found.append(clock.rate())
        return found

    assert rates(0.25) == pytest.approx([1.0, 1.0, 1.0, 0.5, 0.0])
    assert rates(0.0) == [1.0] * 5
    assert rates(1.0) == pytest.approx([1.0, 0.5, 0.1464466, 0.0380602, 0.0])


def test_a_pools_seconds_begin_once_its_first_batch_was_used() -> None:
    now = 0.0

    def batches() -> Iterator[int]:
        nonlocal now
        for number in range(9):
            now += 75.0 if number == 0 else 1.0
            yield number

    assert list(for_seconds(batches(), 3.0, clock=lambda: now)) == [0, 1, 2, 3, 4]
    assert list(for_seconds(batches(), None, clock=lambda: now)) == list(range(9))
    assert list(for_seconds([], 3.0)) == []


class Sampler:
    """Stands for the processes that sample scenes; counts what was asked of them."""

    def __init__(self) -> None:
        self.asked: list[list[int]] = []

    def submit(self, _: Any, group: list[int], __: Any) -> Future[list[int]]:
        self.asked.append(group)
        future: Future[list[int]] = Future()
        future.set_result(group)
        return future


def test_scenes_are_sampled_only_a_little_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "render", lambda scenes, **_: scenes)
    renderer = pool.Renderer("cpu", workers=0)
    sampler: Any = Sampler()
    monkeypatch.setattr(renderer, "_executor", sampler)
    monkeypatch.setattr(renderer, "_ahead", 3)
    found = renderer.batches(itertools.count(), batch=2, height=1, width=1)
    assert next(found) == [0, 1]
    assert len(sampler.asked) == 4
    assert list(renderer.batches(range(5), batch=2, height=1, width=1)) == [[0, 1], [2, 3], [4]]


@pytest.mark.parametrize("frames", [1, 5, 9, 17])
def test_a_whole_clip_gives_what_the_chunks_of_diffusers_give(frames: int) -> None:
    torch.manual_seed(0)
    vae: Any = AutoencoderKLWan(**{**VAE_CONFIG, "base_dim": 4})
    vae.decoder.conv_out.weight.data *= 0.2  # diffusers clamps, which would hide differences
    clip = torch.rand(1, 3, frames, 16, 24) * 2 - 1

    def gradients(total: torch.Tensor) -> dict[str, torch.Tensor]:
        vae.zero_grad()
        total.backward()
        return {n: p.grad.clone() for n, p in vae.named_parameters() if p.grad is not None}

    posterior = vae.encode(clip).latent_dist
    decoded = vae.decode(posterior.mean).sample
    expected = gradients(decoded.square().mean())
    with whole.whole_clips(vae):
        mean, log_variance = whole.encode(vae, clip)
        ours = whole.decode(vae, mean)
        assert ours.abs().max() < 1
        found = gradients(ours.square().mean())
    torch.testing.assert_close(mean, posterior.mean, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(log_variance, posterior.logvar, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(ours, decoded, atol=1e-5, rtol=1e-4)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-6, rtol=1e-3)
    torch.testing.assert_close(vae.encode(clip).latent_dist.mean, posterior.mean)
    assert latent_shape(clip) == tuple(mean.shape)


def test_a_vae_of_another_structure_is_refused() -> None:
    vae: Any = AutoencoderKLWan(**{**VAE_CONFIG, "base_dim": 4})
    vae.register_to_config(is_residual=True)
    with pytest.raises(ValueError, match=r"Wan2\.1"), whole.whole_clips(vae):
        pass


def test_the_loss_of_the_vae_is_zero_for_a_perfect_one_but_for_the_prior() -> None:
    class Copies:
        """Latents are the clip itself, with a variance of one."""

        encoder = staticmethod(lambda clip: torch.cat([clip, torch.zeros_like(clip)], 1))
        quant_conv = post_quant_conv = decoder = staticmethod(lambda x: x)

    clip = torch.rand(1, 3, 5, 4, 4)
    losses = vae_losses(Copies(), clip, torch.zeros_like(clip), slot_weights(5), autocast=False)
    total, l1, edges, squares, kl = losses.tolist()
    assert (l1, edges, squares) == (0.0, 0.0, 0.0)
    assert kl == pytest.approx(0.5 * float(clip.square().mean()))
    assert total == pytest.approx(KL_WEIGHT * kl)
    noise = torch.full_like(clip, 0.1)
    total, l1, edges, squares, _ = vae_losses(
        Copies(), clip, noise, slot_weights(5), autocast=False
    ).tolist()
    assert (l1, squares) == (pytest.approx(0.1), pytest.approx(0.01))
    assert edges == pytest.approx(0.0, abs=1e-6)


def test_an_eager_step_starts_from_no_gradients() -> None:
    layer = nn.Linear(1, 1, bias=False)
    step = eager(lambda x: layer(x).sum().backward(), list(layer.parameters()))
    for _ in range(2):
        step(torch.ones(1, 1))
    assert layer.weight.grad is not None
    assert float(layer.weight.grad) == 1.0


def test_crops_have_one_shape_and_lie_in_the_unit_range() -> None:
    pool = torch.randint(0, 256, (3, 17, 100, 180, 3), dtype=torch.uint8)
    clip = crops([pool], 2, torch.Generator().manual_seed(0))
    assert clip.shape == (2, 3, 17, 96, 160)
    assert float(clip.min()) >= -1.0
    assert float(clip.max()) <= 1.0


def test_psnr_and_latent_statistics_agree_with_their_definitions() -> None:
    class Identity(nn.Module):
        """Encodes to itself and decodes with a constant error of one grey level."""

        def encode(self, clip: torch.Tensor) -> Any:
            mode = type("Posterior", (), {"mode": lambda _: clip})()
            return type("Encoded", (), {"latent_dist": mode})()

        def decode(self, latents: torch.Tensor) -> Any:
            return type("Decoded", (), {"sample": latents + 2 / 255})()

    images = torch.randint(0, 255, (3, 2, 4, 4, 3), dtype=torch.uint8)
    model: Any = Identity()
    of_clips, of_frames = psnr(model, images, batch=2)
    assert of_clips == pytest.approx(48.13, abs=0.01)
    assert of_frames == pytest.approx([48.13, 48.13], abs=0.01)
    mean, std = latent_statistics(model, images, batch=2)
    values = to_unit(images).transpose(0, 1).flatten(1)
    torch.testing.assert_close(torch.tensor(mean), values.mean(1))
    torch.testing.assert_close(torch.tensor(std), values.std(1))


def test_the_flow_loss_is_zero_for_the_true_velocity() -> None:
    latents, noise = torch.randn(2, 8, 1, 2, 2), torch.randn(2, 8, 1, 2, 2)

    class Knows(nn.Module):
        def forward(self, noisy: torch.Tensor, timestep: torch.Tensor, *_: Any, **__: Any) -> Any:
            sigma = (timestep / 1000.0).view(-1, 1, 1, 1, 1)
            torch.testing.assert_close(noisy, (1 - sigma) * latents + sigma * noise)
            return (noise - latents,)

    sigma = torch.tensor([0.2, 0.7])
    assert float(flow_loss(Knows(), latents, sigma, noise, autocast=False).max()) == 0.0


def test_sampled_noise_levels_stay_in_range_and_reach_both_ends() -> None:
    sigma = sample_sigma(4000, torch.Generator().manual_seed(0), "cpu")
    assert 0.0 <= float(sigma.min()) < 0.02
    assert 0.98 < float(sigma.max()) <= 1.0
    assert float(sigma.median()) == pytest.approx(0.5, abs=0.03)


def test_training_features_are_those_that_extract_gives() -> None:
    """The probes must meet in use what they were trained on."""
    from explorer.backbones import registry
    from explorer.backbones._untrained import untrained_transformer
    from explorer.clip import clip_from_frames
    from explorer.toy.config import HEIGHT, WIDTH
    from explorer.toy.latents import encode

    generator = torch.Generator().manual_seed(3)
    small = torch.rand(17, 3, 9, 16, generator=generator)
    smooth = nn.functional.interpolate(small, (HEIGHT, WIDTH), mode="bilinear")
    frames = (smooth * 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
    clip = clip_from_frames(frames, name="smooth", fps=8.0)
    cells = [Cell("random", 1, 0.3), Cell("latent", 0, 0.3), Cell("rgb", 0, 0.0)]
    plain = WanTransformer3DModel(**TRANSFORMER_CONFIG)
    models = {"random": untrained_transformer(dict(plain.config), seed=0)}
    vae: Any = registry.load("latent", device="cpu")
    latents = encode(vae.vae, torch.from_numpy(frames)[None])
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(0))
    slots = torch.from_numpy(frames[[0, 1, 5, 9, 13]])[None]
    found = Sources(cells, models, "cpu")(latents, slots, noise)
    for cell in cells:
        backbone = registry.load(cell.backbone, device="cpu")
        expected = backbone.extract(clip, layers=[cell.layer], sigma=cell.sigma, seed=0)
        values = torch.from_numpy(expected[cell.layer].values).float()
        torch.testing.assert_close(found[cell.name][0], values, atol=5e-3, rtol=5e-3)
