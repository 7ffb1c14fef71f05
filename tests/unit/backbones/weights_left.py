"""What has been read and is still in memory."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

Weights = Callable[[], list[tuple[int, ...]]]


@contextmanager
def set_aside() -> Iterator[Weights]:
    """Look at what is made inside alone: to look through all of memory takes seconds.

    Yields a function that gives the shapes of the tensors that are there.
    """

    def weights() -> list[tuple[int, ...]]:
        gc.collect()
        kinds = (torch.Tensor, torch.nn.Parameter)
        found = [x for x in gc.get_objects() if type(x) in kinds and not x.is_meta]
        return [tuple(x.shape) for x in found]

    gc.freeze()
    try:
        yield weights
    finally:
        gc.unfreeze()
