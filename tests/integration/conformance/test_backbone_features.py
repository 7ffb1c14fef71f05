"""What the features of every registered backbone are; a new one is tested by being registered."""

from __future__ import annotations

import numpy as np
import pytest
from asking import (
    IDS,
    any_latents,
    ask,
    blocks_of,
    latents_of,
    make_clip,
    sized_clip,
    small,
    some_clip,
)

from explorer import plugins
from explorer.backbones import loaded, registry
from explorer.backbones._memory import needed
from explorer.backbones._options import Target
from explorer.backbones.base import Backbone, BackboneCard, check_clip, slot_map
from explorer.clip import clip_from_frames
from explorer.errors import BackboneError
from explorer.features import Features

HALF = Target(device="cpu", dtype="bfloat16", vae_dtype="bfloat16")
BLOCK_ALONE = {"latent", "rgb", "toy-jepa"}
"""Without attention whose query and key could be read, or with attention of another kind."""
COUNTS = (1, 4, 5, 17, 49, 80, 81, 97, 129)


def taken(card: BackboneCard) -> list[int]:
    """Those of COUNTS that a model takes."""
    fits = [count for count in COUNTS if (count - 1) % card.frame_step == 0]
    return [count for count in fits if count <= card.max_frames]


def test_the_card_describes_the_features(full: Backbone) -> None:
    card = full.card
    clip = make_clip(full, 1)
    layer, sigma = card.default_cell
    features = ask(full, clip, layers=[layer], sigma=sigma, **any_latents(full, 1))
    assert features.grid == card.token_grid
    for size, count in zip(card.input_size, card.token_grid, strict=True):
        assert size % count == 0
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
    monkeypatch.setattr(loaded, "models", {})
    found = registry.hashes(full.card.id)
    assert (found.weights, found.encoder) == (full.weights_hash, full.encoder_hash)
    assert loaded.models == {}, "the hashes must be known without loading the model"


def test_the_card_counts_the_weights(full: Backbone) -> None:
    import torch

    blocks_of(full)
    parts = ("vae", "transformer", "image_encoder")
    models = [getattr(full, part) for part in parts if hasattr(full, part)]
    models = models or [each for each in vars(full).values() if isinstance(each, torch.nn.Module)]
    trained = sum(values.numel() for model in models for values in model.parameters())
    stored = sum(values.numel() for model in models for values in model.state_dict().values())
    # Tables that a file stores as buffers are weights in one family (learned positions) and
    # statistics in another.
    assert full.card.parameters in (trained, stored), "networks are attributes, counted by the card"


def test_a_small_copy_needs_little_memory(full: Backbone) -> None:
    assert needed(full.card, Target()) < 2 * 2**30


def test_half_precision_stays_near_full(full: Backbone) -> None:
    name = full.card.id
    if full.card.source is None:
        pytest.skip("its VAE has one precision")
    # On fewer tokens some norms see two values, and either of them may be the larger one.
    whole, half = (small(each, (4, 6)) for each in (full, registry.load(name, target=HALF)))
    clip = some_clip(whole)
    inner = {"layers": [0], "tap": whole.card.taps[-1], **latents_of(whole, clip)}
    for given in ({}, inner):
        found, expected = (
            ask(model, clip, **given).values.astype(np.float64) for model in (half, whole)
        )
        # Random weights enlarge rounding; what is rounded where it must not be gives 0.4.
        assert 0 < np.abs(found - expected).mean() < 0.15 * expected.std()
    loaded.unload(name)


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


@pytest.mark.parametrize("name", [card.id for card in registry.cards() if card.source])
def test_weights_that_visit_the_device_block_by_block_give_the_same_features(name: str) -> None:
    import torch

    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    found = []
    for offload in (False, True):
        model = small(registry.load(name, target=Target(device="cuda", offload=offload)))
        clip = some_clip(model)
        found.append([ask(model, clip, layers=[model.card.layers - 1 - n]).values for n in (1, 0)])
    np.testing.assert_array_equal(found[0], found[1])


@pytest.mark.parametrize("length", ["one frame", "one step", "long"])
def test_every_frame_has_a_slot_and_every_slot_a_frame_of_its_own(
    backbone: Backbone, length: str
) -> None:
    step, most = backbone.card.frame_step, backbone.card.max_frames
    long = max(*taken(backbone.card), 1 + step)
    count = min({"one frame": 1, "one step": 1 + step, "long": long}[length], most)
    features = ask(backbone, make_clip(backbone, count))
    frame_to_slot, slot_frames = backbone.slots(count)
    np.testing.assert_array_equal(features.frame_to_slot, frame_to_slot)
    np.testing.assert_array_equal(features.slot_frames, slot_frames)
    assert features.values.shape == (
        len(slot_frames),
        *backbone.card.token_grid,
        backbone.card.width,
    )
    assert len(frame_to_slot) == count
    assert frame_to_slot[0] == 0
    np.testing.assert_array_equal(frame_to_slot[slot_frames], np.arange(len(slot_frames)))
    if type(backbone).slots is Backbone.slots:
        np.testing.assert_array_equal(frame_to_slot, slot_map(count, backbone.card.frame_step)[0])


@pytest.mark.parametrize("name", IDS)
def test_the_slots_of_long_clips_are_consistent(name: str) -> None:
    model = registry.load(name, device="cpu")
    card = model.card
    for count in COUNTS:
        if count not in taken(card):
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
    if not plugins.key("backbone", card.id):  # what is somebody else's may have what it likes
        assert set(card.taps) == (
            {"block"} if card.id in BLOCK_ALONE else {"block", "query", "key"}
        )
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


def test_layers_differ(backbone: Backbone) -> None:
    if backbone.card.layers == 1:
        pytest.skip("one layer")
    found = backbone.extract(some_clip(backbone), layers=[0, 1], sigma=0.3)
    assert (found[0].values != found[1].values).mean() > 0.5


def test_features_depend_on_the_clip(backbone: Backbone, usual: Features) -> None:
    other = ask(backbone, some_clip(backbone, seed=1), seed=1)
    assert (other.values != usual.values).mean() > 0.3


def test_frames_of_another_size_are_stretched(backbone: Backbone, usual: Features) -> None:
    height, width = backbone.card.input_size
    for size in ((2 * width, height), (height + 17, width - 5)):  # portrait, then odd
        features = ask(backbone, sized_clip(1, size))
        assert features.grid == backbone.card.token_grid
        assert np.isfinite(features.values).all()
    doubled = some_clip(backbone)
    large = clip_from_frames(doubled.frames.repeat(2, 1).repeat(2, 2), name="large")
    np.testing.assert_array_equal(ask(backbone, large, seed=1).values, usual.values)


def test_one_call_loads_and_extracts() -> None:
    clip = sized_clip(1, (144, 256))
    found = registry.extract("rgb", clip, layers=[0], sigma=0.0, device="cpu")
    assert found[0].backbone == "rgb"
