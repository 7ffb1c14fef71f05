"""`emerge3d doctor`: what this installation has, and what to do about what it lacks."""

from __future__ import annotations

import json
import os
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PACKAGES = (
    "torch",
    "diffusers",
    "gradio",
    "gradio_rerun",
    "rerun-sdk",
    "av",
    "opencv-python",
    "numpy",
    "safetensors",
)
ROOM = 2 * 2**30  # bytes that the store and recordings of an afternoon take


@dataclass(frozen=True)
class Doctor:
    """Check versions, GPU, shipped files, cache and disk; say what to do."""

    json: bool = False
    """Print one JSON object on stdout."""

    def run(self) -> int:
        """Print the findings; exit status 1 where something must be done."""
        found = examine()
        advice = advise(found)
        if self.json:
            print(json.dumps({**found, "advice": advice}, allow_nan=False))
        else:
            print(render(found, advice))
        return 1 if advice else 0


def examine() -> dict[str, Any]:
    """Facts, without judgement."""
    from explorer import __version__, plugins
    from explorer.assets import assets_root
    from explorer.store import Store, default_root

    assets, cache = assets_root(), default_root()
    return {
        "emerge3d": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "packages": {name: _version(name) for name in PACKAGES},
        "plugins": [
            {
                **each.provenance,
                "file": None if each.file is None else str(each.file),
                "seconds": round(each.seconds, 3),
                "registered": {kind: list(ids) for kind, ids in each.registered.items() if ids},
                "error": None if each.error is None else str(each.error),
            }
            for each in plugins.load()
        ],
        "gpus": _gpus(),
        "display": bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")),
        "assets": {
            "folder": str(assets),
            "clips": len(list(assets.glob("clips/*.mp4"))),
            "models": sorted(path.name for path in assets.glob("models/*") if path.is_dir()),
            "untrained_models": _untrained(assets),
            "probes": len(list(assets.glob("probes/*/L*.safetensors"))),
        },
        "cache": {
            "folder": str(cache),
            "bytes": Store(cache).size() if cache.is_dir() else 0,
            "writable": os.access(_existing(cache), os.W_OK),
            "free_bytes": shutil.disk_usage(_existing(cache)).free,
        },
    }


def advise(found: dict[str, Any]) -> list[str]:
    """One sentence for each thing that must be done."""
    advice = [
        f"{name} is missing: pip install emerge3d -c constraints.txt"
        for name, version in found["packages"].items()
        if version is None
    ]
    advice += [each["error"] for each in found["plugins"] if each["error"] is not None]
    assets = found["assets"]
    if not assets["models"]:
        advice.append(
            f"no model weights in {assets['folder']}/models: restore the folder from the "
            "repository, or set EMERGE3D_ASSETS"
        )
    advice += [
        f"{name} has untrained weights: its 3D means nothing until trained weights are installed"
        for name in assets["untrained_models"]
    ]
    if not assets["probes"]:
        advice.append(f"no probes in {assets['folder']}/probes: only correspondence will work")
    if not assets["clips"]:
        advice.append(f"no example clips in {assets['folder']}/clips: upload a video instead")
    cache = found["cache"]
    if not cache["writable"]:
        advice.append(f"{cache['folder']} cannot be written: set EMERGE3D_CACHE to another folder")
    if cache["free_bytes"] < ROOM:
        advice.append(
            f"only {cache['free_bytes'] / 2**30:.1f} GiB free for {cache['folder']}: "
            "delete that folder or set EMERGE3D_CACHE"
        )
    return advice


def render(found: dict[str, Any], advice: list[str]) -> str:
    """The findings for people."""
    assets, cache = found["assets"], found["cache"]
    rows = [
        ("emerge3d", found["emerge3d"]),
        ("python", f"{found['python']} on {found['platform']}, {found['cpus']} CPUs"),
        *((name, version or "missing") for name, version in found["packages"].items()),
        *(("plugin", _plugin(each)) for each in found["plugins"]),
        ("GPU", "; ".join(found["gpus"]) or "none: everything runs on the CPU"),
        ("display", "yes" if found["display"] else "no: emerge3d view needs one, the app does not"),
        (
            "assets",
            f"{assets['folder']}: {assets['clips']} clips, {assets['probes']} probes, "
            f"models {', '.join(assets['models']) or 'none'}",
        ),
        ("cache", f"{cache['folder']}: {cache['bytes'] / 2**20:.0f} MiB"),
        ("disk", f"{cache['free_bytes'] / 2**30:.1f} GiB free"),
    ]
    width = max(len(name) for name, _ in rows)
    lines = [f"{name:<{width}}  {value}" for name, value in rows]
    return "\n".join([*lines, "", *(advice or ["All well."])])


def _plugin(facts: dict[str, Any]) -> str:
    named = " ".join(filter(None, (facts["distribution"], facts["version"])))
    origin = ", ".join(filter(None, (named, facts["file"])))
    given = "; ".join(f"{kind} {', '.join(ids)}" for kind, ids in facts["registered"].items())
    return f"{facts['name']} ({origin or 'not found'}): {given or 'left out, see below'}"


def _version(package: str) -> str | None:
    from importlib import metadata

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _gpus() -> list[str]:
    try:
        import torch
    except ImportError:
        return []
    return [
        f"{torch.cuda.get_device_name(index)}, "
        f"{torch.cuda.get_device_properties(index).total_memory / 2**30:.0f} GiB"
        for index in range(torch.cuda.device_count())
    ]


def _untrained(assets: Path) -> list[str]:
    names = []
    for card in sorted(assets.glob("models/*/card.json")):
        try:
            trained = json.loads(card.read_text()).get("trained", False)
        except (OSError, ValueError):
            trained = False
        if not trained:
            names.append(card.parent.name)
    return names


def _existing(folder: Path) -> Path:
    """The nearest folder above that exists: where `folder` would be made."""
    return next(path for path in (folder, *folder.resolve().parents) if path.is_dir())
