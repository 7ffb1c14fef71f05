"""The folder of `toy-wan` with weights that no training has touched, marked as such.

It lets everything around the model run before the weights exist, and gives tests a model of the
true shape. The page shows `trained: false` wherever this model speaks.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from explorer._atomic import replace_file
from explorer.toy.config import FLOW_SHIFT, TRANSFORMER_CONFIG, VAE_CONFIG


def write_untrained(
    folder: Path,
    *,
    seed: int = 0,
    vae_config: dict[str, Any] | None = None,
    transformer_config: dict[str, Any] | None = None,
) -> Path:
    """Write vae/, transformer/, scheduler/ and card.json in diffusers' layout.

    Weights are float16 safetensors, as those of the trained model. The configurations default to
    those of the shipped model; tests pass smaller ones.
    """
    import diffusers
    import torch

    library: Any = diffusers  # its lazy classes look empty to a type checker
    scheduler = library.FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=FLOW_SHIFT)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        vae = library.AutoencoderKLWan(**(vae_config or VAE_CONFIG))
        transformer = library.WanTransformer3DModel(**(transformer_config or TRANSFORMER_CONFIG))
    vae.half().save_pretrained(folder / "vae")
    transformer.half().save_pretrained(folder / "transformer")
    scheduler.save_pretrained(folder / "scheduler")
    card = {
        "trained": False,
        "seed": seed,
        "data": None,
        "steps": 0,
        "seconds": 0.0,
        "loss": None,
        "parameters": {
            "vae": sum(p.numel() for p in vae.parameters()),
            "transformer": sum(p.numel() for p in transformer.parameters()),
        },
    }
    replace_file(folder / "card.json", json.dumps(card, indent=1).encode())
    return folder
