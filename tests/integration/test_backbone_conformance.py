"""What every registered backbone must do; a new one is tested by being registered."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import pytest

from explorer.backbones import registry
from explorer.backbones.base import Backbone, check_clip, slot_map
from explorer.clip import Clip, clip_from_frames
from explorer.errors import BackboneError, Cancelled
from explorer.features import Features

IDS = [card.id for card in registry.cards()]
SMALL_GRID = (4, 6)


def small(backbone: Backbone) -> Backbone:
    """The same loaded model (weights and lock) for a smaller picture, to be quick."""
    card = backbone.card
    patch = [size // count for size, count in zip(card.input_size, card.token_grid, strict=True)]
    rows, columns = SMALL_GRID
    smaller = copy.copy(backbone)
    smaller.card = dataclasses.replace(
        card, input_size=(rows * patch[0], columns * patch[1]), token_grid=SMALL_GRID
    )
    return smaller


@pytest.fixture(scope="module", autouse=True)
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Published models are there as tiny random ones, found like real weights."""
    root = tmp_path_factory.mktemp("weights")
    for card in registry.cards():
        if card.source is not None:
            registry.write_tiny(card.id, root / card.id)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EMERGE3D_WEIGHTS", str(root))
        yield
    registry.unload()


@pytest.fixture(scope="module", params=IDS)
def full(request: pytest.FixtureRequest) -> Backbone:
    return registry.load(request.param, device="cpu")


@pytest.fixture(scope="module")
def backbone(full: Backbone) -> Backbone:
    return small(full)


def make_clip(backbone: Backbone, count: int, *, seed: int = 0) -> Clip:
    return sized_clip(count, backbone.card.input_size, seed=seed)


def some_clip(backbone: Backbone, *, steps: int = 1, seed: int = 0) -> Clip:
    """A short clip that the model takes."""
    return make_clip(backbone, 1 + steps * backbone.card.frame_step, seed=seed)


def sized_clip(count: int, size: tuple[int, int], *, seed: int = 0) -> Clip:
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0 : size[0], 0 : size[1]] / max(size)
    time = np.arange(count)[:, None, None]
    a, b, c = rng.uniform(2, 9, (3, 3))
    frames = np.stack([np.sin(a[i] * x + b[i] * y + c[i] / 9 * time) for i in range(3)], -1)
    return clip_from_frames((frames * 100 + 128).astype(np.uint8), name=f"waves {seed}")


def ask(backbone: Backbone, clip: Clip, **changes: Any) -> Features:
    """One cell of the last layer."""
    wanted: dict[str, Any] = {"layers": [backbone.card.layers - 1], "sigma": 0.3, **changes}
    return backbone.extract(clip, **wanted)[wanted["layers"][-1]]


def latents_of(backbone: Backbone, clip: Clip) -> dict[str, Any]:
    """The clip's latents, so that what follows runs the network for its features alone."""
    return {} if backbone.encoder_hash is None else {"latents": backbone.encode(clip)}


def test_the_card_describes_the_features(full: Backbone) -> None:
    card = full.card
    clip = make_clip(full, 1)
    layer, sigma = card.default_cell
    features = ask(full, clip, layers=[layer], sigma=sigma)
    assert features.grid == card.token_grid
    assert features.values.shape[-1] == card.width
    assert features.values.dtype == np.float16
    assert np.isfinite(features.values).all()
    assert features.values.astype(np.float64).std() > 0.01
    assert features.backbone == card.id
    assert features.backbone_hash == full.weights_hash
    assert (features.layer, features.sigma) == (layer, sigma if card.uses_sigma else 0.0)
    assert (features.timestep, features.official_index) == full.timestep(features.sigma)
    assert len(full.weights_hash) == 64
    assert card.licence
    assert card.note


def test_the_hashes_of_the_files_are_those_of_the_loaded_model(
    full: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "_loaded", {})
    found = registry.hashes(full.card.id)
    assert (found.weights, found.encoder) == (full.weights_hash, full.encoder_hash)
    assert registry._loaded == {}, "the hashes must be known without loading the model"


def test_the_card_counts_the_weights(full: Backbone) -> None:
    parts = ("vae", "transformer", "image_encoder")
    models = [getattr(full, part) for part in parts if hasattr(full, part)]
    trained = sum(values.numel() for model in models for values in model.parameters())
    stored = sum(values.numel() for model in models for values in model.state_dict().values())
    # Tables that a file stores as buffers are weights in one family (learned positions) and
    # statistics in another.
    assert full.card.parameters in (trained, stored)


