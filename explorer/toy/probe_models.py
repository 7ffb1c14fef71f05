"""The networks whose features probes read, from the runs of their training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diffusers import WanTransformer3DModel
from torch import nn

from explorer.backbones._untrained import untrained_transformer
from explorer.nets.vggt import VGGT, VGGTConfig
from explorer.nets.vjepa import VideoViT, VideoViTConfig
from explorer.toy.cells import Cell
from explorer.toy.config import JEPA_CONFIG, VARIANTS, VGGT_CONFIG
from explorer.toy.jepa import TARGET
from explorer.toy.latents import fingerprint
from explorer.toy.probe_pool import TRANSFORMERS
from explorer.toy.shards import load_checkpoint

RANDOM_SEED = 0


def model_of(run: Path) -> str:
    """The name in the card of a transformer's run; the first had none."""
    return str(load_checkpoint(run, "transformer")[1].get("model", "toy-wan"))


def load_models(
    runs: Sequence[Path],
    cells: Sequence[Cell],
    vae: Any,
    *,
    vggt: Path | None = None,
    jepa: Path | None = None,
) -> dict[str, Any]:
    """The networks that the cells read: transformers by the names in their runs' cards.

    Raises:
        ValueError: a run is of another VAE, or a cell's transformer is not among them.
    """
    device, of_vae = vae.device, fingerprint(vae.state_dict())
    models: dict[str, Any] = {}
    for run in runs:
        tensors, card = load_checkpoint(run, "transformer")
        if card.get("vae", of_vae) != of_vae:
            raise ValueError(f"{run} was trained on the latents of another VAE: give its --vae")
        name = card.get("model", "toy-wan")
        models[name] = WanTransformer3DModel(**VARIANTS[name].config)
        models[name].load_state_dict(tensors)
    wanted = {cell.backbone for cell in cells} & set(TRANSFORMERS)
    for name in sorted(wanted - set(models)):
        if name in VARIANTS:
            raise ValueError(f"no run of {name} is among --transformer {list(map(str, runs))}")
        shape = WanTransformer3DModel(**TRANSFORMERS[name].config)
        models[name] = untrained_transformer(dict(shape.config), seed=RANDOM_SEED)
    for name, own in (("vggt", vggt), ("jepa", jepa)):
        if any(cell.backbone == f"toy-{name}" for cell in cells):
            if own is None:
                raise ValueError(f"cells of toy-{name} need its run: give --{name}")
            models[f"toy-{name}"] = _network(name, own)
            wanted.add(f"toy-{name}")
    read = {name: model for name, model in models.items() if name in wanted}
    return {name: m.to(device).eval().requires_grad_(False) for name, m in read.items()}


def _network(name: str, run: Path) -> nn.Module:
    tensors, _ = load_checkpoint(run, name)
    if name == "vggt":
        expert = VGGT(VGGTConfig(**VGGT_CONFIG))
        expert.load_state_dict(tensors)
        return expert
    encoder = VideoViT(VideoViTConfig(**JEPA_CONFIG))
    if any(key.startswith(TARGET) for key in tensors):  # a run; shipped is the encoder alone
        tensors = {k.removeprefix(TARGET): v for k, v in tensors.items() if k.startswith(TARGET)}
    encoder.load_state_dict(tensors)
    return encoder
