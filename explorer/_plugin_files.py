"""Where plugins are looked for, how one is imported, and what identifies it."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib
import importlib.util
import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType

from explorer.errors import PluginError

GROUP = "emerge3d.plugins"
VARIABLE = "EMERGE3D_PLUGINS"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Candidate:
    """A plugin before its import.

    Attributes:
        name: of the entry point, the file or the module.
        module: name that it has once it is imported.
        bring: imports it.
        distribution, version: of the installed package that names it.
        file: that the variable names.
    """

    name: str
    module: str
    bring: Callable[[], ModuleType]
    distribution: str | None = None
    version: str | None = None
    file: Path | None = None

    def __str__(self) -> str:
        """Name and origin, for messages."""
        if self.distribution is not None:
            return f"plugin {self.name!r} of the package {self.distribution} {self.version}"
        return f"plugin {self.name!r} of {VARIABLE}" + (f" ({self.file})" if self.file else "")


@contextlib.contextmanager
def without_current_folder() -> Iterator[None]:
    """The search path as the installed command has it: `python -m` puts the current folder first.

    What lies there by chance would be a plugin, or be taken for an installed one of its name. Where
    the folder was put on the path by an installer or PYTHONPATH too, that entry stays.
    """
    first = [""]
    if getattr(sys.modules["__main__"], "__spec__", None) is not None:
        first.append(os.getcwd())
    removed = sorted(sys.path.index(each) for each in first if each in sys.path)
    entries = [(index, sys.path[index]) for index in removed]
    for index in reversed(removed):
        del sys.path[index]
    try:
        yield
    finally:
        for index, entry in entries:
            sys.path.insert(index, entry)


def candidates() -> Iterator[Candidate]:
    """Installed ones by the names of their packages, then the variable's in its order."""
    yield from sorted(_installed(), key=lambda each: (each.distribution or "", each.name))
    for item in map(str.strip, os.environ.get(VARIABLE, "").split(os.pathsep)):
        if item.endswith(".py"):
            yield _file(item)
        elif item:
            yield Candidate(item, item, functools.partial(importlib.import_module, item))


def _installed() -> Iterator[Candidate]:
    """Entry points of installed packages; the first of a name on the search path counts."""
    seen: set[str] = set()
    for package in metadata.distributions():
        try:
            points = package.entry_points.select(group=GROUP)
        except Exception as error:  # damaged metadata of a package that may have no plugin at all
            log.debug("entry points cannot be read: %s", error)
            continue
        if not points or package.name in seen:
            continue
        seen.add(package.name)
        for point in points:
            bring = functools.partial(importlib.import_module, point.module)
            yield Candidate(point.name, point.module, bring, package.name, package.version)


class _Source(SourceFileLoader):
    """Compiles what is in the file now, not what was compiled from a text of the same second."""

    def get_code(self, fullname: str) -> CodeType:
        code: CodeType = self.source_to_code(self.get_data(self.path), self.path)
        return code


def _file(item: str) -> Candidate:
    path = Path(item).expanduser().absolute()
    name = f"{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"

    def bring() -> ModuleType:
        if not path.is_file():
            raise PluginError("there is no such file")
        spec = importlib.util.spec_from_file_location(name, path, loader=_Source(name, str(path)))
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # dataclasses and type hints look their module up
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
        return module

    return Candidate(path.name, name, bring, file=path)


def sha256_of(module: ModuleType) -> str | None:
    """Of a module's file, or of all `.py` files of the package that it is in; None without one."""
    from explorer.backbones.base import hash_files

    if module.__file__ is None:
        return None
    file = Path(module.__file__)
    if module.__package__:
        return hash_files(sorted(file.parent.rglob("*.py")))
    return hashlib.sha256(file.read_bytes()).hexdigest()


def reason(error: BaseException, candidate: Candidate) -> str:
    """What went wrong, and at which line outside this project."""
    if isinstance(error, PluginError):
        return str(error)
    said = f"{type(error).__name__}: {error}"
    if isinstance(error, ModuleNotFoundError) and error.name == candidate.module:
        near = Path(f"{candidate.module}.py")
        hint = f"; the current folder is not searched: name the file, {near}"
        return said + (hint if near.is_file() else "")
    frames = traceback.extract_tb(error.__traceback__)
    homes = [Path(frame.filename).parent for frame in frames if frame.name == "<module>"]
    home = homes[0] if homes else None
    # Libraries that the plugin calls say nothing of it.
    lines = [
        f"{Path(frame.filename).name}, line {frame.lineno}"
        for frame in frames
        if home in Path(frame.filename).parents
    ]
    return f"{said} ({lines[-1]})" if lines else said
