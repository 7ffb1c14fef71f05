"""The list of backbones. A backbone is one file with a card and a decorated loader.

    @register(BackboneCard(id="my-model", ...), hashes=my_hashes, schedule=WanSchedule())
    def load(card: BackboneCard, device: str, dtype: str) -> Backbone: ...

Cards are readable without importing torch; the loader imports what it needs when it is called.
`my_hashes()` reads the files alone, so that what the store already has is found without loading;
the schedule names the timestep of a noise level without loading.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
import threading
from collections.abc import Callable, Sequence
from importlib import metadata
from typing import TYPE_CHECKING

from explorer.backbones.base import Backbone, BackboneCard, Hashes, never
from explorer.errors import BackboneError

if TYPE_CHECKING:
    from explorer.clip import Clip
    from explorer.features import Features
    from explorer.noise import NoiseLevel, Schedule

Loader = Callable[[BackboneCard, str, str], Backbone]

_loaders: dict[str, tuple[BackboneCard, Loader]] = {}
_hashes: dict[str, Callable[[], Hashes]] = {}
_schedules: dict[str, Schedule] = {}
_loaded: dict[tuple[str, str, str], Backbone] = {}
_loading: dict[tuple[str, str, str], threading.Lock] = {}
_guard = threading.Lock()
"""Held only while `_loaded` and `_loading` are read or changed, never while a model loads."""


def register(
    card: BackboneCard,
    *,
    hashes: Callable[[], Hashes] | None = None,
    schedule: Schedule | None = None,
) -> Callable[[Loader], Loader]:
    """Put a backbone into the list under its card's id.

    Args:
        card: facts about it.
        hashes: what the loaded model's `weights_hash` and `encoder_hash` will be, found without
            torch; None loads the model to know them.
        schedule: what the loaded model's `timestep` follows; None leaves `noise_level` unanswered.

    Raises:
        ValueError: there is one of this id.
    """

    def decorate(loader: Loader) -> Loader:
        if card.id in _loaders:
            raise ValueError(f"two backbones are called {card.id}")
        _loaders[card.id] = (card, loader)
        if hashes is not None:
            _hashes[card.id] = hashes
        if schedule is not None:
            _schedules[card.id] = schedule
        return loader

    return decorate


def _discover() -> None:
    package = importlib.import_module("explorer.backbones")
    for module in pkgutil.iter_modules(package.__path__):
        if not module.name.startswith("_"):
            importlib.import_module(f"explorer.backbones.{module.name}")


def cards() -> list[BackboneCard]:
    """All cards, in the order of registration."""
    _discover()
    return [card for card, _ in _loaders.values()]


def card(backbone: str) -> BackboneCard:
    """The card of one backbone.

    Raises:
        BackboneError: no backbone has this id; the message lists those that exist.
    """
    _discover()
    if backbone not in _loaders:
        raise BackboneError(
            f"there is no backbone {backbone!r}; there are: {', '.join(sorted(_loaders))}"
        )
    return _loaders[backbone][0]


def noise_level(backbone: str, sigma: float) -> NoiseLevel | None:
    """Timestep and official index of a noise level, without loading the model.

    Backbones that see no noise answer for sigma 0. None where the backbone names no schedule: the
    loaded model's `timestep` knows.

    Raises:
        BackboneError: unknown id, or sigma is outside [0, 1].
    """
    found = card(backbone)
    schedule = _schedules.get(backbone)
    return None if schedule is None else schedule.at_sigma(sigma if found.uses_sigma else 0.0)


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


def hashes(backbone: str) -> Hashes:
    """The hashes of a backbone, without loading it where it has a light way to tell.

    Raises:
        BackboneError: unknown id, or the weights are missing.
    """
    card(backbone)
    with _guard:
        loaded = next((model for key, model in _loaded.items() if key[0] == backbone), None)
    if loaded is None and backbone in _hashes:
        return _hashes[backbone]()
    model = loaded or load(backbone)
    return Hashes(model.weights_hash, model.encoder_hash)


def load(backbone: str, *, device: str = "auto", dtype: str = "float32") -> Backbone:
    """The loaded model, shared by all callers (its lock serialises them).

    Callers of one model wait for its first load; nobody waits for that of another.

    Raises:
        BackboneError: unknown id, or the weights are missing or broken.
    """
    wanted = card(backbone)
    key = (backbone, resolve_device(device), dtype)
    with _guard:
        turn = _loading.setdefault(key, threading.Lock())
    with turn:
        with _guard:
            model = _loaded.get(key)
        if model is None:
            model = _loaders[backbone][1](wanted, key[1], dtype)
            with _guard:
                _loaded[key] = model
        return model


def unload(backbone: str | None = None) -> None:
    """Forget loaded models (all without a name); their memory is free once nobody uses them."""
    with _guard:
        for key in [key for key in _loaded if backbone in (None, key[0])]:
            del _loaded[key]


def extract(
    backbone: str,
    clip: Clip,
    *,
    layers: Sequence[int],
    sigma: float,
    seed: int = 0,
    device: str = "auto",
    dtype: str = "float32",
    should_stop: Callable[[], bool] = never,
) -> dict[int, Features]:
    """Load a backbone and extract features of the wanted layers: `load`, then `Backbone.extract`.

    Raises:
        BackboneError: the backbone, layers, sigma or frame count do not fit.
        Cancelled: `should_stop` became true.
    """
    model = load(backbone, device=device, dtype=dtype)
    return model.extract(clip, layers=layers, sigma=sigma, seed=seed, should_stop=should_stop)
