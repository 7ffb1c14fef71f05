"""Features on their way from the device to host memory, while the next blocks run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import numpy as np
import torch

from explorer._typing import Float

FLOAT16_MAX = float(np.finfo(np.float16).max)
LOCKED_BYTES = 8 * 2**30
"""Of one pass's features, at most so many are in page-locked memory: others need that too."""

Parcel: TypeAlias = torch.Tensor


def as_float16(tokens: torch.Tensor) -> torch.Tensor:
    """float16 where the tensor is. Rare huge activations are clamped: an infinity would poison a
    probe.
    """
    if tokens.dtype == torch.bfloat16:
        # bfloat16 has fewer digits than float16, so its own nearest bound may lie above the other.
        tokens = tokens.float()
    return tokens.clamp(-FLOAT16_MAX, FLOAT16_MAX).to(torch.float16)


class Delivery:
    """Carries one pass's features to host memory.

    On CUDA every tensor is copied on a stream of its own into page-locked memory, so that neither
    the copies wait for the end of the pass nor the pass for the copies. Elsewhere nothing is
    copied that is in host memory already.
    """

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._locked = 0

    def send(self, tokens: Float[torch.Tensor, "*shape"]) -> Parcel:
        """Put a tensor on its way as float16; its memory on the device is free once it is there."""
        values = as_float16(tokens)
        if self._stream is None:
            return values.cpu()
        parcel = self._host_memory(values)
        self._stream.wait_stream(torch.cuda.current_stream(values.device))
        with torch.cuda.stream(self._stream):
            parcel.copy_(values, non_blocking=True)
        values.record_stream(self._stream)
        return parcel

    def receive(self, parcels: Mapping[int, Parcel]) -> dict[int, np.ndarray]:
        """Arrays of everything sent, all of it arrived."""
        if self._stream is not None:
            self._stream.synchronize()
        return {layer: parcel.numpy() for layer, parcel in parcels.items()}

    def _host_memory(self, values: torch.Tensor) -> torch.Tensor:
        """Page-locked where there may be more of that; a copy to other memory waits for its end."""
        if self._locked + values.nbytes <= LOCKED_BYTES:
            self._locked += values.nbytes
            try:
                return torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            except RuntimeError:  # this machine locks no more
                self._locked = LOCKED_BYTES
        return torch.empty(values.shape, dtype=values.dtype)
