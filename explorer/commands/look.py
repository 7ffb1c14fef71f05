"""`emerge3d look`: one cell of one clip."""

from __future__ import annotations

import json
import sys
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro

from explorer.errors import EmergeError
from explorer.metric_names import METRIC_NAMES, NOTHING_MOVES

if TYPE_CHECKING:
    from explorer.look import LookRequest, Stage
    from explorer.recording import Recording


DONE = {
    "Decoded": "clip decoded",
    "LatentsReady": "latents",
    "FeaturesReady": "features",
    "FramePredicted": "geometry of frame {stage.frame}",
    "Predicted": None,  # its frames have been named
    "Referenced": "reference asked",
    "Judged": "second judge asked",
    "Compared": "compared",
    "Finished": None,  # the summary follows
}
UNDISPUTED = {"point error": "point_error", "depth error": "depth_error"}


@dataclass(frozen=True)
class Look:
    """Look at a clip: features of one layer at one noise level, read out in 3D."""

    clip: tyro.conf.Positional[Path]
    """Video (mp4, mov), folder of images, name of a shipped clip, or dataset (FOLDER::SCENE)."""
    backbone: str = "toy-wan"
    """Which model; `emerge3d backbones` lists them."""
    layer: int | None = None
    """0-based block; negative counts from the end. Default: the backbone's own."""
    sigma: float | None = None
    """Fraction of noise in [0, 1]. Default: the backbone's own."""
    reference: str = "auto"
    """Who says what the true geometry is, "auto": whoever knows the clip, or "none";
    `emerge3d references` lists them."""
    judge: str = "none"
    """A second reference: where it disagrees with the first, and the errors without that."""
    seed: int = 0
    """Seed of the noise."""
    start: int | None = None
    """First source frame of the window. Default: 0."""
    stride: int | None = None
    """Every how many source frames one is taken. Default: such that the window takes a second."""
    count: int | None = None
    """How many frames are taken. Default: as many as the backbone takes."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Of the backbone's computation."""
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
    """Folder of probes that emerge3d train wrote, or one of their cards. Default: shipped ones."""
    out: Path | None = None
    """Write a Rerun recording (.rrd) there."""
    cache: Path | None = None
    """Folder of the store. Default: the project's."""
    json: bool = False
    """Print one JSON object on stdout, logs on stderr."""

    def run(self) -> int:
        """Look, and print what was found.

        Raises:
            EmergeError: bad input, or nothing can be written at `out`.
        """
        from explorer.look import Finished, look
        from explorer.store import Store, default_root

        request = self._request()
        to_file = nullcontext() if self.out is None else _recording(self.clip.name, self.out)
        summary: dict[str, Any] = {}
        with to_file as recording:
            for stage in look(request, store=Store(self.cache or default_root())):
                line = progress(stage)
                if line is not None:
                    print(line, file=sys.stderr)
                if recording is not None:
                    recording.on_stage(stage)
                if isinstance(stage, Finished):
                    summary = stage.summary
        chosen = None not in (self.start, self.stride, self.count)
        print(json.dumps(summary, allow_nan=False) if self.json else table(summary, chosen=chosen))
        return 0

    def _request(self) -> LookRequest:
        """What is asked, with what nobody has chosen: the backbone's own cell, a fitting window."""
        from explorer.backbones import registry
        from explorer.backbones._options import Target
        from explorer.look import LookRequest
        from explorer.source import open_source
        from explorer.window import suggested_window

        card = registry.fitting_card(self.backbone, Target(weights=self.weights))
        layer, sigma = card.default_cell
        window = suggested_window(
            open_source(self.clip).info(),
            card,
            start=self.start,
            stride=self.stride,
            count=self.count,
        )
        return LookRequest(
            path=self.clip,
            backbone=self.backbone,
            layer=layer if self.layer is None else self.layer,
            sigma=sigma if self.sigma is None else self.sigma,
            seed=self.seed,
            reference=self.reference,
            judge=self.judge,
            start=window.start,
            stride=window.stride,
            count=window.count,
            device=self.device,
            dtype=self.dtype,
            weights=self.weights,
            offload=self.offload,
            vae_tiling=self.vae_tiling,
            vae_dtype=self.vae_dtype,
            prompt=self.prompt,
            compile=self.compile,
            probe=self.probe,
        )


def _recording(name: str, path: Path) -> Recording:
    from explorer.recording import Recording

    try:
        return Recording(name, path=path)
    except OSError as error:
        raise EmergeError(
            f"no recording can be written at {path} ({error}): choose another --out"
        ) from error


def progress(stage: Stage) -> str | None:
    """A line on what is done; None where a look had nothing to do there."""
    said = DONE[type(stage).__name__]
    if said is None or getattr(stage, "reason", None) or getattr(stage, "cached", False) is None:
        return None
    stored = " (from the store)" if getattr(stage, "cached", False) else ""
    return f"{stage.seconds:8.2f} s  {said.format(stage=stage)}{stored}"


def table(summary: dict[str, Any], *, chosen: bool = True) -> str:
    """The summary for people: metrics, then what was slow, then what is missing.

    Args:
        summary: of a look.
        chosen: whether the whole window was given and none of it suggested.
    """
    source = summary["provenance"]
    matches = summary["correspondence"] or {}
    chance = source["backbone"]["trained"] is False and source["backbone"]["kind"] != "control"
    trained = ", untrained weights" if chance else ""
    alignment = summary["alignment"]
    rows = [
        ("clip", source["clip"]["name"]),
        ("window", _window(source["clip"]["window"]) + ("" if chosen else " (suggested)")),
        ("backbone", f"{source['backbone']['id']}{trained}"),
        ("layer", str(source["layer"])),
        (
            "sigma",
            f"{source['sigma']:g} (timestep {source['timestep']:g}, "
            f"official index {source['official_index']})",
        ),
        ("device", f"{source['device']}, {source['dtype']}"),
        *((name, _number(summary[key])) for key, name in METRIC_NAMES.items()),
        (NOTHING_MOVES, _number(matches.get("nothing_moves_px"))),
        *_consistency(summary["reference_consistency"]),
        *_judged(summary),
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


def _consistency(found: dict[str, Any] | None) -> list[tuple[str, str]]:
    """How far the reference agrees with itself; nothing of one that cannot be asked."""
    if found is None or found["mean"] is None:
        return []
    said = f"{found['mean']:.1%} of the pixels that several frames see agree"
    if found["low"]:
        said += ": something moves, or the reference is wrong; errors against it mean little there"
    return [("reference with itself", said)]


def _judged(summary: dict[str, Any]) -> list[tuple[str, str]]:
    """What a second judge disputes, and the errors without that; nothing without one."""
    found, rest = summary["agreement"], summary["undisputed"]
    if found is None:
        return []
    rows = [
        (
            "disputed pixels",
            f"{found['share']:.1%} of {found['pixels']} that {found['judge']} knows too, "
            f"off by more than {found['threshold']:.2f}",
        )
    ]
    if rest is not None:
        rows += [(f"undisputed {name}", _number(rest[key])) for name, key in UNDISPUTED.items()]
    return rows


def _window(window: dict[str, int]) -> str:
    start, stride, count = window["start"], window["stride"], window["count"]
    last = start + (count - 1) * stride
    if count == 1:
        return f"frame {start}"
    return f"{count} frames, {start} to {last}, stride {stride}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