@pytest.mark.parametrize("name", IDS)
def test_cuda_agrees_with_the_cpu_within_two_percent_of_the_spread(name: str) -> None:
    import torch

    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    models = [small(registry.load(name, device=device)) for device in ("cpu", "cuda")]
    cpu, cuda = (
        ask(model, some_clip(model, steps=4)).values.astype(np.float64) for model in models
    )
    assert np.abs(cpu - cuda).max() < 0.02 * cpu.std()


@pytest.mark.parametrize("steps", [0, 1, 4])
def test_every_frame_has_a_slot_and_every_slot_a_frame_of_its_own(
    backbone: Backbone, steps: int
) -> None:
    count = min(1 + steps * backbone.card.frame_step, backbone.card.max_frames)
    features = ask(backbone, make_clip(backbone, count))
    frame_to_slot, slot_frames = backbone.slots(count)
    np.testing.assert_array_equal(features.frame_to_slot, frame_to_slot)
    np.testing.assert_array_equal(features.slot_frames, slot_frames)
    assert features.values.shape == (len(slot_frames), *SMALL_GRID, backbone.card.width)
    assert len(frame_to_slot) == count
    assert frame_to_slot[0] == 0
    np.testing.assert_array_equal(frame_to_slot[slot_frames], np.arange(len(slot_frames)))
    if type(backbone).slots is Backbone.slots:
        np.testing.assert_array_equal(frame_to_slot, slot_map(count, backbone.card.frame_step)[0])


@pytest.mark.parametrize("name", IDS)
def test_the_slots_of_long_clips_are_consistent(name: str) -> None:
    model = registry.load(name, device="cpu")
    card = model.card
    for count in (1, 4, 5, 17, 49, 80, 81, 97, 129):
        if count > card.max_frames or (count - 1) % card.frame_step:
            with pytest.raises(BackboneError, match="choose"):
                check_clip(card, sized_clip(count, (2, 2)), [0], 0.0)
            continue
        frame_to_slot, slot_frames = model.slots(count)
        assert len(frame_to_slot) == count
        np.testing.assert_array_equal(frame_to_slot[slot_frames], np.arange(len(slot_frames)))


def test_pixels_and_tokens_go_there_and_back(backbone: Backbone) -> None:
    features = ask(backbone, make_clip(backbone, 1))
    rows, columns = features.grid
    for size in ((480, 832), (832, 480), (97, 131), backbone.card.input_size):
        for row in range(rows):
            for column in range(columns):
                x, y = (column + 0.5) / columns * size[1], (row + 0.5) / rows * size[0]
                assert features.token_at(x, y, size) == (row, column)


def test_other_taps_are_read_from_the_same_pass(backbone: Backbone) -> None:
    card, clip = backbone.card, make_clip(backbone, 1)
    layer = card.layers // 2
    block = ask(backbone, clip, layers=[layer])
    assert block.tap == card.taps[0] == "block"
    found = {tap: ask(backbone, clip, layers=[layer], tap=tap) for tap in card.taps}
    for tap, features in found.items():
        assert features.tap == tap
        assert np.isfinite(features.values).all()
        assert features.values.shape[:3] == block.values.shape[:3]
    if len(card.taps) > 1:
        query, key = found["query"].values, found["key"].values
        assert query.shape != block.values.shape or (query != block.values).mean() > 0.5
        assert query.shape != key.shape or (query != key).mean() > 0.5
    with pytest.raises(BackboneError, match="no tap 'value'"):
        ask(backbone, clip, tap="value")


def test_kept_outputs_are_only_the_asked_ones_and_equal_the_full_pass(backbone: Backbone) -> None:
    if not backbone.blocks:
        pytest.skip("no network")
    clip, last = make_clip(backbone, 1), backbone.card.layers - 1
    given = latents_of(backbone, clip)
    ran: list[int] = []
    handles = [
        block.register_forward_hook(lambda *_, number=number: ran.append(number))
        for number, block in enumerate(backbone.blocks)
    ]
    stopped = ask(backbone, clip, layers=[0], **given)
    assert ran in ([], [0])
    full = backbone.extract(clip, layers=[0, last], sigma=0.3, **given)
    for handle in handles:
        handle.remove()
    assert sorted(full) == sorted({0, last})
    np.testing.assert_array_equal(stopped.values, full[0].values)


