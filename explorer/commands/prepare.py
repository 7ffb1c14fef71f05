"""`emerge3d prepare`: a training set of clips with reference geometry."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from explorer.errors import DatasetError

if TYPE_CHECKING:
    from explorer.data.prepared.make import Step


@dataclass(frozen=True)
class Prepare:
    """Make a training set: frames, reference geometry, confidence and cameras of many scenes.

    Stop it whenever you like: the same command goes on where it was.
    """

    dataset: tyro.conf.Positional[str]
    """Which layout the folder has, e.g. co3d, videos; auto recognises it."""
    folder: tyro.conf.Positional[Path]
    """The dataset as it was downloaded, or a part of it."""
    out: Path
    """Folder of the training set."""
    reference: str = "vggt"
    """Who says what the geometry is."""
    frames: int = 81
    """Of each clip."""
    stride: int = 1
    """Every how many frames of the scene one is taken."""
    size: tuple[int, int] = (294, 518)
    """Height and width that the reference sees: the largest centred part of this shape."""
    scale: float = 2.0
    """Keep pictures up to so many times as large, as far as the source has pixels."""
    quality: int = 95
    """Of the pictures: JPEG 1 to 100."""
    lossless: bool = False
    """Keep pictures as PNG."""
    only: tuple[str, ...] = ()
    """Only these scenes, or those whose names begin with these folders. Of co3d also official (its
    51 categories) and ablation (the 11 of the published ablations)."""
    limit: int | None = None
    """Only the first scenes, this many."""
    split_seed: int | None = None
    """Which places train and which test, where the dataset does not say; 0 at first. Another one
    divides what is there anew, without preparing it again."""
    by_place: bool = False
    """Nine of ten places train, whatever sides the dataset has of its own."""
    retry: bool = False
    """Try scenes again that failed before."""
    shard_mb: int = 1024
    """A file of the training set ends before it is larger."""
    verify: bool = False
    """Prepare nothing; read every byte of what is there and say whether it is whole."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N: where the reference's network runs."""
    json: bool = False
    """Print one JSON object on stdout, progress on stderr."""

    def run(self) -> int:
        """Prepare what is missing.

        Raises:
            EmergeError: bad input, nothing can be written, or every scene failed.
        """
        if self.verify:
            return self._verify()
        from explorer.backbones import registry
        from explorer.data.dataset import open_dataset
        from explorer.data.prepared.codes import LOSSLESS
        from explorer.data.prepared.make import prepare
        from explorer.data.prepared.manifest import Settings, read_manifest

        dataset = open_dataset(None if self.dataset == "auto" else self.dataset, self.folder)
        if self.only:
            dataset.keep(self.only)
        settings = Settings(
            dataset=dataset.card.id,
            reference=self.reference,
            frames=self.frames,
            stride=self.stride,
            size=self.size,
            scale=self.scale,
            quality=LOSSLESS if self.lossless else self.quality,
        )
        with progress(len(dataset.entries[: self.limit])) as on_step:
            summary = prepare(
                dataset,
                self.out,
                settings,
                limit=self.limit,
                device=registry.resolve_device(self.device),
                split_seed=self.split_seed,
                by_place=self.by_place,
                retry=self.retry,
                shard_bytes=self.shard_mb << 20,
                on_step=on_step,
            )
        failed = read_manifest(self.out).failed
        if not summary["prepared"]:
            name, reason = next(iter(failed.items()), ("it", "there is no scene"))
            raise DatasetError(f"no scene could be prepared; {name}: {reason}")
        if self.json:
            print(json.dumps({**summary, "failures": failed}, allow_nan=False))
        else:
            print(table(summary, failed, self.out))
        return 0

    def _verify(self) -> int:
        from explorer.data.readers.prepared import open_prepared

        store = open_prepared(self.out)
        store.verify()
        if self.json:
            print(json.dumps({"prepared": len(store), "whole": True}))
        else:
            print(f"all {len(store)} clips of {self.out} are as they were written")
        return 0


@contextmanager
def progress(total: int) -> Iterator[Callable[[Step], None]]:
    """A bar on a terminal, a line for each scene elsewhere; failures are said in both."""

    def text(step: Step) -> str:
        if step.failed is not None:
            return f"{step.scene} failed: {step.failed}"
        return f"{step.scene} {step.seconds:.1f} s, {step.bytes / 1e6:.1f} MB"

    if not sys.stderr.isatty():
        yield lambda step: print(
            f"{step.done}/{step.total} {text(step)}", file=sys.stderr, flush=True
        )
        return
    from tqdm import tqdm

    with tqdm(total=total, unit="scene", file=sys.stderr) as bar:

        def show(step: Step) -> None:
            if step.failed is not None:
                bar.write(text(step), file=sys.stderr)
            bar.initial = bar.initial or step.done - 1  # scenes of earlier runs took no time
            bar.n = step.done
            bar.set_postfix_str(step.scene, refresh=False)
            bar.refresh()

        yield show


def table(summary: dict[str, Any], failed: dict[str, str], out: Path) -> str:
    """The summary for people."""
    lost = summary["precision"]
    psnr = lost["picture_psnr_db"]
    sides = ", ".join(f"{count} {side}" for side, count in summary["split"]["sides"].items())
    if not any(count for side, count in summary["split"]["sides"].items() if side != "train"):
        sides += "; nothing is held out: another --split-seed may do so"
    loss = "without loss" if psnr is None else f"at least {psnr:.1f} dB PSNR"
    clips = summary["prepared"]
    sizes = ", ".join(f"{height}x{width}" for height, width in summary["picture_sizes"])
    rows = [
        ("prepared", f"{clips} scenes in {out}"),
        ("failed", f"{summary['failed']}"),
        ("size", f"{summary['bytes'] / 1e6:.1f} MB, {summary['bytes'] / clips / 1e6:.1f} MB each"),
        ("depth", f"relative error at most {lost['depth_error']:.1e}"),
        ("confidence", f"relative error at most {lost['confidence_error']:.1e}"),
        ("pictures", f"{sizes}, {loss}"),
        ("split", f"{summary['split']['sha256'][:12]}: {sides}"),
        *((f"  {name}", reason) for name, reason in failed.items()),
    ]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)
