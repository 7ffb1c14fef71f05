"""`emerge3d look`: one cell of one clip."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

if TYPE_CHECKING:
    from explorer.look import Stage


@dataclass(frozen=True)
class Look:
    """Look at a clip: features of one layer at one noise level, read out in 3D."""

    clip: tyro.conf.Positional[Path]
    """Video (mp4, mov) or folder of images."""
    backbone: str = "toy-wan"
    """Which model; `emerge3d backbones` lists them."""
    layer: int | None = None
    """0-based block; negative counts from the end. Default: the backbone's own."""
    sigma: float | None = None
    """Fraction of noise in [0, 1]. Default: the backbone's own."""
    reference: str = "exact"
    """Who knows the true geometry, or "none"."""
    seed: int = 0
    """Seed of the noise."""
    start: int = 0
    """First source frame of the window."""
    stride: int = 1
    """Every how many source frames one is taken."""
    count: int = 17
    """How many frames are taken."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    dtype: str = "float32"
    """Of the backbone's computation: float32, bfloat16 or float16."""
    out: Path | None = None
    """Write a Rerun recording (.rrd) there."""
    cache: Path | None = None
    """Folder of the store. Default: the project's."""
    json: bool = False
    """Print one JSON object on stdout, logs on stderr."""

    def run(self) -> int:
        """Look, and print what was found."""
        from explorer.backbones import registry
        from explorer.look import Finished, LookRequest, look
        from explorer.store import Store, default_root

        layer, sigma = registry.card(self.backbone).default_cell
        request = LookRequest(
            path=self.clip,
            backbone=self.backbone,
            layer=layer if self.layer is None else self.layer,
            sigma=sigma if self.sigma is None else self.sigma,
            seed=self.seed,
            reference=self.reference,
            start=self.start,
            stride=self.stride,
            count=self.count,
            device=self.device,
            dtype=self.dtype,
        )
        recording = None
        if self.out is not None:
            from explorer.recording import Recording

            recording = Recording(self.clip.name, path=self.out)
        summary: dict[str, Any] = {}
        try:
            for stage in look(request, store=Store(self.cache or default_root())):
                print(_progress(stage), file=sys.stderr)
                if recording is not None:
                    recording.on_stage(stage)
                if isinstance(stage, Finished):
                    summary = stage.summary
        except BaseException:
            if recording is not None:
                recording.discard()
            raise
        if recording is not None:
            recording.close()
        print(json.dumps(summary, allow_nan=False) if self.json else table(summary))
        return 0


def _progress(stage: Stage) -> str:
    name = type(stage).__name__
    slot = getattr(stage, "slot", None)
    cached = " (cached)" if getattr(stage, "cached", False) else ""
    return f"{stage.seconds:8.2f} s  {name}{'' if slot is None else f' {slot}'}{cached}"


def table(summary: dict[str, Any]) -> str:
    """The summary for people: metrics, then what was slow, then what is missing."""
    source = summary["provenance"]
    chance = source["backbone"]["trained"] is False and source["backbone"]["kind"] != "control"
    trained = ", untrained weights" if chance else ""
    alignment = summary["alignment"]
    rows = [
        ("clip", f"{source['clip']['name']}, {source['clip']['window']['count']} frames"),
        ("backbone", f"{source['backbone']['id']}{trained}"),
        ("layer", str(source["layer"])),
        (
            "sigma",
            f"{source['sigma']:g} (timestep {source['timestep']:g}, "
            f"official index {source['official_index']})",
        ),
        ("device", f"{source['device']}, {source['dtype']}"),
        ("point error", _number(summary["point_error"])),
        ("depth error", _number(summary["depth_error"])),
        ("AUC@5", _number(summary["auc5"])),
        ("AUC@30", _number(summary["auc30"])),
        ("correspondence", f"{_number(summary['correspondence_error_px'])} px"),
        ("PCK", _number(summary["pck"])),
        ("alignment", "-" if alignment is None else f"scale {alignment['scale']:.4f}"),
        ("seconds", ", ".join(f"{name} {value:.2f}" for name, value in summary["seconds"].items())),
        (
            "from the store",
            ", ".join(n for n, hit in summary["cached"].items() if hit) or "nothing",
        ),
        ("peak memory", f"{summary['peak_memory_bytes'] / 2**20:.0f} MiB"),
        *(("note", note) for note in summary["notes"]),
    ]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
