"""The Wan machinery against reference outputs, diffusers' schedulers and itself."""

from __future__ import annotations

import dataclasses
import json
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from explorer.backbones import _latents, _wan
from explorer.backbones._wan import WanBackbone
from explorer.clip import Clip
from explorer.errors import BackboneError, Cancelled
from explorer.noise import FlowSchedule

MakeClip = Callable[..., Clip]

FLOW = FlowSchedule(3.0)


class OneStep:
    """The reference vectors of one step through a tiny Wan 2.1, and models with its weights."""

    def __init__(self, folder: Path) -> None:
        import diffusers

        library: Any = diffusers
        self.facts = json.loads((folder / "wan-onestep-tiny.json").read_text())
        self.tensors = load_file(folder / "wan-onestep-tiny.safetensors")
        self.vae = library.AutoencoderKLWan(**self.facts["config"]["vae"]).eval()
        missing, unexpected = self.vae.load_state_dict(self.weights("vae"), strict=False)
        assert not unexpected
        assert all(name.startswith(("decoder.", "post_quant_conv.")) for name in missing)
        self.transformer = library.WanTransformer3DModel(**self.facts["config"]["transformer"])
        self.transformer.eval().load_state_dict(self.weights("transformer"), strict=True)

    def weights(self, part: str) -> dict[str, torch.Tensor]:
        prefix = f"weight.{part}."
        return {
            name.removeprefix(prefix): value.float()
            for name, value in self.tensors.items()
            if name.startswith(prefix)
        }

    def check(self, name: str, found: torch.Tensor) -> None:
        expected = self.tensors[f"output.{name}"].float()
        assert found.shape == expected.shape
        error = (found - expected).abs().max() / expected.abs().mean()
        assert error < self.facts["tolerance"]["atol"], f"{name}: {error:.2e}"


@pytest.fixture(scope="module")
def one_step(golden: Path) -> OneStep:
    return OneStep(golden)


def test_latents_equal_the_reference_implementation(one_step: OneStep) -> None:
    video = one_step.tensors["output.preprocessed_video"].float()
    one_step.check("clean_latents", _latents.encode_video(one_step.vae, video))


def test_noisy_latents_equal_the_reference_implementation(one_step: OneStep) -> None:
    from explorer.noise import WanSchedule

    level = WanSchedule().at_index(one_step.facts["config"]["schedule_index"])
    assert level.timestep == float(one_step.tensors["output.model_timestep"])
    noisy = _latents.add_noise(
        one_step.tensors["output.clean_latents"], one_step.tensors["input.noise"], level
    )
    one_step.check("noisy_latents", noisy)


@pytest.mark.parametrize("variant", ["", "small."])
def test_block_outputs_equal_the_reference_implementation(one_step: OneStep, variant: str) -> None:
    weights = one_step.weights("transformer")
    if variant:
        change = one_step.facts["variants"]["small"]
        patterns = [re.compile(text) for text in change["weights_matching_any_regex"]]
        for name, value in weights.items():
            if any(pattern.search(f"transformer.{name}") for pattern in patterns):
                weights[name] = value * change["multiply_by"]
    one_step.transformer.load_state_dict(weights, strict=True)
    found = _wan.block_outputs(
        one_step.transformer,
        one_step.tensors["output.noisy_latents"],
        float(one_step.tensors["output.model_timestep"]),
        layers=[0, 1, 2],
        prompt=one_step.tensors["input.prompt_embeds"],
    )
    for layer, tokens in found.items():
        one_step.check(f"{variant}hidden.{layer}", tokens)


def test_frames_become_the_video_that_the_reference_encodes() -> None:
    frames = np.zeros((2, 3, 4, 3), dtype=np.uint8)
    frames[1, 2, 3] = 255, 51, 0
    video = _latents.to_video(frames)
    assert video.shape == (1, 3, 2, 3, 4)
    assert video[0, :, 1, 2, 3].tolist() == pytest.approx([1.0, -0.6, -1.0])
    assert float(video[0, :, 0].max()) == -1.0


