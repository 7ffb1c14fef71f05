"""Strict loading of Wan models from folders in diffusers' layout.

`from_pretrained` is not used: it patches `nn.Module` and the default dtype for the whole process
while it works, so a probe that another thread builds at that moment loses its weights; and it
only warns about missing or unexpected ones.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from explorer.backbones import _wan_vae
from explorer.backbones._files import files_hash, model_files, read_config, transformer_config
from explorer.backbones._wan_types import Transformer, Vae
from explorer.errors import BackboneError

__all__ = [
    "DTYPES",
    "check_target",
    "files_hash",
    "load_shipped",
    "load_transformer",
    "load_vae",
    "place",
    "place_transformer",
    "transformer_config",
]

DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def load_vae(folder: Path, *, device: str) -> Vae:
    """The video VAE, always in float32: its latents then depend on no dtype.

    Raises:
        BackboneError: files are missing or broken, or do not fit the configuration.
    """
    from diffusers import AutoencoderKLWan

    check_target(device, "float32")
    vae: Vae = load_shipped(folder, AutoencoderKLWan.from_config)
    vae = place(vae, device, torch.float32)
    _wan_vae.quicken(vae)
    return vae


def load_transformer(folder: Path, *, device: str, dtype: str) -> Transformer:
    """The video transformer; parts that diffusers keeps in float32 stay there in any dtype.

    Raises:
        BackboneError: files are missing or broken, or do not fit the configuration.
    """
    from diffusers import WanTransformer3DModel

    check_target(device, dtype)
    transformer: Transformer = load_shipped(folder, WanTransformer3DModel.from_config)
    return place_transformer(transformer, device=device, dtype=dtype)


def place_transformer(transformer: Transformer, *, device: str, dtype: str) -> Transformer:
    """The model on a device, in a dtype.

    Raises:
        BackboneError: the dtype is unknown or the device cannot be used.
    """
    check_target(device, dtype)
    return place(transformer, device, DTYPES[dtype])


def load_shipped(folder: Path, make: Callable[[dict[str, Any]], Any]) -> Any:
    """The network of a folder with config.json and safetensors, strictly, in float32 on the CPU.

    Args:
        folder: of the model.
        make: configuration to network.

    Raises:
        BackboneError: files are missing or broken, or do not fit the configuration.
    """
    model, reason = _try_load(make, model_files(folder))
    if model is None:
        raise BackboneError(
            f"the weights in {folder} are broken or do not fit config.json: {reason}"
        )
    return model


def _try_load(make: Callable[[dict[str, Any]], Any], files: list[Path]) -> tuple[Any, str]:
    """(model, "") or (None, reason): raised here, the traceback would hold half-loaded weights."""
    try:
        model = make(read_config(files[0]))
        state: dict[str, torch.Tensor] = {}
        for path in files[1:]:
            state.update(load_file(path))
        model.load_state_dict({name: value.float() for name, value in state.items()}, strict=True)
    except Exception as error:
        return None, " ".join(str(error).split())[:300]
    return model, ""


def check_target(device: str, dtype: str) -> None:
    """Refuse an unknown dtype or unusable device before anything is read.

    Raises:
        BackboneError: with what can be chosen.
    """
    if dtype not in DTYPES:
        raise BackboneError(f"dtype {dtype!r} is unknown: choose {', '.join(DTYPES)}")
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
    else:
        return
    raise BackboneError(f"device {device!r} cannot be used ({reason}): choose cpu or auto")


def place(model: Any, device: str, dtype: torch.dtype) -> Any:
    """A network on a device in a dtype; parts that its class wants in float32 stay there."""
    full = set(getattr(model, "_keep_in_fp32_modules", None) or ())
    for name, parameter in model.named_parameters():
        keep = not full.isdisjoint(name.split("."))
        parameter.data = parameter.data.to(torch.float32 if keep else dtype)
    placed = model.to(device)
    if torch.device(device).type == "cuda":
        # The default of cuDNN, 10-bit mantissas, would show against the CPU in every layer.
        torch.backends.cudnn.allow_tf32 = False
    return placed
