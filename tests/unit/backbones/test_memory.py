"""What does not fit is refused before it is read, with an option that would."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from explorer.backbones import _memory, registry
from explorer.backbones._cards import resized
from explorer.backbones._options import Source, Target
from explorer.errors import BackboneError

CARD = dataclasses.replace(
    registry.card("toy-wan"),
    id="big",
    parameters=11 * 10**8,
    vae_parameters=10**8,
    working_bytes=2 * 10**8,
    vae_working_bytes=10**9,
    source=Source("someone/big", ("*",), 1),
)


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        # network + VAE + the larger of their activations
        (Target(dtype="float32"), 4.0e9 + 0.4e9 + 1.0e9),
        (Target(dtype="bfloat16"), 2.0e9 + 0.4e9 + 1.0e9),
        (Target(dtype="bfloat16", vae_dtype="bfloat16"), 2.0e9 + 0.2e9 + 0.5e9),
        (Target(dtype="bfloat16", vae_tiling=True), 2.0e9 + 0.4e9 + 0.5e9),
        (Target(dtype="float32", vae_dtype="bfloat16", vae_tiling=True), 4.0e9 + 0.2e9 + 0.4e9),
        (Target(device="cuda", dtype="bfloat16", offload=True), 0.3e9 + 0.4e9 + 1.0e9),
        (Target(device="cpu", dtype="bfloat16", offload=True), 2.0e9 + 0.4e9 + 1.0e9),
    ],
)
def test_every_part_counts_in_its_own_precision(target: Target, expected: float) -> None:
    assert _memory.needed(CARD, target) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("free", "advice"),
    [
        (4.0e9, "--dtype bfloat16 needs 3.4 GB"),
        (3.0e9, "--dtype bfloat16 --vae-dtype bfloat16 needs 2.7 GB"),
        (2.6e9, "--dtype bfloat16 --vae-dtype bfloat16 --vae-tiling needs 2.5 GB"),
        (2.0e9, "--dtype bfloat16 --offload needs 1.7 GB"),
        (1.1e9, "--dtype bfloat16 --offload --vae-dtype bfloat16 needs 1.0 GB"),
        (0.8e9, "--dtype bfloat16 --offload --vae-dtype bfloat16 --vae-tiling needs 750 MB"),
        (1.0e8, "take a smaller model"),
    ],
)
def test_a_refusal_says_need_have_and_what_would_fit(
    monkeypatch: pytest.MonkeyPatch, free: float, advice: str
) -> None:
    monkeypatch.setattr(_memory, "free", lambda device: 10**12 if device == "cpu" else int(free))
    with pytest.raises(BackboneError) as caught:
        _memory.check_memory(CARD, Target(device="cuda"))
    assert "needs about 5.4 GB on cuda in float32" in str(caught.value)
    assert str(caught.value).endswith(advice)


def test_offloading_is_not_advised_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_memory, "free", lambda device: 2 * 10**9)
    with pytest.raises(BackboneError, match="no option makes it fit"):
        _memory.check_memory(CARD, Target())


def test_a_published_card_says_what_its_usual_precision_needs() -> None:
    for card in registry.cards():
        if card.source is None:
            continue
        assert card.memory_bytes == _memory.needed(card, Target(dtype="bfloat16")), card.id
        assert card.working_bytes > 0, card.id
        assert (card.vae_working_bytes > 0) == (card.vae_parameters > 0) == card.uses_sigma, card.id


def test_wan_needs_what_was_measured() -> None:
    """Bytes on an H200: the networks in bfloat16 beside the VAE's weights, the VAE in float32."""
    for name, measured in (("wan2.1-1.3b", 4_800_789_504), ("wan2.1-14b", 32_753_246_208)):
        card = registry.card(name)
        assert 2 * card.parameters + card.working_bytes == pytest.approx(measured, rel=0.01)
        encoder = 4 * card.vae_parameters + card.vae_working_bytes
        assert 6_600_312_320 <= encoder < 1.1 * 6_600_312_320
    half = Target(dtype="bfloat16", vae_dtype="bfloat16")
    least, most = (
        _memory.needed(registry.card("wan2.1-14b"), half, roomy=roomy) for roomy in (False, True)
    )
    assert least < most < 32 * 2**30


def test_several_slots_a_pass_count_in_half_precision_without_tiles() -> None:
    card = dataclasses.replace(CARD, vae_pass_bytes=7 * 10**8)
    half = Target(dtype="bfloat16", vae_dtype="bfloat16")
    assert _memory.needed(card, half, roomy=True) == _memory.needed(card, half) + 2 * 10**8
    for other in (Target(), dataclasses.replace(half, vae_tiling=True)):
        assert _memory.needed(card, other, roomy=True) == _memory.needed(card, other)


def test_activations_of_a_smaller_model_count_by_its_channels() -> None:
    width = CARD.width // 2
    vae = CARD.vae_parameters // 4
    found = resized(CARD, layers=3, width=width, parameters=2 * vae, vae_parameters=vae)
    assert found.working_bytes == CARD.working_bytes // 2
    assert found.vae_working_bytes == CARD.vae_working_bytes // 2


def test_what_fits_is_let_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_memory, "free", lambda device: 6 * 10**9)
    _memory.check_memory(CARD, Target())


def test_free_memory_of_this_machine_is_a_number() -> None:
    assert 10**8 < _memory.free("cpu") < 10**14


def test_what_torch_holds_of_a_gpu_and_does_not_use_is_free(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (10, 24))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 9)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 5)
    assert _memory.free("cuda") == 14


def test_tiles_save_nothing_where_there_is_no_video_vae() -> None:
    for name in ("dinov2-l", "vggt-1b", "vjepa1-h", "svd"):
        card = registry.card(name)
        plain, tiled = (_memory.needed(card, Target(vae_tiling=tiles)) for tiles in (False, True))
        assert plain == tiled
    card = registry.card("wan2.1-1.3b")
    assert _memory.needed(card, Target(vae_tiling=True)) < _memory.needed(card, Target())


@pytest.mark.parametrize(
    ("dtype", "host", "advice"),
    [
        ("float32", 3e9, "--dtype bfloat16 keeps 2.0 GB"),
        ("float32", 1e9, "take a smaller model"),
        ("bfloat16", 1e9, "take a smaller model"),
    ],
)
def test_offloaded_weights_must_fit_into_host_memory(
    monkeypatch: pytest.MonkeyPatch, dtype: str, host: float, advice: str
) -> None:
    have = {"cpu": int(host), "cuda": 10**11}
    monkeypatch.setattr(_memory, "free", have.__getitem__)
    target = Target(device="cuda", dtype=dtype, offload=True)
    with pytest.raises(BackboneError, match=f"in host memory with --offload .*: .*{advice}"):
        _memory.check_memory(CARD, target)
    have["cpu"] = 5 * 10**9
    _memory.check_memory(CARD, target)


def test_offloading_is_not_advised_where_host_memory_is_short(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    have = {"cpu": 10**9, "cuda": int(1.5e9)}
    monkeypatch.setattr(_memory, "free", have.__getitem__)
    with pytest.raises(BackboneError, match="take a smaller model"):
        _memory.check_memory(CARD, Target(device="cuda"))
