"""Wan 2.2's ways to treat noise: a timestep for each token, and an expert for each range."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from explorer._typing import Float
from explorer.backbones import _wan_published
from explorer.backbones._compiled import compile_blocks
from explorer.backbones._latents import compute_provenance
from explorer.backbones._options import Target
from explorer.backbones._wan import WanBackbone, WanReader
from explorer.backbones._wan_files import DTYPES
from explorer.backbones._wan_types import Transformer, Vae
from explorer.backbones.base import BackboneCard, Hashes, stop_check
from explorer.noise import NoiseLevel, Schedule


class TokenTimesBackbone(WanBackbone):
    """A Wan that takes a timestep for each token: TI2V-5B, in text-to-video mode all the same."""

    def network_time(self, timestep: float, tokens: int) -> Float[torch.Tensor, "1 N"]:
        return torch.full((1, tokens), timestep, dtype=torch.float32)


class FirstFrameBackbone(TokenTimesBackbone):
    """TI2V-5B in image-to-video mode: slot 0, frame 0 alone, has no noise and timestep 0.

    The VAE is causal, so that the first of a clip's latents are those of its first frame.
    """

    def with_noise(
        self, clean: Float[torch.Tensor, "1 z S hl wl"], seed: int, level: NoiseLevel
    ) -> Float[torch.Tensor, "1 z S hl wl"]:
        noisy = super().with_noise(clean, seed, level)
        return torch.cat([clean[:, :, :1], noisy[:, :, 1:]], dim=2)

    def network_time(self, timestep: float, tokens: int) -> Float[torch.Tensor, "1 N"]:
        times = super().network_time(timestep, tokens)
        rows, columns = self.card.token_grid
        times[:, : rows * columns] = 0
        return times


class ExpertsBackbone(WanReader):
    """A VAE and two transformers, of which one is in memory.

    The one lock of every backbone is held while experts change places as well as during the pass
    that follows, so that no pass finds another's expert.

    Args:
        card: facts about it.
        vae: of both.
        load_expert: reads one of `experts` from disk.
        experts: names of those for much and for little noise.
        boundary: first timestep of the former.
        dtype: of the experts.
        found: hashes over all files.
        schedule: names the timestep of a noise level.
        prompt: (1, L, D) text embedding.
    """

    def __init__(
        self,
        card: BackboneCard,
        vae: Vae,
        load_expert: Callable[[str], Transformer],
        *,
        experts: tuple[str, str],
        boundary: float,
        dtype: torch.dtype,
        found: Hashes,
        schedule: Schedule,
        prompt: Float[torch.Tensor, "1 L D"],
    ) -> None:
        super().__init__(
            card,
            vae,
            weights_hash=found.weights,
            encoder_hash=found.encoder,
            provenance=compute_provenance(vae.device, dtype, trained=True),
            schedule=schedule,
        )
        self.prompt = prompt
        self.boundary = boundary
        self.expert: str | None = None
        self._experts = experts
        self._load_expert = load_expert
        self._network: Transformer = None

    def expert_for(self, timestep: float) -> str:
        """Name of the expert that is in charge of a timestep."""
        return self._experts[0 if timestep >= self.boundary else 1]

    @property
    def transformer(self) -> Transformer:
        """The expert in memory; None before the first pass, and while the next one is read."""
        return self._network

    @property
    def blocks(self) -> Sequence[Any]:
        """Blocks of the expert in memory: which one that is follows from the last pass."""
        network = self._network
        return () if network is None else list(network.blocks)

    def network(self, timestep: float, should_stop: Callable[[], bool]) -> Transformer:
        stop_check(should_stop)
        self._use(self.expert_for(timestep))
        return self._network

    def compile(self) -> None:
        self.compiled = True  # each expert as it is read

    def _use(self, expert: str) -> None:
        """Have this expert in memory and no other; the caller holds the lock."""
        if self.expert == expert:
            return
        self.expert = self._network = None
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        network = self._load_expert(expert)
        if self.compiled:
            compile_blocks(list(network.blocks))
        self._network = network
        self.expert = expert


def load_experts(
    card: BackboneCard,
    target: Target,
    *,
    schedule: Schedule,
    hashes: Hashes,
    experts: tuple[str, str],
    boundary: float,
) -> ExpertsBackbone:
    """VAE and prompt of a folder with two experts, which are read when they are asked for.

    Raises:
        BackboneError: a part is missing, broken or of another structure.
    """
    text = _wan_published.prompt(target.folder, target.prompt)
    return ExpertsBackbone(
        card,
        _wan_published.load_vae(target),
        lambda expert: _wan_published.load_transformer(target, expert),
        experts=experts,
        boundary=boundary,
        dtype=DTYPES[target.dtype],
        found=hashes,
        schedule=schedule,
        prompt=text.to(target.device),
    )


def write_small_tiny(folder: Path, **changes: Any) -> None:
    """Random weights of a tiny TI2V in the published layout."""
    vae = {
        "is_residual": True,
        "in_channels": 12,
        "out_channels": 12,
        "patch_size": 2,
        "scale_factor_spatial": 16,
        "decoder_base_dim": 6,
    }
    _wan_published.write_tiny(folder, vae=vae, **changes)
