"""Probes in eight bits: what storing costs, on the shipped probes and shipped clips."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from explorer.assets import assets_root
from explorer.backbones import registry
from explorer.clip import load_clip
from explorer.errors import ProbeError
from explorer.metrics import compare
from explorer.probe.checkpoint import ProbeCard, find_probe, list_probes, load_probe, save_probe
from explorer.probe.int8 import SCALE, decode, encode
from explorer.probe.model import Probe, ProbeConfig
from explorer.probe.predict import predict
from explorer.references.exact import reconstruct

CLIPS = ("room-orbit-01", "ground-dolly-01", "room-pan-01")


def test_a_weight_is_wrong_by_at_most_half_a_step_of_its_channel() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = torch.tensor([1.0, 100.0, 0.0])[:, None, None]
    kernel = torch.randn(3, 4, 5, generator=generator) * rows
    bias = torch.randn(7, generator=generator)
    stored = encode({"kernel": kernel, "bias": bias})
    assert stored["kernel"].dtype == torch.int8
    assert stored["bias"].dtype == torch.float16
    found = decode(stored)
    step = kernel.abs().amax(dim=(1, 2), keepdim=True) / 127
    assert ((found["kernel"] - kernel).abs() <= 0.5001 * step).all()
    torch.testing.assert_close(found["bias"], bias, atol=2e-3, rtol=1e-3)


def test_weights_that_were_not_rounded_are_read_as_they_are() -> None:
    state = {"a": torch.randn(2, 3), "b": torch.randn(2, 3).half()}
    found = decode(state)
    assert torch.equal(found["a"], state["a"])
    assert torch.equal(found["b"], state["b"].float())


def test_an_eight_bit_file_is_half_as_large_and_comes_back(tmp_path: Path) -> None:
    torch.manual_seed(0)
    probe = Probe(ProbeConfig.compact(192))
    facts = {
        "backbone": "toy-wan", "backbone_hash": "b", "layer": 5, "sigma": 0.3, "data": {},
        "steps": 1, "seconds": 1.0, "metrics": {},
    }  # fmt: skip
    large = save_probe(probe, tmp_path / "half", **facts)
    small = save_probe(probe, tmp_path / "int8", **facts, storage="int8")
    assert small.weights.stat().st_size < 0.56 * large.weights.stat().st_size
    loaded = load_probe(small, backbone_hash="b")
    for name, value in loaded.state_dict().items():
        original = probe.state_dict()[name]
        assert (value - original).abs().max() <= 0.005 * original.abs().max() + 1e-6, name

    content = load_file(small.weights)
    lone = next(name for name in content if name.endswith(SCALE))
    save_file({name: value for name, value in content.items() if name != lone}, small.weights)
    with pytest.raises(ProbeError, match="not the file that its card"):
        load_probe(small, backbone_hash="b")
    import hashlib

    digest = hashlib.sha256(small.weights.read_bytes()).hexdigest()
    with pytest.raises(ProbeError, match="scales of"):
        load_probe(dataclasses.replace(small, sha256=digest), backbone_hash="b")


def test_eight_bits_move_the_errors_of_a_shipped_probe_by_at_most_one_percent() -> None:
    """Latents need no transformer, so this is a cell that a test can afford to judge on clips."""
    card = find_probe("latent", 0, 0.1)
    assert card is not None
    assert not in_eight_bits(card)
    backbone = registry.load("latent", device="cpu")
    probe = load_probe(card, backbone_hash=backbone.weights_hash)
    small = rounded(probe)
    before: dict[str, list[float]] = {"point_error": [], "depth_error": []}
    after: dict[str, list[float]] = {"point_error": [], "depth_error": []}
    for name in CLIPS:
        clip = load_clip(assets_root() / "clips" / f"{name}.mp4")
        exact = reconstruct(clip)
        assert exact is not None
        features = backbone.extract(clip, layers=[0], sigma=0.1)[0]
        for model, found in ((probe, before), (small, after)):
            report = compare(predict(model, features), exact)
            for metric, values in found.items():
                values.append(getattr(report, metric))
    for metric, values in before.items():
        assert np.mean(after[metric]) == pytest.approx(np.mean(values), rel=0.01), metric


def in_eight_bits(card: ProbeCard) -> bool:
    return any(name.endswith(SCALE) for name in load_file(card.weights))


def rounded(probe: Probe) -> Probe:
    small = Probe(probe.config)
    small.load_state_dict(decode(encode(probe.state_dict())))
    return small.eval().requires_grad_(False)


def test_eight_bits_move_the_answers_of_shipped_probes_by_little() -> None:
    """Of those that are stored in float16; the others have been rounded already."""
    generator = torch.Generator().manual_seed(0)
    cards = [card for card in list_probes() if not in_eight_bits(card)]
    assert len({card.backbone for card in cards}) > 1
    for card in cards:
        probe = load_probe(card, backbone_hash=card.backbone_hash)
        features = torch.randn(1, 2, 4, 6, card.in_channels, generator=generator)
        with torch.no_grad():
            expected, found = probe(features), rounded(probe)(features)
        for name in ("depth", "points"):
            a, b = getattr(expected, name), getattr(found, name)
            off = (a - b).abs().mean()
            assert 0 < off < 0.01 * a.abs().mean(), (card.weights.name, name)
