"""Files of one look for download: the Rerun recording and the JSON that the command line prints."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

from app.looks import Look
from explorer.errors import EmergeError
from explorer.export import file_stem
from explorer.recording import Recording

KEPT = 8
"""Exports that stay on disk before Gradio's own copy is all that is left."""


def stem(look: Look) -> str:
    """A file name that says which cell of which clip it is."""
    return file_stem("clip" if look.clip is None else look.clip.name, look.request)


def recording(look: Look, folder: Path) -> Path:
    """Write the look as .rrd into a new folder inside `folder`.

    Raises:
        EmergeError: there is nothing to write yet.
    """
    if not look.stages:
        raise EmergeError("there is no look to export yet: press Run first")
    path = _new(folder) / f"{stem(look)}.rrd"
    with Recording(stem(look), path=path) as written:
        for stage in look.stages:
            written.on_stage(stage)
    return path


def summary(look: Look, folder: Path) -> Path:
    """Write the summary as .json into a new folder inside `folder`.

    Raises:
        EmergeError: the look has not finished.
    """
    if look.summary is None:
        raise EmergeError("there is no finished look to export yet: press Run first")
    path = _new(folder) / f"{stem(look)}.json"
    path.write_text(json.dumps(look.summary, indent=2) + "\n", encoding="utf-8")
    return path


def _new(folder: Path) -> Path:
    """A new folder with an unguessable name; Gradio serves a copy, so old ones can go."""
    folder.mkdir(parents=True, exist_ok=True)
    made = sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime)
    for old in made[: max(0, len(made) - KEPT + 1)]:
        shutil.rmtree(old, ignore_errors=True)
    return Path(tempfile.mkdtemp(dir=folder))
