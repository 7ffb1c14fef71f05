"""`emerge3d export`: one cell of one clip as files."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from explorer.commands.look import Look, progress

if TYPE_CHECKING:
    from explorer.look import Stage


@dataclass(frozen=True)
class Export(Look):
    """Look at a clip, and write what is found as point clouds, arrays, summary and recording."""

    out: Path | None = None
    """Folder to make. Default: one in this folder, named after clip, backbone, layer and sigma."""
    json: bool = False
    """Print one JSON object on stdout: the folder and its files. Logs go to stderr."""

    def run(self) -> int:
        """Look, write the folder, and print what is in it.

        Raises:
            EmergeError: bad input, or nothing can be written at `out`.
        """
        from explorer.export import export, file_stem
        from explorer.look import look
        from explorer.store import Store, default_root

        request = self._request()
        folder = self.out or Path(file_stem(self.clip.name, request))
        stages = look(request, store=Store(self.cache or default_root()))
        names = export(_told(stages), folder)
        if self.json:
            print(json.dumps({"folder": str(folder), "files": names}))
        else:
            print(f"wrote {folder}: {', '.join(names)}", file=sys.stderr)
        return 0


def _told(stages: Iterable[Stage]) -> Iterator[Stage]:
    """The stages, each with its line on stderr."""
    for stage in stages:
        line = progress(stage)
        if line is not None:
            print(line, file=sys.stderr)
        yield stage
