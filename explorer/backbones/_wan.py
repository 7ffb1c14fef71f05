"""Block outputs of diffusers' Wan transformer on noisy latents."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from explorer._typing import Float
from explorer.backbones._delivery import Delivery
from explorer.backbones._hooks import run_blocks
from explorer.backbones._latents import (
    SCHEDULE,
    LatentModel,
    compute_provenance,
)
from explorer.backbones._wan_types import Transformer, Vae
from explorer.backbones.base import BackboneCard, never
from explorer.noise import Schedule


@torch.inference_mode()
def block_outputs(
    transformer: Transformer,
    noisy: Float[torch.Tensor, "B z S h w"],
    timestep: float | Float[torch.Tensor, "B N"],
    *,
    layers: Sequence[int],
    prompt: Float[torch.Tensor, "B L D"] | None = None,
    keep: Callable[[torch.Tensor], Any] = torch.clone,
    image: Float[torch.Tensor, "B M E"] | None = None,
    tap: str = "block",
    should_stop: Callable[[], bool] = never,
) -> dict[int, Any]:
    """Residual stream after the wanted blocks, tokens in the order time, row, column.

    Args:
        transformer: the model, in any dtype.
        noisy: latents with noise.
        timestep: the model's own, 1000 sigma for flow matching; one for each token where the model
            was trained with those.
        layers: 0-based wanted blocks; the pass stops after the last.
        prompt: text embeddings; None is the empty prompt of a model without a text encoder, one
            token of zeros.
        keep: what to hold of each output (B, S*h*w, C).
        image: embeddings of a first frame, for models that are conditioned on one.
        tap: "block", or "query" or "key" of the self-attention, normalised and not yet rotated.
        should_stop: asked before each block.

    Raises:
        Cancelled: `should_stop` became true.
    """
    dtype = transformer.proj_out.weight.dtype
    device = noisy.device
    if prompt is None:
        prompt = torch.zeros(len(noisy), 1, transformer.config.text_dim, device=device)
    steps = (
        timestep.to(device)
        if isinstance(timestep, torch.Tensor)
        else torch.full((len(noisy),), timestep, dtype=torch.float32, device=device)
    )
    blocks = list(transformer.blocks)
    return run_blocks(
        lambda: transformer(
            hidden_states=noisy.to(dtype),
            timestep=steps,
            encoder_hidden_states=prompt.to(dtype),
            encoder_hidden_states_image=None if image is None else image.to(dtype),
            return_dict=False,
        ),
        blocks,
        layers=layers,
        keep=keep,
        readers=None if tap == "block" else [tapped(block, tap) for block in blocks],
        should_stop=should_stop,
    )


def tapped(block: Any, tap: str) -> torch.nn.Module:
    """The module whose output is the query or key of a block's self-attention."""
    module: torch.nn.Module = {"query": block.attn1.norm_q, "key": block.attn1.norm_k}[tap]
    return module


class WanReader(LatentModel):
    """A VAE and whatever transformers of diffusers' Wan classes, behind the one `extract`.

    Attributes:
        prompt: (1, L, D) text embedding; None for a model that was trained without text.
        image: (1, M, E) embedding of the clip's first frame, for models that see one.
    """

    prompt: torch.Tensor | None = None
    image: torch.Tensor | None = None

    @abstractmethod
    def network(self, timestep: float, should_stop: Callable[[], bool]) -> Transformer:
        """The transformer that is in charge of a timestep."""

    def network_input(
        self, noisy: Float[torch.Tensor, "1 z S hl wl"]
    ) -> Float[torch.Tensor, "1 c S hl wl"]:
        """What the transformer is given for noisy latents."""
        return noisy

    def network_time(self, timestep: float, tokens: int) -> float | Float[torch.Tensor, "1 N"]:
        """What the transformer is given for a timestep and a number of tokens."""
        return timestep

    def read(
        self,
        noisy: Float[torch.Tensor, "1 z S hl wl"],
        timestep: float,
        *,
        layers: Sequence[int],
        slot_frames: np.ndarray,
        tap: str,
        should_stop: Callable[[], bool],
    ) -> dict[int, np.ndarray]:
        rows, columns = self.card.token_grid
        grid = (len(slot_frames), rows, columns)
        delivery = Delivery(self.device)
        network = self.network(timestep, should_stop)
        outputs = block_outputs(
            network,
            self.network_input(noisy),
            self.network_time(timestep, len(slot_frames) * rows * columns),
            layers=layers,
            keep=lambda tokens: delivery.send(tokens[0].unflatten(0, grid)),
            prompt=self.prompt,
            image=self.image,
            tap=tap,
            should_stop=should_stop,
        )
        return delivery.receive(outputs)


class WanBackbone(WanReader):
    """A VAE and one transformer."""

    def __init__(
        self,
        card: BackboneCard,
        vae: Vae,
        transformer: Transformer,
        *,
        weights_hash: str,
        encoder_hash: str | None,
        trained: bool,
        schedule: Schedule = SCHEDULE,
        prompt: Float[torch.Tensor, "1 L D"] | None = None,
    ) -> None:
        dtype = transformer.proj_out.weight.dtype
        super().__init__(
            card,
            vae,
            weights_hash=weights_hash,
            encoder_hash=encoder_hash,
            provenance=compute_provenance(vae.device, dtype, trained=trained),
            schedule=schedule,
        )
        self.transformer = transformer.eval().requires_grad_(False)
        self.prompt = prompt

    @property
    def blocks(self) -> Sequence[Any]:
        return list(self.transformer.blocks)

    def network(self, timestep: float, should_stop: Callable[[], bool]) -> Transformer:
        return self.transformer
