"""Weights for tiny stand-ins of published models, with which their adapters are tested."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from explorer.backbones._prompt_files import TextEncoder, given_file


@torch.no_grad()
def randomize(model: nn.Module, generator: torch.Generator) -> None:
    """Random parameters under which every part of a network shows in its output.

    Freshly made networks often start with zeros (gates, biases, last layers) that would hide a
    mistake. Gains lie near 1, other vectors near 0, matrices keep the variance of their input.
    """
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator).to(parameter.dtype)
        leaf = name.rsplit(".", 1)[-1]
        if parameter.dim() > 1 and max(parameter.shape) < parameter.numel():
            parameter.copy_(noise / parameter[0].numel() ** 0.5)
        elif leaf in ("weight", "gamma", "scale"):
            parameter.copy_(1 + 0.1 * noise)
        else:
            parameter.copy_(0.1 * noise)


def write_parts(folder: Path, models: Mapping[str, Any], generator: torch.Generator) -> None:
    """Models of diffusers with random weights, each in a folder of its name."""
    for name, model in models.items():
        randomize(model, generator)
        model.save_pretrained(folder / name)


def write_prompt(
    encoder: TextEncoder, folder: Path, tensors: dict[str, torch.Tensor], prompt: str = ""
) -> None:
    """The embedding of a prompt, where a folder of weights has it."""
    path = given_file(encoder, folder, prompt)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path)
