"""The list of backbones. A backbone is one file with a card and a decorated loader.

    @register(BackboneCard(id="my-model", ...), hashes=my_hashes, schedule=WanSchedule())
    def load(card: BackboneCard, target: Target) -> Backbone: ...

Cards are readable without importing torch; the loader imports what it needs when it is called.
`my_hashes(target)` reads the files alone, so that what the store already has is found without
loading; the schedule names the timestep of a noise level without loading. A card with a `source`
stands for published weights: its loader gets a target whose folder has been found, and `adapt` may
correct the card by the configuration there (a folder may hold another size of the same model).

Files in this folder come with the project; `explorer.plugins` brings those from elsewhere.
"""

from __future__ import annotations

import functools
import gc
import importlib
import pkgutil
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from explorer import plugins
from explorer.backbones import _memory, _published, _weights
from explorer.backbones._options import Target
from explorer.backbones.base import Backbone, BackboneCard, Hashes, never
from explorer.errors import BackboneError

if TYPE_CHECKING:
    from explorer.clip import Clip
    from explorer.features import Features
    from explorer.noise import NoiseLevel, Schedule

Loader = Callable[[BackboneCard, Target], Backbone]
FIRST = ".toy_wan"
"""Module of the backbones that are listed first."""


@dataclass(frozen=True)
class Entry:
    """What is registered under an id."""

    card: BackboneCard
    loader: Loader
    hashes: Callable[[Target], Hashes] | None
    schedule: Schedule | None
    adapt: Callable[[BackboneCard, Path], BackboneCard] | None
    tiny: Callable[[Path], None] | None

    def adapted(self, folder: Path) -> BackboneCard:
        """The card of the weights in a folder.

        Raises:
            BackboneError: they are missing, broken, incomplete or of another model.
        """
        if self.adapt is None:
            return self.card
        try:
            return _memory.with_need(self.adapt(self.card, folder))
        except (KeyError, IndexError, TypeError, ValueError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise BackboneError(
                f"a config.json in {folder} is incomplete or not of {self.card.id} ({reason}): "
                "fetch it again, or give the folder of this model"
            ) from None

    def lacks(self, folder: Path) -> str:
        """What a folder has not of the files, for an empty prompt; nothing where it has them all.

        They are the files that hashes are made of, with what makes the prompt's embedding.
        """
        if self.hashes is None:
            return ""
        try:
            with _published.names_only():
                self.hashes(Target(weights=folder))
        except BackboneError as error:
            return str(error)
        return ""


_entries: dict[str, Entry] = {}
_loaded: dict[tuple[str, Target], Backbone] = {}
_loading: dict[tuple[str, Target], threading.RLock] = {}
_guard = threading.Lock()
"""Held only while `_loaded` and `_loading` are read or changed, never while a model loads."""
_reading = threading.RLock()
"""Held from the look at free memory until a published model is there: two would count the same."""
holders: list[Callable[[str], bool]] = []
"""Others that keep networks loaded: each lets go of one on a device, or says that it has none."""


def register(
    card: BackboneCard,
    *,
    hashes: Callable[[Target], Hashes] | None = None,
    schedule: Schedule | None = None,
    adapt: Callable[[BackboneCard, Path], BackboneCard] | None = None,
    tiny: Callable[[Path], None] | None = None,
) -> Callable[[Loader], Loader]:
    """Put a backbone into the list under its card's id.

    Args:
        card: facts about it.
        hashes: what the loaded model's `weights_hash` and `encoder_hash` will be, found without
            torch; None loads the model to know them.
        schedule: what the loaded model's `timestep` follows; None leaves `noise_level` unanswered.
        adapt: (card, folder) to the card of the weights in that folder, from its configuration.
        tiny: writes a folder in the layout of the published weights, a thousand times smaller and
            random, for tests; needed where the card has a source.

    Raises:
        ValueError: there is one of this id, or a source without `tiny`.
    """

    def decorate(loader: Loader) -> Loader:
        if card.id in _entries:
            raise ValueError(f"two backbones are called {card.id}")
        if card.source is not None and tiny is None:
            raise ValueError(f"{card.id} needs tiny weights to be tested with")
        _entries[card.id] = Entry(_memory.with_need(card), loader, hashes, schedule, adapt, tiny)
        return loader

    return decorate


def shipped() -> dict[str, Entry]:
    """The table that `register` fills, with all that comes with the project in it."""
    package = importlib.import_module("explorer.backbones")
    for module in pkgutil.iter_modules(package.__path__):
        if not module.name.startswith("_"):
            importlib.import_module(f"explorer.backbones.{module.name}")
    return _entries


def _discover() -> None:
    shipped()
    plugins.load()


def cards() -> list[BackboneCard]:
    """All cards: the shipped models, then published ones, by their modules; plugins' come last.

    The order does not depend on which module somebody has imported first.
    """
    _discover()
    return [entry.card for entry in sorted(_entries.values(), key=_place)]


def _place(entry: Entry) -> tuple[bool, bool, bool, str]:
    module = entry.loader.__module__
    foreign = plugins.is_foreign(entry.loader)
    return foreign, entry.card.source is not None, not module.endswith(FIRST), module


def _entry(backbone: str) -> Entry:
    _discover()
    if backbone not in _entries:
        raise BackboneError(
            f"there is no backbone {backbone!r}; there are: {', '.join(sorted(_entries))}"
            f"{plugins.missing()}"
        )
    return _entries[backbone]


def card(backbone: str, *, weights: Path | None = None) -> BackboneCard:
    """The card of one backbone, or of the weights in a folder.

    Raises:
        BackboneError: no backbone has this id (the message lists those that exist), or the folder
            does not hold such weights.
    """
    entry = _entry(backbone)
    if weights is None:
        return entry.card
    return entry.adapted(_weights.find_weights(entry.card, weights, lacks=entry.lacks))


def write_tiny(backbone: str, folder: Path) -> None:
    """Write random weights of a tiny configuration, in the layout of the published ones.

    Raises:
        BackboneError: unknown id, or the backbone has no published weights.
    """
    entry = _entry(backbone)
    if entry.tiny is None:
        raise BackboneError(f"{backbone} comes with the package: it needs no stand-in")
    entry.tiny(folder)


def here() -> list[BackboneCard]:
    """Cards of the backbones that can run on this machine without fetching anything."""
    return [card for card in cards() if is_here(card.id)]


def is_here(backbone: str) -> bool:
    """Whether a backbone can be loaded, with an empty prompt, without fetching anything.

    Raises:
        BackboneError: unknown id.
    """
    entry = _entry(backbone)
    if entry.card.source is None:
        return True
    try:
        return not entry.lacks(_weights.find_weights(entry.card))
    except BackboneError:
        return False


def _found(backbone: str, target: Target) -> tuple[Entry, BackboneCard, Target]:
    """The entry, its card for the weights at hand, and the target with their folder."""
    entry = _entry(backbone)
    if target.prompt and not entry.card.takes_prompt:
        raise BackboneError(
            f"{backbone} takes no prompt: leave it out, or choose a model with text"
        )
    if entry.card.source is None:
        if target.weights is not None:
            _weights.find_weights(entry.card, target.weights)
        return entry, entry.card, target
    found = _weights.find_weights(entry.card, target.weights, lacks=entry.lacks)
    folder = found.resolve()
    return entry, entry.adapted(folder), replace(target, weights=folder)


def noise_level(backbone: str, sigma: float) -> NoiseLevel | None:
    """Timestep and official index of a noise level, without loading the model.

    Backbones that see no noise answer for sigma 0. None where the backbone names no schedule: the
    loaded model's `timestep` knows.

    Raises:
        BackboneError: unknown id, or sigma is outside [0, 1].
    """
    entry = _entry(backbone)
    if entry.schedule is None:
        return None
    return entry.schedule.at_sigma(sigma if entry.card.uses_sigma else 0.0)


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


def fitting_card(backbone: str, target: Target) -> BackboneCard:
    """The card of the weights that `load` would take, without loading them.

    Raises:
        BackboneError: unknown id, or the weights are not here.
    """
    return _found(backbone, target)[1]


def hashes(backbone: str, target: Target | None = None) -> Hashes:
    """The hashes of a backbone, without loading it where it has a light way to tell.

    Raises:
        BackboneError: unknown id, or the weights are missing.
    """
    entry, _, wanted = _found(backbone, target or Target())
    with _guard:
        loaded = next(
            (
                model
                for (name, have), model in _loaded.items()
                if name == backbone and have.files == wanted.files
            ),
            None,
        )
    if loaded is None and entry.hashes is not None:
        return entry.hashes(wanted)
    model = loaded or load(backbone, target=wanted)
    return Hashes(model.weights_hash, model.encoder_hash)


def load(
    backbone: str,
    *,
    device: str = "auto",
    dtype: str = "float32",
    target: Target | None = None,
) -> Backbone:
    """The loaded model, shared by all callers (its lock serialises them).

    Callers of one model wait for its first load; published models are read one after the other,
    and nobody else waits for that of another.

    Args:
        backbone: registry id.
        device: "auto", "cpu", "cuda", "cuda:1", ...
        dtype: "float32", "bfloat16" or "float16".
        target: everything that can be chosen, instead of device and dtype.

    Raises:
        BackboneError: unknown id or dtype, the weights are missing or broken, or do not fit into
            memory. Nothing of them stays there, also while the error is kept.
    """
    asked = target or Target(device=device, dtype=dtype)
    _memory.check_dtypes(asked)
    entry, fitting, found = _found(backbone, replace(asked, device=resolve_device(asked.device)))
    key, published = (backbone, found), fitting.source is not None
    with _guard:
        model = _loaded.get(key)
        turn = _reading if published else _loading.setdefault(key, threading.RLock())
    if model is not None:
        return model
    with turn:
        with _guard:
            model = _loaded.get(key)
        if model is None:
            if published:
                _make_room(fitting, found)
            model = _read(entry, fitting, found)
            with _guard:
                _loaded[key] = model
        return model


def _read(entry: Entry, card: BackboneCard, target: Target) -> Backbone:
    """The loaded model; of one that cannot be loaded nothing stays, also while the error is kept.

    Raises:
        BackboneError: it is missing, broken, or memory has run out.
    """
    try:
        return entry.loader(card, target)
    except BackboneError as error:
        # The frames of the loaders hold what they had read.
        raise error.with_traceback(None) from None
    except (MemoryError, RuntimeError) as error:
        if not _memory.is_shortage(error):
            raise
        error.with_traceback(None)
        raise _memory.shortage(card) from None


def _make_room(card: BackboneCard, target: Target) -> None:
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
    with _guard:
        for key, model in _loaded.items():
            here = key[1].device == target.device or target.offload or key[1].offload
            if here and model.card.source is not None and not model.lock.locked():
                del _loaded[key]
                return True
    return False


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
    tap: str = "block",
    device: str = "auto",
    dtype: str = "float32",
    should_stop: Callable[[], bool] = never,
) -> dict[int, Features]:
    """Load a backbone and extract features of the wanted layers: `load`, then `Backbone.extract`.

    Raises:
        BackboneError: the backbone, layers, sigma, tap or frame count do not fit.
        Cancelled: `should_stop` became true.
    """
    model = load(backbone, device=device, dtype=dtype)
    return model.extract(
        clip, layers=layers, sigma=sigma, seed=seed, tap=tap, should_stop=should_stop
    )
