"""The tiny network of the reference vectors, and how far another one is from it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

from explorer.nets.mmdit import MMDiT, MMDiTConfig, pack

GOLDEN = Path(__file__).parents[2] / "golden"
FACTS = json.loads((GOLDEN / "opensora-mmdit-tiny.json").read_text())
TENSORS = load_file(GOLDEN / "opensora-mmdit-tiny.safetensors")
TINY = MMDiTConfig.from_dict(FACTS["config"])
TEXT = FACTS["input_shapes"]["txt"][1]
GRID = (3, 2, 3)
WIDTH = TINY.hidden_size

State = dict[str, torch.Tensor]


def weights(variant: str = "") -> State:
    """The weights of the vectors, those of one variant multiplied."""
    state = {k.removeprefix("weight."): v.float() for k, v in TENSORS.items() if k[:2] == "we"}
    if variant:
        small = FACTS["variants"]["small"]
        for name in state:
            if any(re.search(one, name) for one in small["weights_matching_any_regex"]):
                state[name] = state[name] * small["multiply_by"]
    return state


def tiny(variant: str = "") -> MMDiT:
    """The network of the vectors."""
    model = MMDiT(TINY)
    model.load_state_dict(weights(variant), strict=True)
    return model.eval().requires_grad_(False)


def run(model: MMDiT, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Its prediction on the inputs of the vectors."""
    names = ("txt", "y_vec", "cond", "noisy_latents")
    text, pooled, condition, noisy = (TENSORS[f"input.{name}"].to(dtype) for name in names)
    timestep = TENSORS["input.timesteps"]
    return model(noisy, timestep, text=text, pooled=pooled, condition=condition)


def outputs(model: MMDiT) -> dict[str, torch.Tensor]:
    """Everything that the vectors hold, read through hooks."""
    found: dict[str, torch.Tensor] = {}

    def first(module: nn.Module, inputs: tuple) -> None:
        tokens, given = inputs
        found["txt_in"], found["img_in"] = tokens[:, : given.text], tokens[:, given.text :]
        found["vec"] = given.vector

    def double(index: int) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: tuple, out: torch.Tensor) -> None:
            found[f"double.{index}.txt"] = out[:, :TEXT]
            found[f"double.{index}.img"] = out[:, TEXT:]

        return hook

    def single(index: int) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: tuple, out: torch.Tensor) -> None:
            found[f"single.{index}"] = out

        return hook

    handles = [model.blocks[0].register_forward_pre_hook(first)]
    for index, block in enumerate(model.blocks):
        after = double(index) if index < TINY.depth else single(index - TINY.depth)
        handles.append(block.register_forward_hook(after))
    found["prediction"] = pack(run(model))
    for handle in handles:
        handle.remove()
    return found


def errors(found: dict[str, torch.Tensor], variant: str = "") -> dict[str, float]:
    """Largest difference over the mean magnitude, by name of the output."""
    expected = {
        name.removeprefix(f"output.{variant}"): value
        for name, value in TENSORS.items()
        if name.startswith(f"output.{variant}") and ("small" in name) == bool(variant)
    }
    assert sorted(expected) == sorted(found)
    return {
        name: ((found[name] - value).abs().max() / value.abs().mean()).item()
        for name, value in expected.items()
    }
