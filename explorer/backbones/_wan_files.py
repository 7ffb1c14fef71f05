"""Strict loading of Wan models from folders in diffusers' layout.

`from_pretrained` is not used: it patches `nn.Module` and the default dtype for the whole process
while it works, so a probe that another thread builds at that moment loses its weights; and it
only warns about missing or unexpected ones.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from explorer.backbones._wan_types import Transformer, Vae
from explorer.backbones.base import hash_files
from explorer.errors import BackboneError

DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def model_files(folder: Path) -> list[Path]:
    """Configuration and weights of one model folder.

    Raises:
        BackboneError: one of them is missing.
    """
    weights = sorted(folder.glob("*.safetensors"))
    config = folder / "config.json"
    if not weights or not config.is_file():
        missing = "*.safetensors" if config.is_file() else "config.json"
        raise BackboneError(
            f"the weights are missing: there is no {missing} in {folder}. Reinstall the package, "
            "restore assets/models from the repository, or set EMERGE3D_ASSETS to the folder that "
            "holds models/"
        )
    return [config, *weights]


def load_vae(folder: Path, *, device: str) -> Vae:
    """The video VAE, always in float32: its latents then depend on no dtype.

    Raises:
        BackboneError: files are missing or broken, or do not fit the configuration.
    """
    from diffusers import AutoencoderKLWan

    _check_target(device, "float32")
    vae: Vae = _load(AutoencoderKLWan, folder)
    return _place(vae, device, torch.float32)


def load_transformer(folder: Path, *, device: str, dtype: str) -> Transformer:
    """The video transformer; parts that diffusers keeps in float32 stay there in any dtype.

    Raises:
        BackboneError: files are missing or broken, or do not fit the configuration.
    """
    from diffusers import WanTransformer3DModel

    _check_target(device, dtype)
    transformer: Transformer = _load(WanTransformer3DModel, folder)
    return place_transformer(transformer, device=device, dtype=dtype)


def place_transformer(transformer: Transformer, *, device: str, dtype: str) -> Transformer:
    """The model on a device, in a dtype.

    Raises:
        BackboneError: the dtype is unknown or the device cannot be used.
    """
    _check_target(device, dtype)
    return _place(transformer, device, DTYPES[dtype])


def transformer_config(folder: Path) -> dict[str, Any]:
    """The configuration alone.

    Raises:
        BackboneError: it is missing or broken.
    """
    return _read_config(model_files(folder)[0])


def files_hash(*folders: Path) -> str:
    """sha256 over configurations and weights of model folders."""
    return hash_files([path for folder in folders for path in model_files(folder)])


def _read_config(path: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads(path.read_text())
    return config


def _load(model_class: Any, folder: Path) -> Any:
    model, reason = _try_load(model_class, model_files(folder))
    if model is None:
        raise BackboneError(
            f"the weights in {folder} are broken or do not fit config.json: {reason}"
        )
    return model


def _try_load(model_class: Any, files: list[Path]) -> tuple[Any, str]:
    """(model, "") or (None, reason): raised here, the traceback would hold half-loaded weights."""
    try:
        model = model_class.from_config(_read_config(files[0]))
        state: dict[str, torch.Tensor] = {}
        for path in files[1:]:
            state.update(load_file(path))
        model.load_state_dict({name: value.float() for name, value in state.items()}, strict=True)
    except Exception as error:
        return None, " ".join(str(error).split())[:300]
    return model, ""


def _check_target(device: str, dtype: str) -> None:
    """Refuse an unknown dtype or unusable device before anything is read."""
    if dtype not in DTYPES:
        raise BackboneError(f"dtype {dtype!r} is unknown: choose {', '.join(DTYPES)}")
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
    else:
        return
    raise BackboneError(f"device {device!r} cannot be used ({reason}): choose cpu or auto")


def _place(model: Any, device: str, dtype: torch.dtype) -> Any:
    full = set(getattr(model, "_keep_in_fp32_modules", None) or ())
    for name, parameter in model.named_parameters():
        keep = not full.isdisjoint(name.split("."))
        parameter.data = parameter.data.to(torch.float32 if keep else dtype)
    placed = model.to(device)
    if placed.device.type == "cuda":
        # The default of cuDNN, 10-bit mantissas, would show against the CPU in every layer.
        torch.backends.cudnn.allow_tf32 = False
    return placed
