"""Block outputs of diffusers' CogVideoX transformer on noisy latents of its VAE."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch

from explorer._typing import Float
from explorer.backbones._cogvideox_frames import Recipe
from explorer.backbones._hooks import checked_before, run_blocks
from explorer.backbones._latents import LatentModel, compute_provenance, to_float16, to_video
from explorer.backbones.base import BackboneCard, never, resize_frames
from explorer.noise import NoiseLevel, Schedule

if TYPE_CHECKING:
    from explorer.clip import Clip

Vae: TypeAlias = Any  # diffusers.AutoencoderKLCogVideoX
Transformer: TypeAlias = Any  # diffusers.CogVideoXTransformer3DModel

OFS = 2.0
"""What models with an offset embedding are given in their pipeline."""


@torch.inference_mode()
def encode_video(
    vae: Vae,
    video: Float[torch.Tensor, "B 3 T H W"],
    *,
    should_stop: Callable[[], bool] = never,
) -> Float[torch.Tensor, "B z S h w"]:
    """Posterior mean times the VAE's scaling factor.

    Raises:
        Cancelled: `should_stop` became true; asked before each chunk of eight frames (and tile).
    """
    with checked_before(vae.encoder, should_stop):
        mean: torch.Tensor = vae.encode(video.to(vae.dtype)).latent_dist.mode().float()
    factor: float = vae.config.scaling_factor
    return mean * factor


def rotary(
    config: Any, slots: int, grid: tuple[int, int], device: torch.device, *, pace: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """(cos, sin) of rotary positions, each (S*h*w, head width); None where a model has none.

    Args:
        config: the transformer's.
        slots: S.
        grid: (h, w).
        device: for the result.
        pace: distance of neighbouring slots; the first quarter of the channels is time.
    """
    if not config.use_rotary_positional_embeddings:
        return None
    from diffusers.models import embeddings

    width = config.attention_head_dim
    cos, sin = embeddings.get_3d_rotary_pos_embed(width, ((0, 0), grid), grid, slots, device=device)
    if pace != 1.0:
        times = torch.arange(slots, dtype=torch.float32, device=device) * pace
        for table, scaled in zip(
            (cos, sin),
            embeddings.get_1d_rotary_pos_embed(width // 4, times, use_real=True),
            strict=True,
        ):
            table[:, : width // 4] = scaled.repeat_interleave(grid[0] * grid[1], dim=0)
    return cos, sin


def read_learned_positions(transformer: Transformer) -> None:
    """Give clips of any length the first entries of the learned table of positions.

    The original release reads its table so. diffusers uses the table for clips of full length and
    puts sines and cosines, which were never trained, in its place for all others.
    """
    embed = transformer.patch_embed

    def first(height: int, width: int, frames: int, device: Any = None) -> torch.Tensor:
        slots = (frames - 1) // embed.temporal_compression_ratio + 1
        tokens = slots * (height // embed.patch_size) * (width // embed.patch_size)
        table: torch.Tensor = embed.pos_embedding[:, : embed.max_text_seq_length + tokens]
        return table

    embed._get_positional_embeddings = first


class CogVideoXBackbone(LatentModel):
    """A VAE and a transformer of diffusers' CogVideoX classes behind the one `extract`.

    Latents are those of the clips in `recipe`'s order, one after the other in time; with
    `first_frame` those of the first frame alone come before them.
    """

    def __init__(
        self,
        card: BackboneCard,
        vae: Vae,
        transformer: Transformer,
        *,
        weights_hash: str,
        encoder_hash: str | None,
        schedule: Schedule,
        prompt: Float[torch.Tensor, "1 L D"],
        recipe: Recipe,
    ) -> None:
        dtype = transformer.proj_out.weight.dtype
        super().__init__(
            card,
            vae,
            weights_hash=weights_hash,
            encoder_hash=encoder_hash,
            provenance={
                **compute_provenance(next(vae.parameters()).device, dtype, trained=True),
                "frames": "interleaved" if recipe.interleaved else "consecutive",
            },
            schedule=schedule,
        )
        self.transformer = transformer.eval().requires_grad_(False)
        self.prompt = prompt
        self.recipe = recipe

    @property
    def blocks(self) -> Sequence[Any]:
        return list(self.transformer.transformer_blocks)

    @property
    def latent_channels(self) -> int:
        """z of this model's latents."""
        return int(self.vae.config.latent_channels)

    def slots(self, frame_count: int) -> tuple[np.ndarray, np.ndarray]:
        return self.recipe.slots(frame_count)

    def latent_shape(self, frame_count: int) -> tuple[int, int, int, int]:
        clips = self.recipe.clips(frame_count)
        slots = sum((len(frames) + 3) // 4 for frames in clips) + self.recipe.first_frame
        patch = self.transformer.config.patch_size
        rows, columns = self.card.token_grid
        return self.latent_channels, slots, patch * rows, patch * columns

    def _encode(
        self, clip: Clip, should_stop: Callable[[], bool]
    ) -> Float[np.ndarray, "z S hl wl"]:
        self.encoder_calls += 1
        frames = resize_frames(clip.frames, self.card.input_size)
        parts = [frames[indices] for indices in self.recipe.clips(len(frames))]
        if self.recipe.first_frame:
            parts.insert(0, frames[:1])
        latents = [
            encode_video(self.vae, to_video(part, self.device), should_stop=should_stop)[0]
            for part in parts
        ]
        if self.recipe.first_frame and self.vae.config.invert_scale_latents:
            # Some were trained with the first frame's latents divided; a video's are never.
            latents[0] = latents[0] / self.vae.config.scaling_factor**2
        return np.asarray(torch.cat(latents, dim=1).cpu().numpy())

    def with_noise(
        self, clean: Float[torch.Tensor, "1 z S h w"], seed: int, level: NoiseLevel
    ) -> Float[torch.Tensor, "1 z S h w"]:
        image = int(self.recipe.first_frame)
        noisy = super().with_noise(clean[:, :, image:], seed, level)
        return torch.cat([clean[:, :, :image], noisy], dim=2)

    def stack(self, latents: Float[torch.Tensor, "1 z S h w"]) -> Float[torch.Tensor, "B s c h w"]:
        """What the transformer gets: one entry for each clip, with its conditions as channels."""
        clips = self.entries(latents)
        image = latents[0, :, : int(self.recipe.first_frame)].transpose(0, 1)
        return torch.cat([clips, self.conditions(image, clips)], dim=2)

    def entries(
        self, latents: Float[torch.Tensor, "1 z S h w"]
    ) -> Float[torch.Tensor, "B s z h w"]:
        """The clips of latents, without the first frame's."""
        times = latents[0, :, int(self.recipe.first_frame) :].transpose(0, 1)
        return times.unflatten(0, (2 if self.recipe.interleaved else 1, -1))

    def conditions(
        self, image: Float[torch.Tensor, "i c h w"], clips: Float[torch.Tensor, "B s c h w"]
    ) -> Float[torch.Tensor, "B s k h w"]:
        """Channels without noise: the first frame's latents at time 0 and zeros after it."""
        if not self.recipe.first_frame:
            return clips[:, :, :0]
        channels = torch.zeros_like(clips[:, :, : self.vae.config.latent_channels])
        channels[:, 0] = image[0, : channels.shape[2]]
        return channels

    def forward(
        self, hidden: Float[torch.Tensor, "B s c h w"], timestep: float
    ) -> Float[torch.Tensor, "B s C h w"]:
        """One pass of the whole transformer."""
        config = self.transformer.config
        dtype = self.transformer.proj_out.weight.dtype
        steps = torch.full((len(hidden),), timestep, dtype=torch.float32, device=hidden.device)
        slots, _, height, width = hidden.shape[1:]
        grid = (height // config.patch_size, width // config.patch_size)
        output: torch.Tensor = self.transformer(
            hidden_states=hidden.to(dtype),
            encoder_hidden_states=self.prompt.to(dtype).expand(len(hidden), -1, -1),
            timestep=steps,
            ofs=hidden.new_full((1,), OFS) if config.ofs_embed_dim else None,
            image_rotary_emb=rotary(config, slots, grid, hidden.device, pace=self.recipe.pace),
            return_dict=False,
        )[0]
        return output

    @torch.inference_mode()
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
        hidden = self.stack(noisy)
        shape = (hidden.shape[1], *self.card.token_grid)
        words = self.prompt.shape[1]
        norms = {"query": "norm_q", "key": "norm_k"}

        def keep(output: Any) -> np.ndarray:
            if tap == "block":  # (video tokens, text tokens)
                tokens = output[0]
            else:  # (B, heads, text and video tokens, channels of a head)
                tokens = output[:, :, words:].transpose(1, 2).flatten(2)
            return self.recipe.merge(to_float16(tokens.unflatten(1, shape)))

        return run_blocks(
            lambda: self.forward(hidden, timestep),
            self.blocks,
            layers=layers,
            keep=keep,
            readers=None
            if tap == "block"
            else [getattr(block.attn1, norms[tap]) for block in self.blocks],
            should_stop=should_stop,
        )
