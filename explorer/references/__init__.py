"""References: who says what the true geometry is. One file each, registered by a decorator.

Files in this folder come with the project; `explorer.plugins` brings those from elsewhere.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from explorer import plugins
from explorer.clip import Clip
from explorer.errors import ReferenceError3D
from explorer.reconstruction import Reconstruction
from explorer.references._context import Context

if TYPE_CHECKING:
    from pathlib import Path

    from explorer.backbones._options import Source

__all__ = [
    "Context",
    "Reference",
    "check",
    "describe",
    "download",
    "is_here",
    "label",
    "names",
    "note",
    "offered",
    "reconstruct",
    "register",
    "remark",
    "shipped",
    "suggest",
    "who_knows",
]

FALLBACK = "estimate"
"""Who is asked about a video that nobody knows."""

Reference = Callable[[Clip, Context], Reconstruction | None]

ONLY_DATASETS = frozenset({"sensor"})
"""References that know nothing about any video that came alone: nobody is offered them for one."""


@dataclass(frozen=True)
class Entry:
    """What is registered under a name.

    Attributes:
        title: one line for people.
        reference: makes the geometry.
        missing: what it lacks on this machine and how to get it, or None; must be quick.
        knows: whether it has geometry of a clip at hand, quickly and without computing it. None
            never knows.
        remark: what to keep in mind, said beside the name wherever it is offered.
        licence: of what does the work: weights, or the program.
        source: where its weights are published; None where it needs none, or has its own.
    """

    title: str
    reference: Reference
    missing: Callable[[], str | None] | None
    knows: Callable[[Clip], bool] | None
    remark: str | None
    licence: str = ""
    source: Source | None = None


_references: dict[str, Entry] = {}


def register(
    name: str,
    title: str,
    *,
    missing: Callable[[], str | None] | None = None,
    knows: Callable[[Clip], bool] | None = None,
    remark: str | None = None,
    licence: str = "",
    source: Source | None = None,
) -> Callable[[Reference], Reference]:
    """Put a reference into the list; it returns None for a clip that it knows nothing about.

    Raises:
        ValueError: there is one of this name.
    """

    def decorate(reference: Reference) -> Reference:
        if name in _references:
            raise ValueError(f"two references are called {name}")
        _references[name] = Entry(title, reference, missing, knows, remark, licence, source)
        return reference

    return decorate


def shipped() -> dict[str, Entry]:
    """The table that `register` fills, with all that comes with the project in it."""
    for module in pkgutil.iter_modules(__path__):
        if not module.name.startswith("_"):
            importlib.import_module(f"{__name__}.{module.name}")
    return _references


def _discover() -> dict[str, Entry]:
    """All references: first those that know clips, then those that estimate."""
    shipped()
    plugins.load()
    ranked = sorted(
        _references.items(), key=lambda item: (item[1].knows is None, item[0] != FALLBACK)
    )
    return dict(ranked)


def names() -> dict[str, str]:
    """Reference ids and their titles, those that cannot be used on this machine included."""
    return {name: entry.title for name, entry in _discover().items()}


def offered() -> dict[str, str]:
    """Ids and titles of the references that can be used on this machine, for a video alone."""
    return {
        name: entry.title
        for name, entry in _discover().items()
        if name not in ONLY_DATASETS and (entry.missing is None or entry.missing() is None)
    }


def describe() -> list[dict[str, Any]]:
    """Each reference: id, title, licence, repository of its weights, and what it lacks here."""
    return [
        {
            "id": name,
            "title": entry.title,
            "licence": entry.licence,
            "remark": entry.remark,
            "source": None if entry.source is None else entry.source.repo,
            "download_bytes": 0 if entry.source is None else entry.source.download_bytes,
            "missing": None if entry.missing is None else entry.missing(),
        }
        for name, entry in _discover().items()
    ]


def download(name: str) -> Path:
    """Fetch a reference's published weights into the hub's cache; the folder that has them.

    Raises:
        ReferenceError3D: there is no such reference, it has no published weights, or they cannot
            be fetched; says what to do.
    """
    from explorer.references import _published

    source = _entry(name).source
    if source is None:
        raise ReferenceError3D(f"the reference {name} takes no published weights")
    # references that share weights look for them under the name of the first
    folder = next(each for each, entry in _discover().items() if entry.source == source)
    return _published.download(folder, source)


def label(name: str) -> str:
    """The name as it is offered: with what to keep in mind about it."""
    kept = _entry(name).remark
    return name if kept is None else f"{name} ({kept})"


def remark(name: str) -> str | None:
    """What to keep in mind about a reference, as a note beside its results; None for none."""
    found = _entry(name).remark
    return None if found is None else f"the reference {name} is a {found.removeprefix('a ')}"


def note(name: str, found: Reconstruction) -> str | None:
    """What to keep in mind about what a reference found: its own words, else those on the name."""
    return found.provenance.get("note") or remark(name)


def who_knows(clip: Clip) -> str | None:
    """The reference that has a clip's geometry at hand, or None; nothing is computed."""
    for name, entry in _discover().items():
        if entry.knows is not None and entry.knows(clip):
            return name
    return None


def suggest(clip: Clip) -> str | None:
    """Who to compare a clip with: who has its geometry at hand, else who can estimate it, or None.

    Nothing is computed.
    """
    return who_knows(clip) or (FALLBACK if is_here(FALLBACK) else None)


def is_here(name: str) -> bool:
    """Whether a reference can be used on this machine.

    Raises:
        ReferenceError3D: there is no reference of this name.
    """
    entry = _entry(name)
    return entry.missing is None or entry.missing() is None


def check(name: str) -> None:
    """Nothing, when a reference can be used.

    Raises:
        ReferenceError3D: there is no reference of this name, or it lacks something on this machine;
            the message says how to get it.
    """
    entry = _entry(name)
    lacking = None if entry.missing is None else entry.missing()
    if lacking is not None:
        raise ReferenceError3D(lacking)


def reconstruct(name: str, clip: Clip, context: Context | None = None) -> Reconstruction | None:
    """The reference geometry of a clip, or None where this reference knows none.

    Args:
        name: id of the reference.
        clip: the frames that are asked about.
        context: what the reference may use besides them.

    Raises:
        NoReconstruction: the reference can do nothing with this clip; says why.
        ReferenceError3D: there is no reference of this name, or it cannot be used here.
        Cancelled: `context.should_stop` became true.
    """
    check(name)
    surroundings = replace(context or Context(), made_by=plugins.key("reference", name))
    found = _entry(name).reference(clip, surroundings)
    said = plugins.provenance("reference", name)
    if found is None or not said:
        return found
    return replace(found, provenance={**found.provenance, **said})


def _entry(name: str) -> Entry:
    known = _discover()
    if name not in known:
        choices = ", ".join((*known, "none"))
        raise ReferenceError3D(
            f"there is no reference {name!r}; there are: {choices}{plugins.missing()}"
        )
    return known[name]
