"""How latents, features and reconstructions of a look go into the store and come back."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from importlib import metadata
from typing import TYPE_CHECKING, Any

import numpy as np

from explorer import plugins
from explorer.backbones.base import hash_arrays
from explorer.camera import Cameras
from explorer.features import Features
from explorer.metric_names import GEOMETRY
from explorer.reconstruction import Reconstruction
from explorer.report import Alignment, Report

if TYPE_CHECKING:
    from explorer.backbones.base import BackboneCard, Hashes
    from explorer.clip import Clip
    from explorer.references.agreement import Agreement
    from explorer.store import Store

_NUMBERS = (*GEOMETRY, "depth_scale")
LAYOUT = 3  # part of every key: raise it when what is stored, or how it is computed, changes


@functools.cache
def versions() -> dict[str, str | None]:
    """Installed versions of what may change the last bits, and of this project."""
    found: dict[str, str | None] = {}
    for name in ("torch", "diffusers", "transformers", "emerge3d"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    if found["emerge3d"] is None:
        from explorer import __version__

        found["emerge3d"] = __version__
    return found


def clip_key(clip: Clip) -> dict[str, Any]:
    """What determines a clip: source bytes and window, and the pixels that came out of them.

    Decoders and resizers of different versions may disagree in the pixels.
    """
    pixels = hashlib.sha256(np.ascontiguousarray(clip.frames).data).hexdigest()
    return {"layout": LAYOUT, "clip": clip.content_hash, "pixels": pixels}


def latents_key(
    clip: dict[str, Any], card: BackboneCard, hashes: Hashes, device: str
) -> dict[str, Any]:
    """What determines latents: no layer, sigma, seed or dtype (the VAE runs in float32)."""
    return {
        **clip,
        "encoder": hashes.encoder,
        "input_size": list(card.input_size),
        "device": device_type(device),
        "torch": versions()["torch"],
        "diffusers": versions()["diffusers"],
        **plugins.key("backbone", card.id),
    }


def features_key(
    clip: dict[str, Any],
    card: BackboneCard,
    hashes: Hashes,
    *,
    layer: int,
    sigma: float,
    seed: int,
    device: str,
    dtype: str,
    compiled: bool = False,
) -> dict[str, Any]:
    """What determines features."""
    return {
        **clip,
        "backbone": card.id,
        "hash": hashes.weights,
        "layer": layer,
        "sigma": float(sigma),
        "seed": seed,
        "device": device_type(device),
        "dtype": dtype,
        "torch": versions()["torch"],
        "diffusers": versions()["diffusers"],
        "transformers": versions()["transformers"],
        **({"compiled": True} if compiled else {}),
        **plugins.key("backbone", card.id),
    }


def prediction_key(features: dict[str, Any], probe: str) -> dict[str, Any]:
    """What determines a probe's reconstruction: its features and its weights."""
    return {**features, "probe": probe}


def report_key(prediction: dict[str, Any], reference: Reconstruction) -> dict[str, Any]:
    """What determines a comparison: a stored prediction, and the reference's own arrays."""
    return {**prediction, "reference": reconstruction_hash(reference)}


def agreement_key(first: Reconstruction, second: Reconstruction) -> dict[str, Any]:
    """What determines the comparison of two references: the arrays of both."""
    return report_key({"layout": LAYOUT, "first": reconstruction_hash(first)}, second)


def reconstruction_hash(found: Reconstruction) -> str:
    """Of the arrays and the name of who made them."""
    cameras = found.cameras
    named = {
        "frames": found.frames,
        "depth": found.depth,
        "points": found.points,
        "confidence": found.confidence,
        "cam_from_world": cameras.cam_from_world,
        "intrinsics": cameras.intrinsics,
    }
    return hash_arrays(sorted(named.items()), found.source)