def test_latents_are_the_normalised_posterior_mean(tiny: WanBackbone, make_clip: MakeClip) -> None:
    clip = make_clip(5)
    with torch.no_grad():
        mean = tiny.vae.encode(_latents.to_video(clip.frames)).latent_dist.mean[0].numpy()
    config = tiny.vae.config
    expected = np.stack(
        [(m - c) / s for m, c, s in zip(mean, config.latents_mean, config.latents_std, strict=True)]
    )
    np.testing.assert_allclose(tiny.encode(clip), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("index", [0, 100, 749, 998])
def test_noise_is_added_as_flow_matching_schedulers_do(index: int) -> None:
    import diffusers

    library: Any = diffusers
    latents, noise = torch.randn(2, 1, 4, 3, 5, 6, generator=torch.Generator().manual_seed(1))
    euler = library.FlowMatchEulerDiscreteScheduler(shift=3.0)
    euler.set_timesteps(1000)
    unipc = library.UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
    )
    unipc.set_timesteps(1000)
    step = euler.timesteps[index : index + 1]
    torch.testing.assert_close(
        _latents.add_noise(latents, noise, FLOW.at_sigma(float(euler.sigmas[index]))),
        euler.scale_noise(latents, step, noise),
    )
    assert float(step) == pytest.approx(1000 * float(euler.sigmas[index]), rel=1e-6)
    step = unipc.timesteps[index : index + 1]
    sigma = float(unipc.sigmas[unipc.index_for_timestep(step[0])])
    torch.testing.assert_close(
        _latents.add_noise(latents, noise, FLOW.at_sigma(sigma)),
        unipc.add_noise(latents, noise, step),
    )


def test_features_are_the_residual_stream_of_the_full_forward_pass(
    tiny: WanBackbone, make_clip: MakeClip
) -> None:
    clip, sigma, seed = make_clip(9), 0.3, 5
    latents = torch.from_numpy(tiny.encode(clip))[None]
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(seed))
    outputs: list[torch.Tensor] = []
    handles = [
        block.register_forward_hook(lambda module, inputs, output: outputs.append(output))
        for block in tiny.transformer.blocks
    ]
    with torch.inference_mode():
        tiny.transformer(
            hidden_states=(1 - sigma) * latents + sigma * noise,
            timestep=torch.tensor([1000 * sigma]),
            encoder_hidden_states=torch.zeros(1, 1, tiny.transformer.config.text_dim),
        )
    for handle in handles:
        handle.remove()
    found = tiny.extract(clip, layers=[0, 1, 2, 3], sigma=sigma, seed=seed)
    for layer, output in enumerate(outputs):
        expected = output[0].reshape(3, 4, 6, 24).half().numpy()
        np.testing.assert_array_equal(found[layer].values, expected)


def test_huge_activations_stay_finite_in_float16() -> None:
    kept = _latents.to_float16(torch.tensor([1e6, -1e6, 1.0]))
    assert kept.tolist() == [65504.0, -65504.0, 1.0]


def test_stored_latents_give_the_same_features_and_skip_the_vae(
    tiny: WanBackbone, make_clip: MakeClip
) -> None:
    clip = make_clip(5)
    latents = tiny.encode(clip)
    fresh = tiny.extract(clip, layers=[2], sigma=0.5)[2].values
    encoded, called = tiny.encoder_calls, tiny.calls
    reused = tiny.extract(clip, layers=[2], sigma=0.5, latents=latents)[2].values
    assert (tiny.encoder_calls, tiny.calls) == (encoded, called + 1)
    np.testing.assert_array_equal(reused, fresh)


def test_latents_of_another_clip_length_are_refused(tiny: WanBackbone, make_clip: MakeClip) -> None:
    latents = tiny.encode(make_clip(5))
    with pytest.raises(BackboneError, match="encode the clip again"):
        tiny.extract(make_clip(9), layers=[0], sigma=0.5, latents=latents)


