"""A transformer without training, the same on every machine and with every version of torch.

torch does not promise that its initialisers give the same numbers in another version, and numpy
does not promise it of its normal distribution either. The raw 64-bit output of PCG64 is fixed by
its definition (O'Neill, 2014), and turning it into uniform numbers is exact arithmetic.

Every parameter has its own stream, named by the seed and the parameter's name, and is uniform on
[-sqrt(3) std, sqrt(3) std] with the std of torch's default initialiser: 1 / sqrt(3 fan_in) for the
weights and biases of linear layers and convolutions, 1 / sqrt(width) for the modulation tables;
norms have scale 1 and shift 0.
"""

from __future__ import annotations

import hashlib
import math
from typing import Any

import numpy as np
import torch
from torch import nn

from explorer._typing import Float
from explorer.backbones._wan_types import Transformer


def uniform(name: str, shape: tuple[int, ...], *, seed: int) -> Float[np.ndarray, "*shape"]:
    """float32 numbers in [-1, 1) that depend on the name and the seed alone."""
    words = np.frombuffer(hashlib.sha256(name.encode()).digest(), dtype="<u4")
    stream = np.random.PCG64([seed, *words.tolist()])
    raw = stream.random_raw(math.prod(shape))
    unit = (raw >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return (2.0 * unit - 1.0).astype(np.float32).reshape(shape)


def untrained_transformer(config: dict[str, Any], *, seed: int) -> Transformer:
    """A `WanTransformer3DModel` of this configuration with regenerated weights."""
    from diffusers import WanTransformer3DModel

    model = WanTransformer3DModel.from_config(config)
    with torch.no_grad():
        for module_name, module in model.named_modules():
            for name, parameter in module.named_parameters(recurse=False):
                bound = _bound(module, name, parameter)
                if bound is not None:
                    full = f"{module_name}.{name}".lstrip(".")
                    values = uniform(full, tuple(parameter.shape), seed=seed)
                    parameter.copy_(torch.from_numpy(values * np.float32(bound)))
    return model


def _bound(module: nn.Module, name: str, parameter: nn.Parameter) -> float | None:
    """Half width of the uniform distribution; None keeps the initialiser's constant."""
    if isinstance(module, nn.Linear | nn.Conv3d):
        return 1.0 / math.sqrt(module.weight[0].numel())
    if name == "scale_shift_table":
        return math.sqrt(3.0 / parameter.shape[-1])
    return None