def get_report(store: Store, key: dict[str, Any]) -> Report | None:
    """Stored comparison, or None."""
    found = store.get("report", key)
    if found is None:
        return None
    arrays, meta = found
    numbers = dict(zip(_NUMBERS, arrays["numbers"].tolist(), strict=True))
    scale, *rest = arrays["alignment"].tolist()
    rotation, translation = np.reshape(rest[:9], (3, 3)), np.array(rest[9:])
    per_frame = [dict(zip(meta["columns"], row, strict=True)) for row in arrays["rows"].tolist()]
    return Report(
        **numbers,
        alignment=Alignment(scale, rotation, translation),
        point_error_map=arrays["point_error_map"],
        depth_error_map=arrays["depth_error_map"],
        per_frame=per_frame,
        provenance=meta["provenance"],
    )


def put_report(store: Store, key: dict[str, Any], found: Report) -> None:
    """Store a comparison. Numbers are kept as arrays: some are NaN, which JSON has no word for."""
    alignment = found.alignment
    columns = list(found.per_frame[0])
    arrays = {
        "numbers": np.array([getattr(found, name) for name in _NUMBERS], dtype=np.float64),
        "alignment": np.concatenate(
            [[alignment.scale], alignment.rotation.ravel(), alignment.translation]
        ).astype(np.float64),
        "rows": np.array([[row[name] for name in columns] for row in found.per_frame]),
        "point_error_map": found.point_error_map,
        "depth_error_map": found.depth_error_map,
    }
    store.put("report", key, arrays, {"columns": columns, "provenance": found.provenance})


def get_agreement(store: Store, key: dict[str, Any]) -> Agreement | None:
    """Stored agreement of two references, or None."""
    from explorer.references.agreement import Agreement

    report, found = get_report(store, key), store.get("agreement", key)
    if report is None or found is None:
        return None
    return Agreement(report, found[0]["distance"], float(found[1]["threshold"]))


def put_agreement(store: Store, key: dict[str, Any], found: Agreement) -> None:
    """Store what two references say of each other."""
    put_report(store, key, found.report)
    store.put("agreement", key, {"distance": found.distance}, {"threshold": found.threshold})


def device_type(device: str) -> str:
    """The kind of device: all GPUs of a machine count as one."""
    return device.split(":")[0]


def get_features(store: Store, key: dict[str, Any]) -> Features | None:
    """Stored features, or None."""
    found = store.get("features", key)
    if found is None:
        return None
    arrays, meta = found
    fields: dict[str, Any] = {**arrays, **meta}
    return Features(**fields)


def put_features(store: Store, key: dict[str, Any], features: Features) -> None:
    """Store features."""
    arrays = ("values", "frame_to_slot", "slot_frames")
    meta = {
        name: getattr(features, name)
        for name in Features.__dataclass_fields__
        if name not in arrays
    }
    store.put("features", key, {name: getattr(features, name) for name in arrays}, meta)


def get_reconstruction(store: Store, key: dict[str, Any]) -> Reconstruction | None:
    """Stored reconstruction, or None."""
    found = store.get("reconstruction", key)
    if found is None:
        return None
    arrays, meta = found
    height, width = arrays["depth"].shape[1:]
    cameras = Cameras(arrays.pop("cam_from_world"), arrays.pop("intrinsics"), (height, width))
    fields: dict[str, Any] = {**arrays, **meta, "cameras": cameras}
    return Reconstruction(**fields)


def put_reconstruction(store: Store, key: dict[str, Any], found: Reconstruction) -> None:
    """Store a reconstruction."""
    arrays = {
        "frames": found.frames,
        "depth": found.depth,
        "points": found.points,
        "confidence": found.confidence,
        "cam_from_world": found.cameras.cam_from_world,
        "intrinsics": found.cameras.intrinsics,
    }
    meta = {"source": found.source, "provenance": found.provenance, "sparse": found.sparse}
    store.put("reconstruction", key, arrays, meta)


def cached_latents(
    store: Store, key: dict[str, Any], encode: Callable[[], np.ndarray]
) -> tuple[np.ndarray, bool]:
    """(latents, whether the store had them)."""
    found = store.get("latents", key)
    if found is not None:
        return found[0]["latents"], True
    latents = encode()
    store.put("latents", key, {"latents": latents}, {})
    return latents, False
