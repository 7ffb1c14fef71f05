"""Backbones, references and readers of datasets from outside this project.

A plugin is a module whose import calls the registries' own `register`. It is found in two ways:

- an installed package names it in the entry-point group `emerge3d.plugins`;
- `EMERGE3D_PLUGINS` lists `.py` files or names of modules, separated as `PATH` is.

All are imported once, after what comes with this project, when a registry is first asked what there
is. A plugin counts whole or not at all: what fails on import, or takes an id that exists, is left
out with one warning, and everything else goes on.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from explorer._plugin_files import (
    Candidate,
    candidates,
    reason,
    sha256_of,
    without_current_folder,
)
from explorer.errors import PluginError

Kind = Literal["backbone", "reference", "dataset"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plugin:
    """One plugin that was found.

    Attributes:
        name: of the entry point, the file or the module.
        distribution: the installed package that names it; None for what the variable lists.
        version: of that package.
        file: where the module is; None where it could not be found.
        sha256: of that file, or of all `.py` files of the package that the module is in.
        seconds: what its import took.
        registered: ids that it gave, by kind.
        error: why it is left out; None where it is not.
    """

    name: str
    distribution: str | None = None
    version: str | None = None
    file: Path | None = None
    sha256: str | None = None
    seconds: float = 0.0
    registered: dict[str, tuple[str, ...]] = field(default_factory=dict)
    error: PluginError | None = None

    @property
    def identity(self) -> dict[str, str | None]:
        """What its results depend on."""
        return {
            "distribution": self.distribution,
            "version": self.version,
            "sha256": self.sha256,
        }

    @property
    def provenance(self) -> dict[str, str | None]:
        """What results say of it; the file without its folders, which say something of a person."""
        file = None if self.file is None else self.file.name
        return {"name": self.name, "file": file, **self.identity}


_found: list[Plugin] = []
_begun = False
_turn = threading.RLock()
"""Held while plugins are imported; what they ask the registries meanwhile comes from within."""


def load() -> tuple[Plugin, ...]:
    """All plugins, imported by the first call."""
    global _begun
    with _turn:
        if not _begun:
            _begun = True
            with without_current_folder():
                _load_all()
        return tuple(_found)


def of(kind: Kind, name: str) -> Plugin | None:
    """The plugin that gave an id; None for what comes with this project."""
    return next((each for each in load() if name in each.registered.get(kind, ())), None)


def provenance(kind: Kind, name: str) -> dict[str, Any]:
    """`plugin`, as results of an id name it; empty for this project's own."""
    found = of(kind, name)
    return {} if found is None else {"plugin": found.provenance}


def key(kind: Kind, name: str) -> dict[str, Any]:
    """The part of a stored result's key that changes with the plugin; empty for our own."""
    found = of(kind, name)
    return {} if found is None else {"plugin": found.identity}


def missing() -> str:
    """The end of a message about an unknown id: plugins that might have given it."""
    return "".join(f"; {each.error}" for each in load() if each.error is not None)


def is_foreign(maker: object) -> bool:
    """Whether a loader, a reference or a reader comes from outside this project."""
    return not str(getattr(maker, "__module__", "")).startswith("explorer.")


def _load_all() -> None:
    seen: set[str] = set()
    tables: dict[Kind, dict[str, Any]] = {}
    for candidate in candidates():
        if candidate.module in seen:
            continue
        seen.add(candidate.module)
        tables = tables or _tables()
        plugin = _load(candidate, tables)
        _found.append(plugin)
        if plugin.error is not None:
            log.warning("%s", plugin.error)


def _tables() -> dict[Kind, dict[str, Any]]:
    """What `register` fills in each registry, with this project's own in it."""
    from explorer import references
    from explorer.backbones import registry
    from explorer.data import dataset

    return {
        "backbone": registry.shipped(),
        "reference": references.shipped(),
        "dataset": dataset.shipped(),
    }


def _load(candidate: Candidate, tables: dict[Kind, dict[str, Any]]) -> Plugin:
    before = {kind: dict(table) for kind, table in tables.items()}
    imported = candidate.module in sys.modules
    begun = time.perf_counter()
    facts: dict[str, Any] = {
        "name": candidate.name,
        "distribution": candidate.distribution,
        "version": candidate.version,
        "file": candidate.file,
    }
    try:
        # Standard output belongs to the command, which may print JSON there.
        with contextlib.redirect_stdout(sys.stderr):
            module = candidate.bring()
        facts["registered"] = {
            kind: tuple(
                name
                for name, entry in table.items()
                if name not in before[kind] or (imported and _made_by(entry, candidate.module))
            )
            for kind, table in tables.items()
        }
        if not any(facts["registered"].values()):
            raise PluginError("its import registers nothing")
        facts["file"] = Path(module.__file__) if module.__file__ else None
        facts["sha256"] = sha256_of(module)
    except (Exception, SystemExit) as error:
        for kind, table in tables.items():
            table.clear()
            table.update(before[kind])
        facts["registered"] = {}
        facts["error"] = PluginError(f"{candidate} is left out: {reason(error, candidate)}")
    return Plugin(**facts, seconds=time.perf_counter() - begun)


def _made_by(entry: Any, module: str) -> bool:
    """Whether an entry's function or class is of the package that a module is in."""
    maker = getattr(entry, "loader", None) or getattr(entry, "reference", None) or entry
    return str(maker.__module__).partition(".")[0] == module.partition(".")[0]
