"""One pass of a sweep: all layers of one clip at one noise level, and what is read of them."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from explorer._machine import metric_threads
from explorer.backbones.base import stop_check
from explorer.correspondence import correspondence_summary
from explorer.errors import ComparisonError
from explorer.look.summary import forget_peak, peak_device_memory, peak_memory, to_json
from explorer.metric_names import GEOMETRY
from explorer.proxies import proxies_of

if TYPE_CHECKING:
    from explorer.features import Features
    from explorer.look.steps import Steps
    from explorer.reconstruction import Reconstruction
    from explorer.sweep.file import Row


def measure(
    steps: Steps, clip: str, layers: Sequence[int], sigma: float, seed: int, *, proxies: bool
) -> list[Row]:
    """The lines of a pass, one a layer; the backbone is asked once, or not at all where the store
    has all of these layers.

    Args:
        steps: decoded and prepared.
        clip: what the lines call it.
        layers: 0-based.
        sigma: fraction of noise.
        seed: of the noise.
        proxies: also compute the training-free proxies.

    Raises:
        EmergeError: the backbone, the reference or a probe's card cannot be used.
        Cancelled: the steps were stopped.
    """
    forget_peak(steps.device)
    found = steps.stored(layers, sigma, seed) or steps.extract(layers, sigma, seed)
    cached = {name: steps.cached[name] for name in ("latents", "features")}
    # The numpy metrics of a layer run beside the probe of the next where there are cores for it.
    pool = ThreadPoolExecutor(metric_threads(steps.device))
    try:
        waiting = []
        for layer in layers:
            stop_check(steps.should_stop)
            figures, full = _with_probe(steps, found[layer])
            size = steps.clip.size
            rest = pool.submit(_without_probe, found[layer], full, size, proxies)
            waiting.append((figures, rest))
        with steps.timed("metrics"):
            measured = [{**figures, **rest.result()} for figures, rest in waiting]
    finally:
        pool.shutdown(cancel_futures=True)
    seconds = {**steps.seconds, "total": sum(steps.seconds.values())}
    common = {
        "seconds": {name: round(value, 4) for name, value in seconds.items()},
        "peak_memory_bytes": peak_memory(),
        "peak_device_memory_bytes": peak_device_memory(steps.device),
        "cached": cached,
    }
    return [
        to_json(
            {**_cell(steps, clip, found[layer]), "sigma": sigma, "seed": seed, **figures, **common}
        )
        for layer, figures in zip(layers, measured, strict=True)
    ]


def _cell(steps: Steps, clip: str, features: Features) -> Row:
    return {
        "clip": clip,
        "backbone": steps.card.id,
        "layer": features.layer,
        "sigma": features.sigma,
        "seed": features.seed,
        "timestep": features.timestep,
        "official_index": features.official_index,
        "content_hash": steps.clip.content_hash,
        "backbone_hash": features.backbone_hash,
        "trained": features.provenance.get("trained"),
        "device_name": features.provenance.get("device_name"),
        "window": {
            "start": steps.request.start,
            "stride": steps.request.stride,
            "count": len(steps.clip.frames),
        },
    }


def _with_probe(steps: Steps, features: Features) -> tuple[dict[str, Any], Reconstruction | None]:
    """(what a probe reads out, held against the reference; the reference).

    `probe_note` says why there is a probe and it was not read; a cell without one has no note.
    """
    probe, prediction, why = steps.probe(features), None, None
    # What would neither be compared nor kept is not read.
    if probe is not None and (steps.keep or steps.geometry(features)[0] is not None):
        prediction, _, why = _result(steps.prediction(features))
    reference, full, note = steps.reference(features, prediction)
    report = None
    with steps.timed("comparison"):
        if prediction is not None and probe is not None and reference is not None:
            try:
                key = steps.prediction_key(probe, features)
                report = steps.report(key, prediction, reference)
            except ComparisonError as error:
                note = str(error)
    figures = {
        **{name: report and getattr(report, name) for name in GEOMETRY},
        "probe": probe and probe.sha256,
        "probe_note": why,
        "reference": full and steps.reference_id,
        "reference_note": note,
    }
    return figures, full


def _result(
    frames: Generator[Any, None, tuple[Reconstruction | None, Any, str | None]],
) -> tuple[Reconstruction | None, Any, str | None]:
    """What a generator returns; that its frames come one by one is for people who watch."""
    while True:
        try:
            next(frames)
        except StopIteration as done:
            return done.value


def _without_probe(
    features: Features, full: Reconstruction | None, size: tuple[int, int], proxies: bool
) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    if proxies:
        figures = proxies_of(features, full, size=size)
    elif full is not None:
        found = correspondence_summary(features, full, size=size)
        figures = {f"correspondence_{name}": value for name, value in found.items()}
    return {
        "correspondence_error_px": figures.pop("correspondence_error_px", None),
        "pck": figures.pop("correspondence_pck10", None),
        "nothing_moves_px": figures.pop("correspondence_nothing_moves_px", None),
        "feature_norm": token_norm(features),
        "proxies": figures if proxies else None,
    }


def token_norm(features: Features) -> float:
    """Mean length of the token features."""
    return float(np.linalg.norm(features.values.astype(np.float32), axis=-1).mean())
