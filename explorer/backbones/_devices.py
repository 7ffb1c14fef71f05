"""Which device is meant, and whether it can be used."""

from __future__ import annotations

import functools
from importlib import metadata

from explorer.errors import BackboneError


def resolve_device(device: str) -> str:
    """The device meant by "auto", "cuda" where there is one, else "cpu"; others stay.

    Raises:
        BackboneError: there is no such device here.
    """
    if device == "cpu":
        return device
    if device != "auto":
        _check_usable(device)
        return device
    if _surely_no_cuda():
        return "cpu"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _check_usable(device: str) -> None:
    # Here, not where a model is loaded: what has no weights would go on until its probe is placed.
    import torch

    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise BackboneError(
            f"device {device!r} cannot be used ({reason}): choose cpu or auto"
        ) from error


@functools.cache
def _surely_no_cuda() -> bool:
    """Whether torch need not be asked: a build without CUDA says so in its version."""
    try:
        return metadata.version("torch").endswith("+cpu")
    except metadata.PackageNotFoundError:
        return False
