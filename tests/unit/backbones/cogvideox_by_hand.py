"""What CogVideoX's library classes give when they are called by hand, as their pipeline does."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import diffusers
import numpy as np
import torch
from safetensors.torch import load_file

library: Any = diffusers


class ByHand:
    """The models of a folder in diffusers' layout, without any of this project's code."""

    def __init__(self, folder: Path) -> None:
        self.vae = library.AutoencoderKLCogVideoX.from_pretrained(folder / "vae").eval()
        self.transformer = library.CogVideoXTransformer3DModel.from_pretrained(
            folder / "transformer"
        ).eval()
        self.config = self.transformer.config
        (prompt,) = (folder / "prompts").glob("t5-xxl-226-empty.safetensors")
        self.prompt = load_file(prompt)["prompt"]
        self.learned = self.transformer.patch_embed.__dict__["_buffers"].get("pos_embedding")

    @torch.no_grad()
    def latents(self, frames: np.ndarray) -> torch.Tensor:
        """(1, S, z, h, w) of frames that have the model's size."""
        video = torch.from_numpy(frames).permute(3, 0, 1, 2)[None].float() / 255 * 2 - 1
        mean = self.vae.encode(video).latent_dist.mean
        return (mean * 0.7).permute(0, 2, 1, 3, 4)

    def rotary(self, slots: int) -> Any:
        """Positions by the pipeline's own method."""
        if not self.config.use_rotary_positional_embeddings:
            return None
        pipeline = SimpleNamespace(transformer=self.transformer, vae_scale_factor_spatial=8)
        return library.CogVideoXPipeline._prepare_rotary_positional_embeddings(
            pipeline, 64, 96, slots, torch.device("cpu")
        )

    def use_first_positions(self, slots: int) -> None:
        """Make a model for clips of `slots`, whose learned table is the first part of the long."""
        embed = self.transformer.patch_embed
        embed.sample_frames = 4 * (slots - 1) + 1
        embed.pos_embedding = self.learned[:, : 226 + slots * 24]

    @torch.no_grad()
    def outputs(self, hidden: torch.Tensor, step: float, rotary: Any) -> dict[str, list[Any]]:
        """What each block and each query and key norm gave in one whole pass."""
        found: dict[str, list[Any]] = {"block": [], "query": [], "key": []}

        def keep(kind: str) -> Any:
            def hook(module: Any, inputs: Any, output: Any) -> None:
                found[kind].append((output[0] if kind == "block" else output).clone())

            return hook

        handles = []
        for block in self.transformer.transformer_blocks:
            handles.append(block.register_forward_hook(keep("block")))
            handles.append(block.attn1.norm_q.register_forward_hook(keep("query")))
            handles.append(block.attn1.norm_k.register_forward_hook(keep("key")))
        self.transformer(
            hidden_states=hidden,
            encoder_hidden_states=self.prompt.repeat(len(hidden), 1, 1),
            timestep=torch.full((len(hidden),), int(step)),
            image_rotary_emb=rotary,
        )
        for handle in handles:
            handle.remove()
        return found


def scheduler(shift: float) -> Any:
    """The scheduler with the constants of the published scheduler_config.json."""
    return library.CogVideoXDDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        snr_shift_scale=shift,
        timestep_spacing="trailing",
    )


def seeded(shape: Any, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def as_features(tokens: torch.Tensor) -> np.ndarray:
    """(B, S, h, w, C) of (B, tokens, C)."""
    found: np.ndarray = tokens.unflatten(1, (-1, 4, 6)).numpy()
    return found
