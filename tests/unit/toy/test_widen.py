"""Weights of few latent channels begin with what they know when there are more."""

from __future__ import annotations

import pytest
import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel

from explorer.toy.config import TRANSFORMER_CONFIG, VAE_CONFIG
from explorer.toy.latents import fingerprint
from explorer.toy.widen import latent_channels, widen_transformer, widen_vae


def vae(channels: int) -> AutoencoderKLWan:
    torch.manual_seed(0)
    statistics = {"latents_mean": [0.0] * channels, "latents_std": [1.0] * channels}
    return AutoencoderKLWan(**{**VAE_CONFIG, "base_dim": 4, "z_dim": channels, **statistics})


def transformer(channels: int) -> WanTransformer3DModel:
    torch.manual_seed(0)
    sizes = {"num_attention_heads": 1, "attention_head_dim": 12, "ffn_dim": 24, "num_layers": 2}
    both = {"in_channels": channels, "out_channels": channels}
    return WanTransformer3DModel(**{**TRANSFORMER_CONFIG, **sizes, **both})


@torch.no_grad()
def test_a_widened_vae_says_the_same_and_more() -> None:
    narrow, wide = vae(3), vae(5)
    wide.load_state_dict(widen_vae(narrow.state_dict(), 5))
    assert latent_channels(wide.state_dict()) == 5
    clip = torch.rand(1, 3, 5, 16, 16) * 2 - 1
    few, many = narrow.encode(clip).latent_dist, wide.encode(clip).latent_dist
    torch.testing.assert_close(many.mean[:, :3], few.mean)
    torch.testing.assert_close(many.logvar[:, :3], few.logvar)
    assert float(many.mean[:, 3:].std()) > 1e-3, "the new channels see something"
    decoded = wide.decode(many.mean).sample
    torch.testing.assert_close(decoded, narrow.decode(few.mean).sample, atol=1e-5, rtol=1e-5)


def test_the_new_channels_of_a_vae_are_learned() -> None:
    wide = vae(5)
    wide.load_state_dict(widen_vae(vae(3).state_dict(), 5))
    wide.decode(torch.randn(1, 5, 2, 4, 4)).sample.square().mean().backward()
    gradient = wide.decoder.conv_in.weight.grad
    assert gradient is not None
    assert bool((gradient[:, 3:] != 0).any())


@torch.no_grad()
def test_a_widened_transformer_keeps_what_it_knew_of_the_old_channels() -> None:
    narrow, wide = transformer(3), transformer(5)
    wide.load_state_dict(widen_transformer(narrow.state_dict(), 5))
    latents, prompt, time = torch.randn(1, 3, 2, 4, 4), torch.zeros(1, 1, 32), torch.tensor([300.0])
    more = torch.cat([latents, torch.zeros(1, 2, 2, 4, 4)], dim=1)
    expected = narrow(latents, time, prompt, return_dict=False)[0]
    found = wide(more, time, prompt, return_dict=False)[0]
    torch.testing.assert_close(found[:, :3], expected, atol=1e-5, rtol=1e-5)
    assert float(found[:, 3:].abs().max()) > 0


def test_as_many_channels_change_nothing_and_fewer_are_refused() -> None:
    weights, blocks = vae(3).state_dict(), transformer(3).state_dict()
    assert all(torch.equal(widen_vae(weights, 3)[name], value) for name, value in weights.items())
    assert widen_transformer(blocks, 3) == blocks
    for widen, given in ((widen_vae, weights), (widen_transformer, blocks)):
        with pytest.raises(ValueError, match="cannot be cut to 2"):
            widen(given, 2)


def test_a_decoder_may_be_trained_further_under_the_same_latents() -> None:
    weights = {name: value.clone() for name, value in vae(3).state_dict().items()}
    before = fingerprint(weights)
    weights["decoder.conv_in.weight"] += 1
    assert fingerprint(weights) == before
    weights["quant_conv.bias"] += 1
    assert fingerprint(weights) != before
