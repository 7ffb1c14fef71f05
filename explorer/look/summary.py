"""The last word of a look: one JSON object with metrics, timings and provenance."""

from __future__ import annotations

import math
import resource
import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from explorer import plugins
from explorer.backbones import registry
from explorer.look.cache import versions

if TYPE_CHECKING:
    from explorer.clip import Clip
    from explorer.features import Features
    from explorer.look.stages import LookRequest
    from explorer.probe.checkpoint import ProbeCard
    from explorer.reconstruction import Reconstruction
    from explorer.report import Report


def summarize(
    request: LookRequest,
    *,
    clip: Clip,
    features: Features,
    device: str,
    probe: ProbeCard | None,
    probe_note: str | None,
    reference: Reconstruction | None,
    reference_note: str | None,
    reference_consistency: dict[str, Any] | None,
    judged: dict[str, Any],
    judge_note: str | None,
    report: Report | None,
    correspondence: dict[str, Any] | None,
    seconds: dict[str, float],
    cached: dict[str, bool | None],
) -> dict[str, Any]:
    """What `emerge3d look --json` prints. Numbers that are not known are None, never NaN."""
    found = correspondence or {}
    summary = {
        "point_error": report and report.point_error,
        "depth_error": report and report.depth_error,
        "auc5": report and report.auc5,
        "auc30": report and report.auc30,
        "correspondence_error_px": found.get("error_px"),
        "pck": found.get("pck"),
        "correspondence": correspondence,
        "alignment": report
        and {
            "scale": report.alignment.scale,
            "rotation": report.alignment.rotation,
            "translation": report.alignment.translation,
        },
        "depth_scale": report and report.depth_scale,
        "per_frame": report and report.per_frame,
        "reference_consistency": reference_consistency,
        **judged,
        "seconds": {name: round(value, 4) for name, value in seconds.items()},
        "peak_memory_bytes": peak_memory(),
        "peak_device_memory_bytes": peak_device_memory(device),
        "cached": cached,
        "notes": [note for note in (probe_note, reference_note, judge_note) if note],
        "provenance": {
            "clip": _clip(request, clip),
            **_cell(features),
            "device": device,
            "device_name": features.provenance.get("device_name"),
            "dtype": request.dtype,
            "compiled": request.compile,
            "probe": probe
            and {"sha256": probe.sha256, "steps": probe.steps, "trained": probe.trained},
            "reference": reference
            and {"id": request.reference, "source": reference.source, **reference.provenance},
            "versions": versions(),
        },
    }
    return {name: to_json(value) for name, value in summary.items()}


def _clip(request: LookRequest, clip: Clip) -> dict[str, Any]:
    return {
        "name": clip.name,
        "content_hash": clip.content_hash,
        "source_hash": clip.source_hash,
        "window": {"start": request.start, "stride": request.stride, "count": len(clip.frames)},
        "size": clip.frames.shape[1:3],
        "fit": clip.fit,
        "crop": clip.crop,
        "source_size": clip.source_size,
    }


def _cell(features: Features) -> dict[str, Any]:
    return {
        "backbone": {
            "id": features.backbone,
            "kind": registry.card(features.backbone).kind,
            "hash": features.backbone_hash,
            "trained": features.provenance.get("trained"),
            **plugins.provenance("backbone", features.backbone),
        },
        "layer": features.layer,
        "sigma": features.sigma,
        "timestep": features.timestep,
        "official_index": features.official_index,
        "seed": features.seed,
    }


def to_json(value: Any) -> Any:
    """The value in JSON's own types: arrays become lists, numbers that are not finite None."""
    if isinstance(value, dict):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(item) for item in value]
    if isinstance(value, (np.ndarray, np.generic)):
        return to_json(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def peak_memory() -> int:
    """Most bytes of main memory that this process has held so far."""
    unit = 1 if sys.platform == "darwin" else 1024  # getrusage counts bytes there, kilobytes here
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def peak_device_memory(device: str) -> int | None:
    """Most bytes that torch has held on a GPU so far; None on the CPU."""
    if not device.startswith("cuda"):
        return None
    import torch

    return int(torch.cuda.max_memory_allocated(device))


def forget_peak(device: str) -> None:
    """Count `peak_device_memory` from here; nothing on the CPU, whose peak the system keeps."""
    if device.startswith("cuda"):
        import torch

        if torch.cuda.is_initialized():  # else there is nothing to forget, and torch would raise
            torch.cuda.reset_peak_memory_stats(device)
