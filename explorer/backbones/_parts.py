"""Parts of models in diffusers' layout whose repositories may hold two precisions side by side.

Needs no torch at import.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from explorer.backbones import _published
from explorer.backbones._options import Target

HALF = (".bf16", ".fp16")


def files(folder: Path, part: str, *, what: str) -> list[Path]:
    """[config.json, weights, ...] of one part.

    Of two precisions side by side, the half one of the network and the full one of the VAE.

    Raises:
        BackboneError: a file is missing.
    """
    config, *weights = _published.component(folder, part, what=what)
    half = [path for path in weights if any(mark in path.name for mark in HALF)]
    full = [path for path in weights if path not in half]
    return [config, *((full or half) if part == "vae" else (half or full))]


def load_part(
    target: Target, part: str, class_name: str, *, what: str, dtype: str, offload: bool = False
) -> Any:
    """One part of a folder as diffusers' class of that name, on its device.

    Raises:
        BackboneError: it is missing, broken or of another structure.
    """
    import diffusers

    from explorer.backbones import _build

    config, *weights = files(target.folder, part, what=what)
    settings = json.loads(config.read_text())
    model_class: Any = getattr(diffusers, class_name)
    return _build.fill(
        _build.build_empty(lambda: model_class.from_config(settings)),
        _build.shards(weights),
        device=target.device,
        dtype=dtype,
        where=config.parent,
        offload=offload,
    )
