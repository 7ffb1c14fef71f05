"""Memory of the networks of references: one stays loaded, until somebody needs its place."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

from explorer.backbones import _memory, loaded
from explorer.backbones._options import Target
from explorer.backbones._weights import size_text
from explorer.errors import ReferenceError3D
from explorer.references._turn import idle

Key: TypeAlias = tuple[object, ...]
"""What a loaded network depends on; its device comes last."""

_kept: list[tuple[Key, Any]] = []  # at most one; changed by whoever has the turn


def is_loaded(key: Key) -> bool:
    """Whether this is the network that stayed loaded; another one is forgotten."""
    if _kept and _kept[0][0] != key:
        _kept.clear()
    return bool(_kept)


def network(key: Key, load: Callable[[], Any]) -> Any:
    """The network that stayed loaded if it is this one; else it is loaded, and stays."""
    if not is_loaded(key):
        _kept.append((key, load()))
    return _kept[0][1]


def make_room(need: int, device: str, what: str) -> None:
    """Have this many bytes free; backbones that are not at work are let go of until they are.

    A process that is killed for memory says nothing, so this is asked before anything is loaded.

    Raises:
        ReferenceError3D: there is too little memory all the same.
    """
    while (have := _memory.free(device)) < need:
        if not loaded.forget_idle(Target(device=device)):
            raise ReferenceError3D(
                f"{what} need about {size_text(need)} on {device}; {size_text(have)} are free: "
                "take fewer frames"
            )


@contextmanager
def or_too_little(device: str, what: str) -> Iterator[None]:
    """A pass that runs out of memory is an error for people, and holds none of it.

    Raises:
        ReferenceError3D: the pass inside ran out of memory.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not _memory.is_shortage(error):
            raise
        traceback.clear_frames(error.__traceback__)  # they hold the tensors of the pass
        raise ReferenceError3D(
            f"{what} do not fit into the memory of {device}: take fewer frames"
        ) from None


def _let_go(device: str) -> bool:
    """Forget the network on a device for somebody else, unless it is at work; whether it was."""
    with idle() as nobody:
        if not nobody or not _kept or _kept[0][0][-1] != device:
            return False
        _kept.clear()
    return True


loaded.holders.append(_let_go)
