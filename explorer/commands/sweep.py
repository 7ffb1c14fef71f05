"""`emerge3d sweep`: a whole layer x sigma table over many clips."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

import tyro

from explorer.errors import SweepError

if TYPE_CHECKING:
    from explorer.sweep import Failed, Measured, SweepRequest

FAILURES = 1
Number = TypeVar("Number", int, float)


@dataclass(frozen=True)
class Sweep:
    """Look at many cells of many clips in one go: clips, backbones, layers, noise levels, seeds.

    A sweep that was stopped goes on where it was when the same command is given again.
    """

    sources: tyro.conf.Positional[tuple[str, ...]]
    """Videos, folders of images, names of shipped clips, FOLDER::SCENE, or whole datasets."""
    out: Path
    """File of results, a line of JSON for each clip, cell and seed; the summary goes beside it."""
    backbone: str = "toy-wan"
    """One or more, with commas between; `emerge3d backbones` lists them."""
    layers: str = "all"
    """all, or numbers and ranges: 1,3,5 or 0-29:3; negative ones count from the end."""
    sigmas: str = "0.1,0.3,0.5"
    """Fractions of noise in [0, 1]."""
    seeds: str = "0"
    """Of the noise."""
    side: str | None = None
    """Of a dataset's split: only its scenes on this side, for instance test."""
    clips: int | None = None
    """So many scenes of each dataset. Default: all."""
    reference: str = "auto"
    """Who says what the true geometry is, "auto": whoever knows the clip, or "none"."""
    start: int | None = None
    """First source frame of the window. Default: 0."""
    stride: int | None = None
    """Every how many source frames one is taken. Default: such that the window takes a second."""
    count: int | None = None
    """How many frames are taken. Default: as many as the backbone takes."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Of the backbones' computation."""
    weights: Path | None = None
    """Folder of a published model. Default: EMERGE3D_WEIGHTS/ID, or the hub's cache."""
    offload: bool = False
    """Keep the model in host memory, one block at a time on the GPU."""
    vae_tiling: bool = False
    """Encode in overlapping tiles: less memory, other values at the seams."""
    vae_dtype: Literal["float32", "bfloat16"] = "float32"
    """Of a published model's video VAE."""
    prompt: str = ""
    """Text for models that take one."""
    compile: bool = False
    """Compile the model's blocks: a GPU's passes are faster by a sixth, after a slow first one."""
    probe: Path | None = None
    """Folder of probes that emerge3d train wrote. Default: shipped ones."""
    proxies: bool = True
    """Leave out the training-free proxies of 3D, which take longest on a large token grid."""
    keep: bool = False
    """Put features and predictions into the store, where looks find them."""
    map: Path | None = None
    """Write heatmaps of layers and noise levels there, a page (.html) that needs no network."""
    ray: str | None = None
    """Spread the work over a Ray cluster: auto, local, or its address."""
    cache: Path | None = None
    """Folder of the store. Default: the project's."""
    json: bool = False
    """Print the summary as one JSON object on stdout, progress on stderr."""

    def run(self) -> int:
        """Sweep, and print the tables; status 1 where a clip failed.

        Raises:
            EmergeError: bad input, or a file of another sweep.
        """
        from explorer.evaluate import check_writable, write, write_text
        from explorer.store import Store, default_root
        from explorer.sweep import Swept, sweep
        from explorer.sweep.table import maps, render_table

        if not self.out.name:
            raise SweepError(f"--out {self.out} is a folder: name a file in it")
        summary_path = self.out.with_suffix(".summary.json")
        if self.map in (self.out, summary_path):
            raise SweepError(f"--map {self.map} would take the place of results: name another file")
        for path in (summary_path, self.map):
            if path is not None:
                check_writable(path)
        store = Store(self.cache or default_root())
        try:
            for result in sweep(self._request(), self.out, store=store, ray=self.ray):
                if isinstance(result, Swept):
                    summary = result.summary
                else:
                    print(_progress(result), file=sys.stderr, flush=True)
        except KeyboardInterrupt:
            print(f"stopped; the same command goes on with {self.out}", file=sys.stderr)
            raise
        print(json.dumps(summary, allow_nan=False) if self.json else render_table(summary))
        write(summary_path, summary)
        if self.map is not None and summary["lines"]:
            write_text(self.map, maps(summary))
        return FAILURES if summary["failed"] else 0

    def _request(self) -> SweepRequest:
        from explorer.backbones._options import Target
        from explorer.sweep import SweepRequest

        target = Target(
            device=self.device,
            dtype=self.dtype,
            weights=self.weights,
            offload=self.offload,
            vae_tiling=self.vae_tiling,
            vae_dtype=self.vae_dtype,
            prompt=self.prompt,
            compile=self.compile,
        )
        return SweepRequest(
            sources=self.sources,
            backbones=tuple(word.strip() for word in self.backbone.split(",")),
            layers=self.layers,
            sigmas=_numbers("sigmas", self.sigmas, float),
            seeds=_numbers("seeds", self.seeds, int),
            side=self.side,
            clips=self.clips,
            reference=self.reference,
            start=self.start,
            stride=self.stride,
            count=self.count,
            target=target,
            probe=self.probe,
            proxies=self.proxies,
            keep=self.keep,
        )


def _numbers(option: str, text: str, kind: type[Number]) -> tuple[Number, ...]:
    try:
        return tuple(kind(word) for word in text.split(","))
    except ValueError:
        raise SweepError(f"--{option} {text!r}: give numbers with commas between") from None


def _progress(result: Measured | Failed) -> str:
    from explorer.sweep import Measured

    if isinstance(result, Measured):
        row = result.rows[0]
        seconds = row["seconds"]["total"]
        cell = f"{row['clip']} {row['backbone']} sigma {row['sigma']:g} seed {row['seed']}"
        return f"{result.done}/{result.of} {cell}, {len(result.rows)} layers, {seconds:.2f} s"
    of = "" if result.backbone is None else f" with {result.backbone}"
    return f"failed: {result.clip}{of}: {result.reason}"