@pytest.mark.parametrize("asked", range(6))
def test_a_stop_at_any_chunk_or_block_leaves_the_next_pass_right(
    tiny: WanBackbone, make_clip: MakeClip, asked: int
) -> None:
    clip, other = make_clip(5), make_clip(9, seed=1)
    expected = tiny.extract(clip, layers=[3], sigma=0.3)[3].values
    # Asked once when the lock is there, then before 3 chunks and 4 blocks.
    answers = iter([False] * asked + [True])
    with pytest.raises(Cancelled):
        tiny.extract(other, layers=[3], sigma=0.3, should_stop=lambda: next(answers))
    assert next(answers, None) is None
    np.testing.assert_array_equal(tiny.extract(clip, layers=[3], sigma=0.3)[3].values, expected)


def test_a_stopped_encoding_leaves_no_activations_on_the_vae(
    tiny: WanBackbone, make_clip: MakeClip
) -> None:
    answers = iter([False, False, True])
    with pytest.raises(Cancelled):
        tiny.encode(make_clip(9), should_stop=lambda: next(answers))
    assert all(entry is None for entry in tiny.vae._enc_feat_map)


def test_who_waits_for_the_lock_can_stop(tiny: WanBackbone, make_clip: MakeClip) -> None:
    calls = tiny.calls
    with tiny.lock, pytest.raises(Cancelled):
        tiny.extract(make_clip(1), layers=[0], sigma=0.3, should_stop=lambda: True)
    assert tiny.calls == calls
    assert not tiny.lock.locked()


def test_a_second_encoding_starts_only_after_the_first_has_ended(
    tiny: WanBackbone, make_clip: MakeClip
) -> None:
    chunks: list[int] = []
    both = threading.Barrier(2)
    handle = tiny.vae.encoder.register_forward_pre_hook(
        lambda module, inputs: chunks.append(threading.get_ident())
    )

    def work(seed: int) -> None:
        clip = make_clip(17, seed=seed)
        both.wait()
        tiny.encode(clip)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    handle.remove()
    assert len(chunks) == 10
    assert len(set(chunks[:5])) == len(set(chunks[5:])) == 1


def test_without_the_lock_two_encodings_mix_their_frames(
    tiny: WanBackbone, make_clip: MakeClip
) -> None:
    first, second = make_clip(9), make_clip(9, seed=1)
    expected = tiny.encode(first)
    videos = [_latents.to_video(clip.frames) for clip in (first, second)]
    entered: list[None] = []

    def intrude(module: Any, inputs: Any) -> None:
        if len(entered) == 1:
            entered.append(None)
            _latents.encode_video(tiny.vae, videos[1])
        else:
            entered.append(None)

    handle = tiny.vae.encoder.register_forward_pre_hook(intrude)
    mixed = _latents.encode_video(tiny.vae, videos[0])[0].numpy()
    handle.remove()
    assert not np.array_equal(mixed, expected)


def test_features_say_everything_that_determines_them(
    tiny: WanBackbone, make_clip: MakeClip
) -> None:
    features = tiny.extract(make_clip(5), layers=[1], sigma=0.3, seed=7)[1]
    assert (features.backbone, features.layer, features.sigma, features.seed) == ("tiny", 1, 0.3, 7)
    assert features.backbone_hash == tiny.weights_hash
    assert features.timestep == pytest.approx(300.0)
    assert features.official_index == 876
    assert features.provenance["device"] == "cpu"
    assert features.provenance["dtype"] == "float32"
    assert features.provenance["trained"] is False


def test_a_card_of_another_size_changes_the_grid_alone(
    tiny: WanBackbone, make_clip: MakeClip
) -> None:
    card = dataclasses.replace(tiny.card, input_size=(16, 24), token_grid=(2, 3))
    smaller = WanBackbone(
        card, tiny.vae, tiny.transformer, weights_hash="", encoder_hash="", trained=False
    )
    features = smaller.extract(make_clip(5), layers=[0], sigma=0.0)[0]
    assert features.values.shape == (2, 2, 3, 24)
