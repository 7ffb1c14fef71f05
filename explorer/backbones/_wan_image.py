"""What Wan's image-to-video models are shown of the first frame, and the backbone that shows it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional

from explorer._typing import Float, UInt8
from explorer.backbones import _build, _tiny, _wan_published
from explorer.backbones._hooks import run_blocks
from explorer.backbones._latents import encode_video, to_video
from explorer.backbones._options import Target
from explorer.backbones._wan import WanBackbone
from explorer.backbones._wan_types import Transformer, Vae
from explorer.backbones.base import BackboneCard, never, resize_frames
from explorer.errors import BackboneError

if TYPE_CHECKING:
    from explorer.clip import Clip

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


class WanImageBackbone(WanBackbone):
    """A Wan that is conditioned on frame 0 of the clip.

    Both of its descriptions are kept for the last clip, so that another noise level or another
    layer does not make them again.
    """

    def __init__(
        self,
        card: BackboneCard,
        vae: Vae,
        transformer: Transformer,
        image_encoder: Any,
        **rest: Any,
    ) -> None:
        super().__init__(card, vae, transformer, **rest)
        self.image_encoder = image_encoder.eval().requires_grad_(False)
        self._prepared: object = None
        self._condition: torch.Tensor | None = None

    def prepare(self, clip: Clip, should_stop: Callable[[], bool]) -> None:
        wanted = (clip.content_hash, clip.frames.shape, self.card.input_size)
        if self._prepared == wanted:
            return
        frame = resize_frames(clip.frames[:1], self.card.input_size)
        self._prepared = None
        self.image = encode_image(
            self.image_encoder, frame[0], device=self.device, should_stop=should_stop
        )
        self._condition = encode_condition(
            self.vae,
            to_video(frame, self.device),
            len(clip.frames),
            frame_step=self.card.frame_step,
            should_stop=should_stop,
        )
        self._prepared = wanted

    def network_input(
        self, noisy: Float[torch.Tensor, "1 z S hl wl"]
    ) -> Float[torch.Tensor, "1 c S hl wl"]:
        """Noisy latents, mask, latents of the first frame: 16 + 4 + 16 channels in Wan 2.1."""
        if self._condition is None:
            raise RuntimeError("prepare comes before the network")
        return torch.cat([noisy, self._condition], dim=1)


@torch.inference_mode()
def encode_condition(
    vae: Vae,
    frame: Float[torch.Tensor, "1 3 1 H W"],
    frame_count: int,
    *,
    frame_step: int,
    should_stop: Callable[[], bool] = never,
) -> Float[torch.Tensor, "1 c S hl wl"]:
    """Mask and latents of a video whose first frame is known and that is grey from there on.

    The mask has a channel for each frame of a slot; slot 0 stands for four times frame 0.

    Raises:
        Cancelled: `should_stop` became true; asked before each chunk.
    """
    rest = frame.new_zeros(1, 3, frame_count - 1, *frame.shape[3:])
    latents = encode_video(vae, torch.cat([frame, rest], dim=2), should_stop=should_stop)
    mask = latents.new_zeros(1, frame_step, *latents.shape[2:])
    mask[:, :, 0] = 1
    return torch.cat([mask, latents], dim=1)


@torch.inference_mode()
def encode_image(
    image_encoder: Any,
    frame: UInt8[np.ndarray, "H W 3"],
    *,
    device: torch.device,
    should_stop: Callable[[], bool] = never,
) -> Float[torch.Tensor, "1 M E"]:
    """Hidden states of a picture's tokens before CLIP's last layer, which is not run.

    Raises:
        Cancelled: `should_stop` became true; asked before each layer.
    """
    dtype = next(image_encoder.parameters()).dtype
    pixels = clip_pixels(frame, image_encoder.config.image_size).to(device, dtype)
    layers = getattr(image_encoder, "vision_model", image_encoder).encoder.layers
    wanted = len(layers) - 2
    found = run_blocks(
        lambda: image_encoder(pixel_values=pixels),
        list(layers),
        layers=[wanted],
        keep=lambda output: output[0] if isinstance(output, tuple) else output,
        should_stop=should_stop,
    )
    hidden: torch.Tensor = found[wanted]
    return hidden


def clip_pixels(
    frame: UInt8[np.ndarray, "H W 3"], size: int
) -> Float[torch.Tensor, "1 3 size size"]:
    """A picture as CLIP wants it: shorter side to `size` (bicubic), centre square, normalised.

    Computed on the CPU in bytes, as the usual image libraries do, for every device.
    """
    height, width = frame.shape[:2]
    short = min(height, width)
    scaled = (size * height // short, size * width // short)
    picture = torch.from_numpy(np.ascontiguousarray(frame)).permute(2, 0, 1)[None]
    picture = functional.interpolate(picture, scaled, mode="bicubic", antialias=True)
    top, left = (scaled[0] - size) // 2, (scaled[1] - size) // 2
    square = picture[:, :, top : top + size, left : left + size].float() / 255
    mean, spread = (torch.tensor(values).view(1, 3, 1, 1) for values in (CLIP_MEAN, CLIP_STD))
    return (square - mean) / spread


def load_image_encoder(target: Target) -> Any:
    """CLIP's image encoder of a folder, on its device in its dtype.

    Raises:
        BackboneError: it is missing, broken or of another structure, or transformers is missing.
    """
    try:
        from transformers import CLIPVisionConfig, CLIPVisionModel
    except ImportError:
        raise BackboneError(
            "Wan's image-to-video models need transformers for their image encoder: "
            "pip install 'emerge3d[backbones]'"
        ) from None

    part = "image_encoder"
    config, *files = _wan_published.FAMILY.files(target.folder, part)
    settings = _wan_published.FAMILY.config(target.folder, part)
    make: Any = CLIPVisionModel
    network = _build.build_empty(
        lambda: make(CLIPVisionConfig(**settings)),
        lambda: make(CLIPVisionConfig(**{**settings, "num_hidden_layers": 0})),
    )
    # Published files have the names of releases in which the model was one part of another.
    outer = "" if hasattr(network, "vision_model") else "vision_model."
    return _build.fill(
        network,
        (
            (name.removeprefix(outer), tensor)
            for name, tensor in _build.shards(files)
            if name != "visual_projection.weight" and not name.endswith("position_ids")
        ),
        device=target.device,
        dtype=target.dtype,
        where=config.parent,
        offload=target.offload,
    )


def write_tiny(folder: Path, **changes: Any) -> None:
    """Random weights of a tiny image-to-video Wan in the published layout."""
    from safetensors.torch import save_file
    from transformers import CLIPVisionConfig, CLIPVisionModel

    settings: dict[str, Any] = {"in_channels": 12, "image_dim": 16, "added_kv_proj_dim": 24}
    _wan_published.write_tiny(folder, **{**settings, **changes})
    library: Any = CLIPVisionModel
    config = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        image_size=28,
        patch_size=7,
    )
    encoder = library(config)
    _tiny.randomize(encoder, torch.Generator().manual_seed(1))
    part = folder / "image_encoder"
    part.mkdir()
    config.to_json_file(part / "config.json")
    names = {
        f"vision_model.{name.removeprefix('vision_model.')}": tensor.contiguous()
        for name, tensor in encoder.state_dict().items()
    }
    save_file(names, part / "model.safetensors")
