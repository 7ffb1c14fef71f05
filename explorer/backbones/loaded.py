"""Loaded models: one for all callers, and what is let go of when another needs the room."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable

from explorer.backbones import _memory
from explorer.backbones._options import Target
from explorer.backbones.base import Backbone, BackboneCard
from explorer.errors import BackboneError

Loader = Callable[[BackboneCard, Target], Backbone]

models: dict[tuple[str, Target], Backbone] = {}
loading: dict[tuple[str, Target], threading.RLock] = {}
guard = threading.Lock()
"""Held only while `models` and `loading` are read or changed, never while a model loads."""
reading = threading.RLock()
"""Held from the look at free memory until a published model is there: two would count the same."""
holders: list[Callable[[str], bool]] = []
"""Others that keep networks loaded: each lets go of one on a device, or says that it has none."""


def read(loader: Loader, card: BackboneCard, target: Target) -> Backbone:
    """The loaded model; of one that cannot be loaded nothing stays, also while the error is kept.

    Raises:
        BackboneError: it is missing, broken, or memory has run out.
    """
    try:
        return loader(card, target)
    except BackboneError as error:
        # The frames of the loaders hold what they had read.
        raise error.with_traceback(None) from None
    except (MemoryError, RuntimeError) as error:
        if not _memory.is_shortage(error):
            raise
        error.with_traceback(None)
        raise _memory.shortage(card) from None


def make_room(card: BackboneCard, target: Target) -> None:
    """Let go of published models that are not at work, one after the other, until this one fits.

    Raises:
        BackboneError: it does not fit even so.
    """
    while True:
        try:
            _memory.check_memory(card, target)
        except BackboneError:
            if not forget_idle(target):
                raise
        else:
            return


def forget_idle(target: Target) -> bool:
    """Forget what rests where the wanted model goes: the published one loaded longest ago, else
    what one of `holders` has. False where there is nothing.

    One that somebody is about to use lives on in their hands.
    """
    if not _forget_published(target) and not any(let_go(target.device) for let_go in holders):
        return False
    gc.collect()
    if not target.device.startswith("cpu"):
        import torch

        torch.cuda.empty_cache()
    return True


def _forget_published(target: Target) -> bool:
    with guard:
        for key, model in models.items():
            here = key[1].device == target.device or target.offload or key[1].offload
            if here and model.card.source is not None and not model.lock.locked():
                del models[key]
                return True
    return False


def unload(backbone: str | None = None) -> None:
    """Forget loaded models (all without a name); their memory is free once nobody uses them."""
    with guard:
        for key in [key for key in models if backbone in (None, key[0])]:
            del models[key]
