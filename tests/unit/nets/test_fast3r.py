from __future__ import annotations

import dataclasses
import json
import math
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from explorer.nets.fast3r import (
    Fast3R,
    Fast3RConfig,
    random_view_ids,
    view_vectors,
    without_heads,
)
from explorer.nets.rope import grid_rotation, rotate

GOLDEN = Path(__file__).parents[2] / "golden"
FACTS = json.loads((GOLDEN / "fast3r-tiny.json").read_text())
TINY = Fast3RConfig(
    encoder_dim=64,
    encoder_depth=2,
    encoder_heads=4,
    decoder_dim=48,
    decoder_depth=4,
    decoder_heads=3,
)


@pytest.fixture(scope="module")
def golden() -> dict[str, torch.Tensor]:
    return load_file(GOLDEN / "fast3r-tiny.safetensors")


def golden_model(
    golden: dict[str, torch.Tensor], *, small: bool = False, config: Fast3RConfig = TINY
) -> Fast3R:
    weights = {k.removeprefix("weight."): v.float() for k, v in golden.items() if k[:2] == "we"}
    if small:
        facts = FACTS["variants"]["small"]
        for name in weights:
            if any(re.search(one, name) for one in facts["weights_matching_any_regex"]):
                weights[name] = weights[name] * facts["multiply_by"]
    model = Fast3R(config)
    model.load_state_dict(weights)
    return model


def assert_reproduced(found: dict[str, torch.Tensor], golden: dict[str, torch.Tensor]) -> None:
    for name, value in found.items():
        expected = golden[f"output.{name}"]
        error = ((value - expected).abs().max() / expected.abs().mean()).item()
        assert error < FACTS["tolerance"]["atol"], name


def test_fast3r_is_reproduced_from_its_own_weights(golden: dict[str, torch.Tensor]) -> None:
    model, small = golden_model(golden), golden_model(golden, small=True)
    factor = math.sqrt(math.log(137) / math.log(20))
    longer = golden_model(golden, config=dataclasses.replace(TINY, length_factor=factor))
    views, ids = golden["input.views"].float(), golden["input.image_ids"]
    images, tokens = views.flatten(0, 1), golden["input.small_tokens"]
    with torch.no_grad():
        gathered = model(views, view_ids=ids)
        found = {
            "encoder_tokens": model.encoder(images).unflatten(0, (2, 3)),
            **{f"gathered.{i}": entry for i, entry in enumerate(gathered)},
            "gathered_last_ordered_ids": model(views)[-1],
            "gathered_last_with_length_bias": longer(views, view_ids=ids)[-1],
            "small.encoder_tokens": small.encoder(images).unflatten(0, (2, 3)),
            "small_tokens.dec_block_0": model.decoder.dec_blocks[0](tokens),
            "small_tokens.dec_norm": model.decoder.dec_norm(tokens),
        }
    assert {f"output.{name}" for name in found} == {k for k in golden if k.startswith("output.")}
    assert_reproduced(found, golden)


def test_names_and_shapes_of_vit_l_load_strictly_without_exactly_the_two_heads() -> None:
    published = json.loads((GOLDEN / "fast3r-vitl-512-names.json").read_text())["tensors"]
    state = {name: torch.empty(shape, device="meta") for name, shape in published.items()}
    with torch.device("meta"):
        model = Fast3R(Fast3RConfig())
    kept = without_heads(state)
    model.load_state_dict(kept, strict=True, assign=True)
    ignored = state.keys() - kept.keys()
    assert {name.split(".")[0] for name in ignored} == {
        "downstream_head",
        "downstream_head_local",
    }
    assert len(ignored) == 136
    assert {name.split(".")[0] for name in kept} == {"encoder", "decoder"}
    assert sum(value.numel() for value in kept.values()) == 606_459_904


def test_layers_are_read_where_the_published_list_is(golden: dict[str, torch.Tensor]) -> None:
    model = golden_model(golden)
    views = golden["input.views"].float()
    read: dict[int, torch.Tensor] = {}
    for layer, module in enumerate(model.readouts):
        module.register_forward_hook(
            lambda module, inputs, output, layer=layer: read.update({layer: output})
        )
    with torch.no_grad():
        gathered = model(views)
    assert list(read) == [0, 1, 2, 3, 4, 5]
    assert len(model.blocks) == len(model.readouts) == 6
    for entry, feature in enumerate(gathered):
        by_view = read[1 + entry].reshape(2, 3, 12, -1).transpose(0, 1).flatten(0, 1)
        assert torch.equal(by_view, feature)


def test_layers_23_and_47_of_the_released_sizes_are_entries_0_and_24_after_their_norms() -> None:
    with torch.device("meta"):
        model = Fast3R(Fast3RConfig())
    names = {id(module): name for name, module in model.named_modules()}
    found = [names[id(module)] for module in model.readouts]
    assert len(found) == 48
    assert found[22:26] == [
        "encoder.enc_blocks.22",
        "encoder.enc_norm",
        "decoder.dec_blocks.0",
        "decoder.dec_blocks.1",
    ]
    assert found[46:] == ["decoder.dec_blocks.22", "decoder.dec_norm"]
    assert [names[id(module)] for module in model.blocks[23::24]] == [
        "encoder.enc_blocks.23",
        "decoder.dec_blocks.23",
    ]


