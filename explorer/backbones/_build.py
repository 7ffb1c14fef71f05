"""Building a published network and filling it from files, one shard at a time.

`from_pretrained` is not used: it patches `nn.Module` and the default dtype for the whole process
while it works, and it only warns about missing or unexpected weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import nn

from explorer.backbones._torch_files import read_state
from explorer.backbones._wan_files import DTYPES
from explorer.errors import BackboneError

_SHOWN = 5


def build_empty(
    make: Callable[[], nn.Module], shallow: Callable[[], nn.Module] | None = None
) -> Any:
    """A network without memory for its parameters, and with its buffers filled.

    Args:
        make: builds the network.
        shallow: builds it with as few blocks as possible; buffers that no file holds (tables of
            rotary positions) are taken from there. None where there are no such buffers.
    """
    with torch.device("meta"):
        network = make()
    tables: dict[str, torch.Tensor] = {}
    if shallow is not None:
        # Its own weights are drawn at random and thrown away: nobody else's numbers may change.
        with torch.random.fork_rng(devices=[]):
            tables = dict(shallow().named_buffers())
    for name, buffer in list(network.named_buffers()):
        if not buffer.is_meta:
            continue
        owner, _, leaf = name.rpartition(".")
        if name in tables:
            setattr(network.get_submodule(owner), leaf, tables[name])
    return network


def fill(
    network: Any,
    tensors: Iterator[tuple[str, torch.Tensor]],
    *,
    device: str,
    dtype: str,
    where: Path,
    offload: bool = False,
    offload_parts: Sequence[str] = ("",),
    model: str = "config.json",
) -> Any:
    """Put tensors into an empty network, each cast and placed as it arrives.

    Parts that the network's class wants in float32 stay there in any dtype. With `offload` the
    weights stay in host memory and each block comes to the device for its turn; `offload_parts`
    names the modules that hold the lists of blocks. `model` is what an error says that they do not
    fit.

    Raises:
        BackboneError: names are missing or unexpected, or a shape differs; nothing is kept then.
    """
    place = "cpu" if offload else device
    problems = ["its files could not be read"]
    try:
        problems = _put(network, tensors, place=place, dtype=dtype)
    finally:
        if problems:
            network.to("meta")  # an error that is kept keeps this frame, too
    if problems:
        shown = "; ".join(problems[:_SHOWN])
        more = f" and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise BackboneError(f"the weights in {where} do not fit {model}: {shown}{more}")
    for buffer_owner in network.modules():
        for name, buffer in buffer_owner.named_buffers(recurse=False):
            if not buffer.is_meta:
                buffer_owner._buffers[name] = buffer.to(place)
    network = network.eval().requires_grad_(False)
    if offload and not device.startswith("cpu"):
        from diffusers.hooks import apply_group_offloading

        for part in offload_parts:
            apply_group_offloading(
                network.get_submodule(part),
                onload_device=torch.device(device),
                offload_type="block_level",
                num_blocks_per_group=1,
                use_stream=True,
            )
    if device.startswith("cuda"):
        # The default of cuDNN, 10-bit mantissas, would show against the CPU in every layer.
        torch.backends.cudnn.allow_tf32 = False
    return network


def _put(
    network: Any, tensors: Iterator[tuple[str, torch.Tensor]], *, place: str, dtype: str
) -> list[str]:
    """Cast, place and assign tensors as they arrive; which ones are missing or do not fit."""
    wanted = network.state_dict()
    full = set(getattr(network, "_keep_in_fp32_modules", None) or ())
    seen: set[str] = set()
    problems: list[str] = []
    for name, tensor in tensors:
        if name not in wanted:
            problems.append(f"unexpected {name}")
            continue
        if tensor.shape != wanted[name].shape:
            shapes = f"{tuple(tensor.shape)} instead of {tuple(wanted[name].shape)}"
            problems.append(f"{name} has shape {shapes}")
            continue
        seen.add(name)
        kind = torch.float32 if full & set(name.split(".")) else DTYPES[dtype]
        if not tensor.is_floating_point():
            kind = tensor.dtype
        _assign(network, name, tensor.to(device=place, dtype=kind))
    return problems + [f"missing {name}" for name in wanted if name not in seen]


def _assign(network: nn.Module, name: str, tensor: torch.Tensor) -> None:
    # Not load_state_dict: it walks the whole network for each tensor of thousands.
    owner, _, leaf = name.rpartition(".")
    module = network.get_submodule(owner)
    if leaf in module._parameters:
        module._parameters[leaf] = nn.Parameter(tensor, requires_grad=False)
    else:
        module._buffers[leaf] = tensor


def shards(paths: Sequence[Path]) -> Iterator[tuple[str, torch.Tensor]]:
    """(name, tensor) of files, read as they are asked for: safetensors, or torch's as tensors only.

    Raises:
        BackboneError: a file is broken, or holds more than tensors.
    """
    for path in paths:
        if path.suffix != ".safetensors":
            yield from read_state(path).items()
            continue
        try:
            with safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118
                    yield name, file.get_tensor(name)
        except BackboneError:
            raise
        except Exception as error:  # safetensors has its own kinds of errors
            reason = " ".join(str(error).split())[:200]
            raise BackboneError(f"{path} is broken ({reason}): fetch it again") from None
