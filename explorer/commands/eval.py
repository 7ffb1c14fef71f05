"""`emerge3d eval`: every probe on held-out scenes."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class Eval:
    """Compare probes with exact geometry on scenes that nothing was trained on."""

    suite: Literal["toy"] = "toy"
    """Which scenes: toy renders the test split of the procedural world."""
    data: Path | None = None
    """Instead of a suite: what emerge3d prepare made; a side that is held out is evaluated."""
    side: str | None = None
    """Of prepared data: test or validation. Default: test where there is one."""
    probe: Path | None = None
    """Folder of probes that emerge3d train wrote. Default: the shipped ones."""
    features: Path | None = None
    """Folder where features of prepared data are kept. Default: in the project's store."""
    clips: int | None = None
    """How many of them; 500 on a GPU, 16 on a processor; 64 of prepared data."""
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
        if self.data is not None:
            return self._prepared(self.data)
        if (self.probe, self.features, self.side) != (None, None, None):
            raise EmergeError("--probe, --features and --side belong to --data")
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
            note=note,
        )
        return 0

    def _prepared(self, data: Path) -> int:
        from explorer import evaluate
        from explorer.backbones import registry
        from explorer.backbones._options import Target
        from explorer.data.readers.prepared import open_prepared
        from explorer.errors import EmergeError
        from explorer.evaluate.prepared import evaluate_prepared
        from explorer.evaluate.table import render_table
        from explorer.store import default_root

        if self.write:
            raise EmergeError("--write is for the shipped probes' own scenes: give --out")
        if self.proxies or self.part != "1/1" or self.join:
            raise EmergeError("--proxies, --part and --join do not go with --data: leave them out")
        if self.out is not None:
            evaluate.check_writable(self.out)
        result = evaluate_prepared(
            evaluate.parse_cells(self.cells or "all", root=self.probe),
            open_prepared(data),
            target=Target(device=registry.resolve_device(self.device)),
            features=self.features or default_root() / "training",
            side={"validation": "val"}.get(self.side or "", self.side),
            clips=self.clips or 64,
            on_cell=lambda cell, scenes: note(f"{cell}, {scenes} scenes"),
            on_scene=lambda done, total, name: note(f"features {done}/{total} {name}"),
        )
        print(json.dumps(result, allow_nan=False) if self.json else render_table(result))
        if self.out is not None:
            evaluate.write(self.out, result)
        return 0


def note(text: str) -> None:
    """Say something beside the result."""
    print(text, file=sys.stderr, flush=True)
