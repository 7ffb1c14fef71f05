"""CogVideoX's adapters against the library called by hand, and the released order of frames."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cogvideox_by_hand import ByHand, as_features, library, scheduler, seeded
from safetensors.torch import load_file, save_file
from weights_left import set_aside

from explorer.backbones import _cogvideox_published, loaded, registry
from explorer.backbones._cogvideox_frames import Recipe
from explorer.backbones._options import Target
from explorer.backbones.base import Backbone
from explorer.clip import Clip
from explorer.errors import BackboneError, Cancelled

MakeClip = Callable[..., Clip]

IDS = ("cogvideox-2b", "cogvideox-5b", "cogvideox-5b-i2v")
SHIFTS = {"cogvideox-2b": 3.0, "cogvideox-5b": 1.0, "cogvideox-5b-i2v": 1.0}
SIZE = (64, 96)
INTERLEAVED = Recipe(interleaved=True)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("cogvideox")
    for name in IDS:
        registry.write_tiny(name, root / name)
    return {name: root / name for name in IDS}


@pytest.fixture(scope="module")
def load(folders: dict[str, Path]) -> Iterator[Callable[..., Any]]:
    def make(name: str, **options: Any) -> Backbone:
        folder = folders[name.removesuffix("-official")]
        return registry.load(name, target=Target(weights=folder, **options))

    yield make
    loaded.unload()


def close(found: np.ndarray, expected: np.ndarray) -> None:
    """Equal but for the rounding to float16."""
    assert found.shape == expected.shape
    np.testing.assert_allclose(found.astype(np.float64), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", IDS)
def test_features_and_taps_are_those_of_the_library_called_by_hand(
    name: str, load: Callable[..., Any], folders: dict[str, Path], make_clip: MakeClip
) -> None:
    model, hand = load(name), ByHand(folders[name])
    clip = make_clip(9, SIZE)
    step = 250
    level = model.schedule.at_index(999 - step)
    latents = hand.latents(clip.frames)
    # The project keeps channels before time, and draws its noise so.
    noise = seeded((1, 4, 3, 8, 12), 5).permute(0, 2, 1, 3, 4)
    hidden = scheduler(SHIFTS[name]).add_noise(latents, noise, torch.tensor([step]))
    if name.endswith("i2v"):
        image = torch.zeros(1, 3, 4, 8, 12)
        image[:, :1] = hand.latents(clip.frames[:1])
        hidden = torch.cat([hidden, image], dim=2)
        hand.use_first_positions(3)
    expected = hand.outputs(hidden, step, hand.rotary(3))
    found = model.extract(clip, layers=range(4), sigma=level.sigma, seed=5)
    for layer in range(4):
        assert found[layer].timestep == step
        close(found[layer].values, as_features(expected["block"][layer])[0])
    for tap in ("query", "key"):
        features = model.extract(clip, layers=[2], sigma=level.sigma, seed=5, tap=tap)[2]
        heads = expected[tap][2][:, :, 226:]
        close(features.values, as_features(heads.transpose(1, 2).flatten(2))[0])


def test_a_clip_of_full_length_gets_the_learned_positions_as_they_are(
    load: Callable[..., Any], folders: dict[str, Path], make_clip: MakeClip
) -> None:
    model, hand = load("cogvideox-5b-i2v"), ByHand(folders["cogvideox-5b-i2v"])
    clip = make_clip(49, SIZE)
    clean = hand.latents(clip.frames)
    image = torch.zeros_like(clean)
    image[:, :1] = hand.latents(clip.frames[:1])
    level = model.level(0.0)
    expected = hand.outputs(torch.cat([clean, image], 2), level.timestep, hand.rotary(13))
    found = model.extract(clip, layers=[1], sigma=0.0)[1]
    close(found.values, as_features(expected["block"][1])[0])


@pytest.mark.parametrize("count", [1, 9, 17, 49, 81, 97])
def test_interleaved_slots_follow_the_released_formulas(count: int) -> None:
    first, second = INTERLEAVED.clips(count)
    assert first.tolist() == [0, *range(1, count, 2)]
    assert second.tolist() == list(range(0, count, 2))
    frame_to_slot, slot_frames = INTERLEAVED.slots(count)
    # Each value names its clip and latent time.
    times = (len(first) - 1) // 4 + 1
    names = np.array([[(clip, time) for time in range(times)] for clip in (0, 1)])
    merged = INTERLEAVED.merge(names)
    assert len(merged) == len(slot_frames) == 2 * times - 1
    assert (np.diff(slot_frames) > 0).all()
    assert tuple(merged[frame_to_slot[0]]) == (0, 0)
    for frame in range(1, count):
        clip, time = (frame - 1) % 2, ((frame - 1) // 2) // 4 + 1
        assert tuple(merged[frame_to_slot[frame]]) == (clip, time)
        place = (first, second)[clip].tolist().index(frame)
        assert (place + 3) // 4 == time, "the frame is in that slot of that clip's VAE"


def test_the_released_frames_never_read_the_second_clip_and_share_slots() -> None:
    frame_to_slot = INTERLEAVED.slots(97)[0]
    used = [0, *range(1, 74, 4)]
    slots = frame_to_slot[used]
    assert all(slot == 0 or slot % 2 == 1 for slot in slots)
    assert frame_to_slot[1] == frame_to_slot[5] != frame_to_slot[9]
    assert frame_to_slot[1] != frame_to_slot[2] == frame_to_slot[8]


@pytest.mark.parametrize("name", IDS)
def test_the_released_order_runs_two_clips_side_by_side(
    name: str, load: Callable[..., Any], folders: dict[str, Path], make_clip: MakeClip
) -> None:
    model, hand = load(f"{name}-official"), ByHand(folders[name])
    clip, sigma = make_clip(17, SIZE), 0.4
    level = model.schedule.at_sigma(sigma)
    noise = seeded((1, 4, 6, 8, 12), 3).permute(0, 2, 1, 3, 4)
    features = model.extract(clip, layers=[3], sigma=sigma, seed=3)[3]
    if name.endswith("i2v"):
        hand.use_first_positions(3)
    frame_to_slot = features.frame_to_slot
    for number in (0, 1):
        frames = [0, *range(1, 17, 2)] if number == 0 else list(range(0, 17, 2))
        clean = hand.latents(clip.frames[frames])
        part = noise[:, 3 * number : 3 * number + 3]
        hidden = level.signal * clean + level.noise * part
        if name.endswith("i2v"):
            image = torch.zeros_like(hidden)
            image[:, :1] = hand.latents(clip.frames[:1])
            hidden = torch.cat([hidden, image], dim=2)
        expected = as_features(hand.outputs(hidden, level.timestep, hand.rotary(3))["block"][3])[0]
        for frame in frames[1:]:
            if (frame - 1) % 2 == number:
                slot = ((frame - 1) // 2) // 4 + 1
                close(features.values[frame_to_slot[frame]], expected[slot])
        if number == 0:
            close(features.values[0], expected[0])


def test_both_orders_of_frames_have_hashes_of_their_own(load: Callable[..., Any]) -> None:
    plain, official = load("cogvideox-5b"), load("cogvideox-5b-official")
    assert plain.weights_hash != official.weights_hash
    assert plain.encoder_hash != official.encoder_hash


def test_latents_of_another_clip_are_refused(load: Callable[..., Any], make_clip: MakeClip) -> None:
    model = load("cogvideox-5b-i2v")
    latents = model.encode(make_clip(5, SIZE))
    assert latents.shape == (4, 3, 8, 12)
    with pytest.raises(BackboneError, match=r"needs \(4, 4, 8, 12\).*encode the clip again"):
        model.extract(make_clip(9, SIZE), layers=[0], sigma=0.5, latents=latents)


@pytest.mark.parametrize("count", [1, 5, 9, 13, 17, 21, 25, 33, 41, 49])
def test_a_stop_is_asked_before_every_chunk(
    load: Callable[..., Any], make_clip: MakeClip, count: int
) -> None:
    model, asked = load("cogvideox-5b"), []
    latents = model.encode(make_clip(count, SIZE), should_stop=lambda: asked.append(0) is not None)
    assert latents.shape[1] == (count - 1) // 4 + 1
    assert len(asked) == 1 + max(1, count // 8)


def test_tiles_stop_in_the_middle_and_give_latents_of_the_same_size(
    load: Callable[..., Any], make_clip: MakeClip
) -> None:
    clip = make_clip(5, SIZE)
    tiled, plain = load("cogvideox-5b", vae_tiling=True), load("cogvideox-5b")
    assert tiled.encoder_hash != plain.encoder_hash
    latents = tiled.encode(clip)
    assert latents.shape == plain.encode(clip).shape
    assert not np.array_equal(latents, plain.encode(clip))
    answers = iter([False] * 4 + [True])
    with pytest.raises(Cancelled):
        tiled.encode(clip, should_stop=lambda: next(answers))
    np.testing.assert_array_equal(tiled.encode(clip), latents)


def test_a_vae_may_want_the_first_frame_divided_and_never_the_video(
    load: Callable[..., Any], make_clip: MakeClip
) -> None:
    model, clip = load("cogvideox-5b-i2v"), make_clip(5, SIZE)
    times = model.encode(clip)
    model.vae.register_to_config(invert_scale_latents=True)
    over = model.encode(clip)
    model.vae.register_to_config(invert_scale_latents=False)
    np.testing.assert_allclose(over[:, 0] * 0.7 * 0.7, times[:, 0], rtol=1e-5)
    np.testing.assert_array_equal(over[:, 1:], times[:, 1:])


def test_an_offset_embedding_is_given_two(tmp_path: Path, make_clip: MakeClip) -> None:
    _cogvideox_published.write_tiny(
        tmp_path / "ofs", in_channels=8, ofs_embed_dim=8, use_rotary_positional_embeddings=True
    )
    model = registry.load("cogvideox-5b-i2v", target=Target(weights=tmp_path / "ofs"))
    seen: list[torch.Tensor] = []
    model.transformer.ofs_proj.register_forward_pre_hook(  # type: ignore[attr-defined]
        lambda module, inputs: seen.append(inputs[0])
    )
    model.extract(make_clip(1, SIZE), layers=[0], sigma=0.5)
    assert [value.tolist() for value in seen] == [[2.0]]


@pytest.mark.parametrize("part", ["transformer", "vae"])
@pytest.mark.parametrize("change", ["missing", "unexpected", "has shape"])
def test_weights_that_do_not_fit_are_refused_and_nothing_of_them_stays(
    part: str, change: str, tmp_path: Path
) -> None:
    registry.write_tiny("cogvideox-2b", tmp_path / "model")
    path = tmp_path / "model" / part / "diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    name = sorted(tensors)[-1]
    if change == "missing":
        del tensors[name]
    elif change == "unexpected":
        name = "one.more"
        tensors[name] = torch.zeros(1)
    else:
        tensors[name] = torch.zeros(3, 1)
    save_file(tensors, path)
    del tensors
    with set_aside() as weights_left:
        with pytest.raises(BackboneError, match=rf"do not fit config.json: .*{change}") as error:
            registry.load("cogvideox-2b", target=Target(weights=tmp_path / "model"))
        assert name in str(error.value)
        assert str(path.parent) in str(error.value)
        assert weights_left() == []


def test_models_with_other_inputs_are_refused_with_what_they_are(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(BackboneError, match="takes 4 channels; cogvideox-5b-i2v gives 8"):
        registry.card("cogvideox-5b-i2v", weights=folders["cogvideox-5b"])
    with pytest.raises(BackboneError, match="takes 8 channels; cogvideox-5b gives 4"):
        registry.card("cogvideox-5b", weights=folders["cogvideox-5b-i2v"])
    registry.write_tiny("cogvideox-5b", tmp_path / "later")
    config = tmp_path / "later" / "transformer" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "patch_size_t": 2}))
    with pytest.raises(BackboneError, match=r"CogVideoX 1\.5.*first series"):
        registry.card("cogvideox-5b", weights=tmp_path / "later")


LARGE = {"num_layers": 42, "num_attention_heads": 48, "use_rotary_positional_embeddings": True}
# transformer/config.json of the repositories, where it differs from the library's defaults.
PUBLISHED: dict[str, dict[str, Any]] = {
    "cogvideox-2b": {},
    "cogvideox-5b": LARGE,
    "cogvideox-5b-i2v": {
        **LARGE,
        "in_channels": 32,
        "use_learned_positional_embeddings": True,
    },
    "aether": {
        **LARGE,
        "in_channels": 96,
        "out_channels": 56,
        "use_learned_positional_embeddings": True,
    },
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_cards_describe_the_published_configurations(name: str) -> None:
    card = registry.card(name)
    with torch.device("meta"):
        transformer = library.CogVideoXTransformer3DModel(**PUBLISHED[name])
        vae = library.AutoencoderKLCogVideoX()
    models = (transformer, vae)
    counted = sum(value.numel() for model in models for value in model.state_dict().values())
    assert card.parameters == counted
    config = transformer.config
    assert card.layers == config.num_layers
    assert card.width == config.num_attention_heads * config.attention_head_dim
    assert card.input_size == (config.sample_height * 8, config.sample_width * 8)
    assert card.token_grid == (config.sample_height // 2, config.sample_width // 2)
    level = registry.noise_level(name, card.default_cell[1])
    assert level is not None
    assert level.official_index == 749
    assert card.source is not None
    assert card.source.download_bytes > 2 * card.parameters


def test_a_prompt_is_embedded_once_as_the_pipeline_does_it(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    import tokenizers
    import transformers

    monkeypatch.setenv("EMERGE3D_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "model"
    shutil.copytree(folders["cogvideox-5b"], folder)
    with pytest.raises(BackboneError, match="no text_encoder"):
        _cogvideox_published.prompt(folder, "a cat")
    words = {"<pad>": 0, "</s>": 1, "a": 2, "cat": 3}
    plain = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<pad>"))
    plain.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(tokenizer_object=plain, pad_token="<pad>").save_pretrained(
        folder / "tokenizer"
    )
    config = transformers.T5Config(
        vocab_size=4, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2
    )
    torch.manual_seed(0)
    encoder = transformers.T5EncoderModel(config).eval()
    encoder.save_pretrained(folder / "text_encoder")
    found = _cogvideox_published.prompt(folder, "a cat")
    tokens = torch.tensor([[2, 3] + [0] * 224])
    with torch.no_grad():
        expected = encoder(tokens)[0]
    assert found.shape == (1, 226, 16)
    torch.testing.assert_close(found, expected, rtol=0.03, atol=0.03)
    monkeypatch.setattr(transformers.T5EncoderModel, "from_pretrained", None)
    assert torch.equal(_cogvideox_published.prompt(folder, "a cat"), found)
