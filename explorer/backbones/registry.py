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

import importlib
import pkgutil
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from explorer import plugins
from explorer.backbones import _memory, _published, _weights, loaded
from explorer.backbones._devices import resolve_device as resolve_device
from explorer.backbones._options import Target
from explorer.backbones.base import Backbone, BackboneCard, Hashes, never
from explorer.backbones.loaded import Loader
from explorer.errors import BackboneError

if TYPE_CHECKING:
    from explorer.clip import Clip
    from explorer.features import Features
    from explorer.noise import NoiseLevel, Schedule

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
    if target.compile and target.offload:
        raise BackboneError("blocks that visit the GPU are not compiled: --compile or --offload")
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
    with loaded.guard:
        model = next(
            (
                model
                for (name, have), model in loaded.models.items()
                if name == backbone and have.files == wanted.files
            ),
            None,
        )
    if model is None and entry.hashes is not None:
        return entry.hashes(wanted)
    model = model or load(backbone, target=wanted)
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
    with loaded.guard:
        model = loaded.models.get(key)
        turn = loaded.reading if published else loaded.loading.setdefault(key, threading.RLock())
    if model is not None:
        return model
    with turn:
        with loaded.guard:
            model = loaded.models.get(key)
        if model is None:
            if published:
                loaded.make_room(fitting, found)
            model = loaded.read(entry.loader, fitting, found)
            if found.compile:
                model.compile()
            with loaded.guard:
                loaded.models[key] = model
        return model


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