def test_only_asked_entries_of_the_list_are_returned(golden: dict[str, torch.Tensor]) -> None:
    model = golden_model(golden)
    views = golden["input.views"].float()
    with torch.no_grad():
        every = model(views)
        some = model(views, keep=(0, 2, 4))
        assert model(views, keep=()) == []
    assert all(torch.equal(every[2 * i], entry) for i, entry in enumerate(some))
    with pytest.raises(ValueError, match=r"entries \[5\]"):
        model(views, keep=[5])


def test_blocks_run_in_the_order_of_the_list_and_a_hook_ends_the_pass(
    golden: dict[str, torch.Tensor],
) -> None:
    model = golden_model(golden)
    run: list[int] = []
    last = 0

    def hook(layer: int) -> None:
        run.append(layer)
        if layer == last:
            raise KeyError("enough")

    for layer, block in enumerate(model.blocks):
        block.register_forward_hook(lambda module, inputs, output, layer=layer: hook(layer))
    for last in range(6):
        run.clear()
        with pytest.raises(KeyError, match="enough"):
            model(golden["input.views"].float())
        assert run == list(range(last + 1))


def test_hooks_read_rotated_queries_and_keys_in_the_encoder_and_plain_ones_in_the_decoder(
    golden: dict[str, torch.Tensor],
) -> None:
    model = golden_model(golden)
    for layer, sequences, tokens, heads in ((1, 6, 12, 4), (3, 2, 36, 3)):
        block = model.blocks[layer]
        seen: dict[str, torch.Tensor] = {}
        block.register_forward_pre_hook(lambda module, inputs, seen=seen: seen.update(x=inputs[0]))
        block.attn.product.register_forward_pre_hook(
            lambda module, inputs, seen=seen: seen.update(zip("qkv", inputs, strict=True))
        )
        with torch.no_grad():
            model(golden["input.views"].float(), keep=())
            qkv = block.attn.qkv(block.norm1(seen["x"])).view(sequences, tokens, 3, heads, 16)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        if layer < 2:
            rotation = grid_rotation((3, 4), 16, start=0)
            q, k = rotate(q, rotation), rotate(k, rotation)
        assert torch.equal(seen["q"], q)
        assert torch.equal(seen["k"], k)
        assert torch.equal(seen["v"], v)


def test_features_do_not_depend_on_the_global_random_state(
    golden: dict[str, torch.Tensor],
) -> None:
    model = golden_model(golden)
    views = golden["input.views"].float()
    ordered = torch.arange(3).expand(2, -1)
    with torch.no_grad():
        torch.manual_seed(1)
        first = model(views, keep=[4])[0]
        torch.manual_seed(2)
        assert torch.equal(model(views, keep=[4])[0], first)
        assert torch.equal(model(views, view_ids=ordered, keep=[4])[0], first)


def test_drawn_ids_are_distinct_start_with_zero_and_follow_the_generator() -> None:
    ids = random_view_ids(2, 1000, generator=torch.Generator().manual_seed(0))
    assert ids[:, 0].tolist() == [0, 0]
    assert torch.equal(ids.sort(dim=1).values, torch.arange(1000).expand(2, -1))
    assert not torch.equal(ids[0], ids[1])
    again = random_view_ids(2, 5, generator=torch.Generator().manual_seed(3))
    assert torch.equal(again, random_view_ids(2, 5, generator=torch.Generator().manual_seed(3)))
    with pytest.raises(ValueError, match="1001 views"):
        random_view_ids(1, 1001)


def test_the_vector_of_a_view_is_sines_then_cosines() -> None:
    vectors = view_vectors(torch.tensor([[0, 999]]), 8)
    assert vectors[0, 0].tolist() == [0.0] * 4 + [1.0] * 4
    expected = [f(999 * 10**-i) for f in (math.sin, math.cos) for i in range(4)]
    assert vectors[0, 1].tolist() == pytest.approx(expected, abs=1e-6)


def test_odd_grids_and_single_views_are_taken_and_unfitting_ones_refused() -> None:
    model = Fast3R(TINY)
    with torch.no_grad():
        assert model(torch.zeros(1, 1, 3, 80, 48))[-1].shape == (1, 15, 48)
    with pytest.raises(ValueError, match="patches of 16"):
        model(torch.zeros(1, 2, 3, 48, 40))
    with pytest.raises(ValueError, match=r"ids in 0\.\.999"):
        model(torch.zeros(1, 2, 3, 16, 16), view_ids=torch.tensor([[0, 1000]]))
    with pytest.raises(ValueError, match=r"2 views need ids in 0\.\.0"):
        Fast3R(dataclasses.replace(TINY, view_ids=1))(torch.zeros(1, 2, 3, 16, 16))
