"""Published weights of references: finding them on this machine, fetching them when asked."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from explorer.backbones._weights import VARIABLE, fetch, size_text
from explorer.errors import BackboneError, ReferenceError3D

if TYPE_CHECKING:
    from explorer.backbones._options import Source


def find(name: str, source: Source, *, also: tuple[str, ...] = ()) -> Path:
    """The folder with a reference's files: $EMERGE3D_WEIGHTS/NAME, else the hub's cache.

    Args:
        name: id of the reference.
        source: where its files are published. One of them is enough.
        also: further folders of $EMERGE3D_WEIGHTS that may hold them.

    Raises:
        ReferenceError3D: they are not here; says how to get them. Nothing is fetched.
    """
    root = os.environ.get(VARIABLE)
    for folder in (name, *also):
        if root and (Path(root) / folder).is_dir():
            return Path(root) / folder
    cached = _cached(source)
    if cached is not None:
        return cached
    raise ReferenceError3D(
        f"the weights of the reference {name} are not on this machine ({source.repo}, "
        f"{size_text(source.download_bytes)}): run `emerge3d references {name} --download`, or put "
        f"them into a folder {name} and set {VARIABLE} to the folder around it"
    )


def _cached(source: Source) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    for name in source.files:
        found = try_to_load_from_cache(source.repo, name)
        if isinstance(found, str):
            return Path(found).parent
    return None


def download(name: str, source: Source) -> Path:
    """Fetch the first of the files into the hub's cache; what is there already is kept.

    Args:
        name: of the folder in $EMERGE3D_WEIGHTS that would be found as well.
        source: where they are published.

    Raises:
        ReferenceError3D: no network, offline mode, or an unknown repository; with what to do.
    """
    then = f"name it {name} and set {VARIABLE} to the folder around it"
    try:
        return fetch(replace(source, files=source.files[:1]), then=then)
    except BackboneError as error:
        raise ReferenceError3D(str(error)) from None
