"""Controls: what a probe reads out where no trained video model speaks.

If a probe does as well on these as on a video model, the probe did the work itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from explorer._typing import Float
from explorer.backbones import _position, _toy, toy_wan
from explorer.backbones._options import Target
from explorer.backbones.base import (
    Backbone,
    BackboneCard,
    Hashes,
    hash_arrays,
    never,
    resize_frames,
    slot_map,
    stop_check,
)
from explorer.backbones.registry import register
from explorer.toy.config import FRAMES, HEIGHT, TRANSFORMER_CONFIG, VARIANTS, WIDTH

if TYPE_CHECKING:
    from explorer.clip import Clip
    from explorer.features import Features

RANDOM_SEED = 0
UNTRAINED_RECIPE = 1  # raise it when `_untrained` gives other weights for the same configuration
PATCH = HEIGHT // toy_wan.TOKEN_GRID[0]


def random_hashes(name: str = "random", of: str = toy_wan.NAME) -> Hashes:
    """The hashes of an untrained transformer in the shape of a shipped one.

    Raises:
        BackboneError: a file is missing.
    """
    return _toy.random_hashes(name, of=of, seed=RANDOM_SEED, recipe=UNTRAINED_RECIPE)


def latent_hashes() -> Hashes:
    """The VAE's files, and what is laid beside its latents.

    Raises:
        BackboneError: a file is missing.
    """
    encoder = toy_wan.encoder_hash()
    recipe = f"latent patches, position octaves {_position.OCTAVES}, VAE {encoder}"
    return Hashes(hash_arrays([], recipe), encoder)


def rgb_hashes() -> Hashes:
    """There are no weights: the recipe alone."""
    recipe = f"rgb patches {PATCH}, position octaves {_position.OCTAVES}"
    return Hashes(hash_arrays([], recipe), None)


def add_random(name: str, of: str, *, title: str) -> None:
    """Put the untrained copy of a shipped transformer into the list of backbones."""
    card = _toy.card(
        VARIANTS[of],
        id=name,
        title=title,
        kind="control",
        note=f"The transformer of {of} without training: what its shape alone gives a probe.",
    )

    def hashes(target: Target) -> Hashes:
        return random_hashes(name, of)

    @register(card, hashes=hashes, schedule=toy_wan.SCHEDULE)
    def load(card: BackboneCard, target: Target) -> Backbone:
        """The transformer regenerated from `RANDOM_SEED`, on the VAE of toy-wan."""
        from explorer.backbones import _untrained, _wan, _wan_files

        config = _wan_files.transformer_config(_toy.folder(of) / "transformer")
        transformer = _untrained.untrained_transformer(config, seed=RANDOM_SEED)
        found = random_hashes(name, of)
        return _wan.WanBackbone(
            card,
            _wan_files.load_vae(_toy.vae_folder(of), device=target.device),
            _wan_files.place_transformer(transformer, device=target.device, dtype=target.dtype),
            weights_hash=found.weights,
            encoder_hash=found.encoder,
            trained=False,
        )


add_random("random", toy_wan.NAME, title="Random transformer on the video VAE")
if _toy.is_shipped("toy-wan-large"):
    add_random("random-large", "toy-wan-large", title="Random transformer, three times as large")


@register(
    BackboneCard(
        id="latent",
        title=f"VAE latents and position{toy_wan.UNTRAINED}",
        kind="control",
        licence="Apache-2.0",
        layers=1,
        width=4 * TRANSFORMER_CONFIG["in_channels"] + _position.CHANNELS,
        input_size=(HEIGHT, WIDTH),
        max_frames=FRAMES,
        frame_step=toy_wan.FRAME_STEP,
        token_grid=toy_wan.TOKEN_GRID,
        default_cell=(0, 0.1),
        uses_sigma=True,
        parameters=toy_wan.VAE_PARAMETERS,
        memory_bytes=600 * 2**20,
        note="What the transformer of toy-wan is given: its gain over this is the transformer's.",
    ),
    hashes=lambda target: latent_hashes(),
    schedule=toy_wan.SCHEDULE,
)
def load_latent(card: BackboneCard, target: Target) -> Backbone:
    """The VAE of toy-wan; dtype is without effect, as the VAE always runs in float32."""
    from explorer.backbones import _latent_control, _wan_files

    folder = toy_wan.model_folder() / "vae"
    return _latent_control.LatentControl(
        card,
        _wan_files.load_vae(folder, device=target.device),
        hashes=latent_hashes(),
        trained=toy_wan.is_trained(),
    )


class RgbBackbone(Backbone):
    """Pixels of the slot's frame, patch by patch, beside the position."""

    @property
    def weights_hash(self) -> str:
        return rgb_hashes().weights

    def timestep(self, sigma: float) -> tuple[float, int]:
        level = toy_wan.SCHEDULE.at_sigma(0.0)
        return level.timestep, level.official_index

    def extract(
        self,
        clip: Clip,
        *,
        layers: Sequence[int],
        sigma: float,
        seed: int = 0,
        latents: Float[np.ndarray, "z S hl wl"] | None = None,
        tap: str = "block",
        should_stop: Callable[[], bool] = never,
    ) -> dict[int, Features]:
        self.check(clip, layers, sigma, tap=tap)
        stop_check(should_stop)
        self.calls += 1
        card = self.card
        slot_frames = slot_map(len(clip.frames), card.frame_step)[1]
        frames = resize_frames(clip.frames[slot_frames], card.input_size)
        patches = _position.pixel_patches(frames, card.token_grid).astype(np.float32) / 127.5 - 1.0
        position = _position.position_channels(
            slot_frames, card.token_grid, max_frames=card.max_frames
        )
        values = np.concatenate([patches, position], axis=-1).astype(np.float16)
        provenance = {"device": "cpu", "dtype": "float32", "trained": False}
        return self.features({0: values}, clip, sigma=0.0, seed=seed, provenance=provenance)


@register(
    BackboneCard(
        id="rgb",
        title="RGB patches and position",
        kind="control",
        licence="Apache-2.0",
        layers=1,
        width=3 * PATCH * PATCH + _position.CHANNELS,
        input_size=(HEIGHT, WIDTH),
        max_frames=FRAMES,
        frame_step=toy_wan.FRAME_STEP,
        token_grid=toy_wan.TOKEN_GRID,
        default_cell=(0, 0.0),
        uses_sigma=False,
        parameters=0,
        memory_bytes=50 * 2**20,
        note="No model at all: what a probe learns from pixels and where they are.",
    ),
    hashes=lambda target: rgb_hashes(),
    schedule=toy_wan.SCHEDULE,
)
def load_rgb(card: BackboneCard, target: Target) -> Backbone:
    """Nothing to load; device and dtype are without effect."""
    return RgbBackbone(card)
