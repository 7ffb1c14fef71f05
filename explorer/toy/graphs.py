"""Training steps recorded as CUDA graphs: small networks are bound by the launches of kernels."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn


class Graphed:
    """A function of tensors with fixed shapes, recorded as one CUDA graph and replayed.

    Args:
        function: maps tensors to tensors (or any structure of them); a backward pass may be inside.
        inputs: examples; later inputs must have their shapes and memory formats.
        parameters: whose gradients a backward pass inside fills; each replay overwrites them.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        inputs: Sequence[Tensor],
        parameters: Sequence[nn.Parameter] = (),
    ) -> None:
        self._inputs = [x.clone(memory_format=torch.preserve_format) for x in inputs]
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                _forget(parameters)
                function(*self._inputs)
        torch.cuda.current_stream().wait_stream(side)
        _forget(parameters)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._outputs = function(*self._inputs)

    def __call__(self, *inputs: Tensor) -> Any:
        """The function's outputs, which stay valid until the next call."""
        for static, given in zip(self._inputs, inputs, strict=True):
            static.copy_(given)
        self._graph.replay()
        return self._outputs


def _forget(parameters: Sequence[nn.Parameter]) -> None:
    for parameter in parameters:
        parameter.grad = None


def eager(
    function: Callable[..., Any], parameters: Sequence[nn.Parameter] = ()
) -> Callable[..., Any]:
    """The same call without a graph: gradients are cleared, then the function runs."""

    def call(*inputs: Tensor) -> Any:
        _forget(parameters)
        return function(*inputs)

    return call


def graphed(
    function: Callable[..., Any],
    inputs: Sequence[Tensor],
    parameters: Sequence[nn.Parameter] = (),
    *,
    enabled: bool,
) -> Callable[..., Any]:
    """`Graphed` where it is enabled and can be recorded, else the plain call."""
    if not enabled:
        return eager(function, parameters)
    try:
        return Graphed(function, inputs, parameters)
    except RuntimeError as error:
        logging.getLogger(__name__).warning("no CUDA graph, running eagerly: %s", error)
        torch.cuda.synchronize()
        return eager(function, parameters)