def test_one_layer_alone_equals_that_layer_out_of_all(backbone: Backbone) -> None:
    clip, count = some_clip(backbone), backbone.card.layers
    every = backbone.extract(clip, layers=range(count), sigma=0.3)
    assert sorted(every) == list(range(count))
    for layer in sorted({0, count // 2, count - 1}):
        alone = backbone.extract(clip, layers=[layer], sigma=0.3)
        assert list(alone) == [layer]
        np.testing.assert_array_equal(alone[layer].values, every[layer].values)


def test_layers_differ(backbone: Backbone) -> None:
    if backbone.card.layers == 1:
        pytest.skip("one layer")
    found = backbone.extract(some_clip(backbone), layers=[0, 1], sigma=0.3)
    assert (found[0].values != found[1].values).mean() > 0.5


def test_the_pass_ends_after_the_last_wanted_block(backbone: Backbone) -> None:
    if not backbone.blocks:
        assert backbone.card.layers == 1
        return
    assert len(backbone.blocks) == backbone.card.layers
    clip = some_clip(backbone)
    given = latents_of(backbone, clip)
    run: list[int] = []
    handles = [
        block.register_forward_hook(lambda *_, number=number: run.append(number))
        for number, block in enumerate(backbone.blocks)
    ]
    backbone.extract(clip, layers=[0, 2], sigma=0.3, **given)
    for handle in handles:
        handle.remove()
    # The pass leaves from inside block 2, whose own later hooks are skipped with it.
    assert run in ([0, 1], [0, 1, 2])


def test_the_seed_decides_the_noise(backbone: Backbone) -> None:
    clip = some_clip(backbone)
    first = ask(backbone, clip, seed=1)
    assert first.seed == 1
    np.testing.assert_array_equal(ask(backbone, clip, seed=1).values, first.values)
    differs = bool((ask(backbone, clip, seed=2).values != first.values).any())
    assert differs == backbone.card.uses_sigma


def test_sigma_zero_has_no_noise(backbone: Backbone) -> None:
    clip = some_clip(backbone)
    clean = ask(backbone, clip, sigma=0.0, seed=1).values
    np.testing.assert_array_equal(ask(backbone, clip, sigma=0.0, seed=2).values, clean)
    assert bool((ask(backbone, clip, seed=1).values != clean).any()) == backbone.card.uses_sigma


def test_sigma_one_forgets_the_clip(backbone: Backbone) -> None:
    if not backbone.card.uses_sigma:
        pytest.skip("sigma has no meaning here")
    clips = [some_clip(backbone, seed=seed) for seed in (0, 1)]
    if backbone.card.first_frame:
        # What is given without noise is not forgotten.
        frames = np.concatenate([clips[0].frames[:1], clips[1].frames[1:]])
        clips[1] = clip_from_frames(frames, name="another, same first frame")
    one, other = (ask(backbone, clip, sigma=1.0).values.astype(np.float64) for clip in clips)
    # Some schedulers' last step keeps a trace of the clip.
    assert np.abs(one - other).mean() < 0.02 * one.std()


def test_features_depend_on_the_clip(backbone: Backbone) -> None:
    found = [ask(backbone, some_clip(backbone, seed=seed)).values for seed in (0, 1)]
    assert (found[0] != found[1]).mean() > 0.3


def test_the_global_random_state_is_neither_read_nor_changed(backbone: Backbone) -> None:
    import torch

    clip = make_clip(backbone, 1)
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first = ask(backbone, clip).values
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(2)
    np.testing.assert_array_equal(ask(backbone, clip).values, first)


def test_frames_of_another_size_are_stretched(backbone: Backbone) -> None:
    height, width = backbone.card.input_size
    portrait = sized_clip(1, (2 * width, height))
    features = ask(backbone, portrait)
    assert features.grid == SMALL_GRID
    doubled = some_clip(backbone)
    large = clip_from_frames(doubled.frames.repeat(2, 1).repeat(2, 2), name="large")
    np.testing.assert_array_equal(ask(backbone, large).values, ask(backbone, doubled).values)


@pytest.mark.parametrize("sigma", [-0.1, 1.1, float("nan")])
def test_sigma_outside_its_range_is_refused(backbone: Backbone, sigma: float) -> None:
    with pytest.raises(BackboneError, match=r"outside \[0, 1\]"):
        ask(backbone, make_clip(backbone, 1), sigma=sigma)


def test_layers_that_do_not_exist_are_refused(backbone: Backbone) -> None:
    clip, count = make_clip(backbone, 1), backbone.card.layers
    for layers in ([count], [-1], [0, count]):
        with pytest.raises(BackboneError, match=f"layers 0 to {count - 1}"):
            backbone.extract(clip, layers=layers, sigma=0.3)
    with pytest.raises(BackboneError, match="at least one layer"):
        backbone.extract(clip, layers=[], sigma=0.3)


def test_frame_counts_that_do_not_fit_are_answered_with_one_that_does(backbone: Backbone) -> None:
    card, calls = backbone.card, backbone.calls
    if card.frame_step > 1:
        for count in (card.frame_step, 4 * card.frame_step):
            fits = (count - 1) // card.frame_step * card.frame_step + 1
            with pytest.raises(BackboneError, match=f"choose {fits}$"):
                ask(backbone, make_clip(backbone, count))
    with pytest.raises(BackboneError, match=f"at most {card.max_frames} frames"):
        ask(backbone, make_clip(backbone, card.max_frames + card.frame_step))
    assert backbone.calls == calls


def test_latents_are_reusable_across_noise_or_refused(backbone: Backbone) -> None:
    clip = some_clip(backbone)
    if backbone.encoder_hash is None:
        with pytest.raises(BackboneError, match="has no latents"):
            backbone.encode(clip)
        return
    latents = backbone.encode(clip)
    assert latents.dtype == np.float32
    assert latents.flags["C_CONTIGUOUS"]
    assert len(backbone.encoder_hash) == 64
    encoded = backbone.encoder_calls
    for sigma, seed in [(0.1, 0), (0.5, 3)]:
        reused = ask(backbone, clip, sigma=sigma, seed=seed, latents=latents)
        assert backbone.encoder_calls == encoded
        fresh = ask(backbone, clip, sigma=sigma, seed=seed)
        encoded = backbone.encoder_calls
        np.testing.assert_array_equal(reused.values, fresh.values)


def test_two_passes_at_once_give_what_they_give_one_after_the_other(backbone: Backbone) -> None:
    jobs = [(some_clip(backbone, steps=n, seed=n), n % 3) for n in (1, 2, 1)]
    expected = [ask(backbone, clip, seed=seed).values for clip, seed in jobs]
    start = Barrier(len(jobs))

    def work(job: tuple[Clip, int]) -> np.ndarray:
        start.wait()
        return ask(backbone, job[0], seed=job[1]).values

    with ThreadPoolExecutor(len(jobs)) as pool:
        found = list(pool.map(work, jobs))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_stop_is_heard_in_the_middle_and_leaves_the_next_pass_right(backbone: Backbone) -> None:
    clip, other = some_clip(backbone), some_clip(backbone, steps=2, seed=1)
    expected = ask(backbone, clip).values
    questions = 0

    def count() -> bool:
        nonlocal questions
        questions += 1
        return False

    ask(backbone, other, should_stop=count)
    assert questions >= (len(backbone.blocks) or 1)
    for asked in sorted({0, questions // 4, questions // 2, questions - 1}):
        answers = iter([False] * asked + [True])
        with pytest.raises(Cancelled):
            ask(backbone, other, should_stop=lambda answers=answers: next(answers))
        np.testing.assert_array_equal(ask(backbone, clip).values, expected)


def digests() -> dict[str, str]:
    """Fingerprint of one cell of every backbone."""
    found = {}
    for name in IDS:
        backbone = small(registry.load(name, device="cpu"))
        features = ask(backbone, some_clip(backbone), seed=4)
        found[name] = hashlib.sha256(features.values.tobytes()).hexdigest()
    return found


def test_another_process_gives_the_same_features() -> None:
    import torch

    code = (
        f"import sys, json; sys.path.insert(0, {str(Path(__file__).parent)!r}); "
        f"import torch; torch.set_num_threads({torch.get_num_threads()}); "
        "import test_backbone_conformance as t; print(json.dumps(t.digests()))"
    )
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=200
    ).stdout
    assert json.loads(output.splitlines()[-1]) == digests()


def test_one_call_loads_and_extracts() -> None:
    clip = sized_clip(1, (144, 256))
    found = registry.extract("rgb", clip, layers=[0], sigma=0.0, device="cpu")
    assert found[0].backbone == "rgb"
