"""`emerge3d eval`: every probe on held-out scenes."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class Eval:
    """Compare probes with exact geometry on scenes that nothing was trained on."""

    suite: Literal["toy"] = "toy"
    """Which scenes: toy renders the test split of the procedural world."""
    clips: int | None = None
    """How many of them; 500 on a GPU, 16 on a processor."""
    cells: str | None = None
    """Which probes: backbone:layer:sigma,..., or all (on a GPU), or subset (on a processor): the
    best cell of every backbone, and the row and the column of toy-wan's map through its best."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    proxies: bool = False
    """Also compute the training-free proxies of 3D."""
    part: str = "1/1"
    """A part of the scenes, 2/4 for the second of four; join the results of all."""
    join: tuple[Path, ...] = ()
    """Results of all parts (--out of each): nothing is evaluated again."""
    out: Path | None = None
    """Write the result (JSON) there, with the values of every clip."""
    write: bool = False
    """Write it into the shipped probes' folder, where the page finds it."""
    json: bool = False
    """Print one JSON object on stdout instead of a table."""

    def run(self) -> int:
        """Evaluate, and print what was found."""
        from explorer.errors import EmergeError
        from explorer.evaluate import run_command
        from explorer.held_out import default_path

        if self.write and self.out is not None:
            raise EmergeError("--write and --out name two files: choose one")
        run_command(
            clips=self.clips,
            cells=self.cells,
            device=self.device,
            proxies=self.proxies,
            part=self.part,
            joined=self.join,
            out=default_path() if self.write else self.out,
            as_json=self.json,
            show=print,
            note=lambda text: print(text, file=sys.stderr, flush=True),
        )
        return 0
