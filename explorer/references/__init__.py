"""References: who says what the true geometry is. One file each, registered by a decorator."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable

from explorer.clip import Clip
from explorer.errors import ReferenceError3D
from explorer.reconstruction import Reconstruction

Reference = Callable[[Clip], Reconstruction | None]

_references: dict[str, tuple[str, Reference]] = {}


def register(name: str, title: str) -> Callable[[Reference], Reference]:
    """Put a reference into the list; it returns None for a clip that it knows nothing about."""

    def decorate(reference: Reference) -> Reference:
        _references[name] = (title, reference)
        return reference

    return decorate


def _discover() -> None:
    for module in pkgutil.iter_modules(__path__):
        if not module.name.startswith("_"):
            importlib.import_module(f"{__name__}.{module.name}")


def names() -> dict[str, str]:
    """Reference ids and their titles."""
    _discover()
    return {name: title for name, (title, _) in _references.items()}


def reconstruct(name: str, clip: Clip) -> Reconstruction | None:
    """The reference geometry of a clip, or None where this reference knows none.

    Raises:
        ReferenceError3D: there is no reference of this name.
    """
    _discover()
    if name not in _references:
        raise ReferenceError3D(
            f"there is no reference {name!r}; there are: {', '.join(_references)}"
        )
    return _references[name][1](clip)
