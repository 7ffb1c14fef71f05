"""What is asked of one look, and the stages that come out of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from explorer._typing import Float
from explorer.backbones._options import Target
from explorer.features import Features
from explorer.reconstruction import Reconstruction
from explorer.report import Report

if TYPE_CHECKING:
    from explorer.clip import Clip
    from explorer.references.agreement import Agreement


@dataclass(frozen=True)
class LookRequest:
    """One cell of one clip.

    Attributes:
        path: video file, folder of images, or a dataset's scene, see `explorer.source`.
        backbone: registry id.
        layer: 0-based block output; negative counts from the end.
        sigma: fraction of noise in [0, 1]; ignored (0) by backbones without noise.
        seed: seed of the noise.
        reference: id of a reference, "none", or "auto": whichever knows the clip, if any does.
        judge: id of a second reference that the first one is held against, or "none".
        start, stride, count: window of source frames; `count` None takes all.
        device: "auto", "cpu", "cuda", "cuda:1", ...
        dtype: of the backbone's computation.
        also_layers: further layers kept from the same pass, so that a later look at them finds its
            features in the store. Layers up to `layer` cost nothing but space (0.97 MB each for a
            17-frame clip of `toy-wan`); each block beyond `layer` adds its share of the pass.
        weights: folder with the weights of a published model; None looks where they usually are.
        offload: keep its weights in host memory and bring blocks to the device in turn.
        vae_tiling: encode in overlapping tiles, which takes less memory.
        vae_dtype: of its video VAE.
        prompt: text for models that take one.
        compile: compile its blocks: faster passes after a slow first one.
        probe: folder of own probes, or the card of one; None takes the shipped ones.
    """

    path: str | Path
    backbone: str
    layer: int
    sigma: float
    seed: int = 0
    reference: str = "auto"
    start: int = 0
    stride: int = 1
    count: int | None = 17
    device: str = "auto"
    dtype: str = "float32"
    also_layers: tuple[int, ...] = ()
    weights: Path | None = None
    offload: bool = False
    vae_tiling: bool = False
    vae_dtype: str = "float32"
    prompt: str = ""
    compile: bool = False
    probe: Path | None = None
    judge: str = "none"

    def target(self, device: str) -> Target:
        """What the backbone's loader is asked for on a device."""
        return Target(
            device=device,
            dtype=self.dtype,
            weights=self.weights,
            offload=self.offload,
            vae_tiling=self.vae_tiling,
            vae_dtype=self.vae_dtype,
            prompt=self.prompt,
            compile=self.compile,
        )


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A finished step of a look; `seconds` counts from the start of the look."""

    seconds: float


@dataclass(frozen=True, kw_only=True)
class Decoded(Stage):
    """The frames are there."""

    clip: Clip


@dataclass(frozen=True, kw_only=True)
class LatentsReady(Stage):
    """The VAE's work is done, or was not needed.

    Attributes:
        cached: whether the store had it; None where nobody asked, because the features were stored
            or the backbone has no VAE.
    """

    cached: bool | None


@dataclass(frozen=True, kw_only=True)
class FeaturesReady(Stage):
    """The features of the asked cell: enough for correspondence."""

    features: Features
    cached: bool


@dataclass(frozen=True, kw_only=True)
class FramePredicted(Stage):
    """The geometry of one slot, in the unit and the frame of a `Reconstruction`.

    Attributes:
        slot: position among the prediction's frames.
        frame: frame of the clip that it shows.
        depth: (H, W) z-depth.
        points: (H, W, 3) world points.
        confidence: (H, W) >= 0.
        cam_from_world: (3, 4).
        intrinsics: (3, 3) in pixels of (H, W).
        cached: the store had it.
    """

    slot: int
    frame: int
    depth: Float[np.ndarray, "H W"]
    points: Float[np.ndarray, "H W 3"]
    confidence: Float[np.ndarray, "H W"]
    cam_from_world: Float[np.ndarray, "3 4"]
    intrinsics: Float[np.ndarray, "3 3"]
    cached: bool


@dataclass(frozen=True, kw_only=True)
class Predicted(Stage):
    """All slots together, or None and the reason why nothing can read this cell out."""

    reconstruction: Reconstruction | None
    reason: str | None
    cached: bool


@dataclass(frozen=True, kw_only=True)
class Referenced(Stage):
    """What the reference says, or None and a note that says why.

    Attributes:
        reconstruction: at the prediction's frames and resolution.
        full: at all frames that the reference has, in its own resolution; for correspondence.
        note: why there is none, or None.
    """

    reconstruction: Reconstruction | None
    full: Reconstruction | None
    note: str | None


@dataclass(frozen=True, kw_only=True)
class Judged(Stage):
    """What a second judge says about the reference; only where one was asked for.

    Attributes:
        judge: its id, or that of whom it asked in turn.
        agreement: of the reference, at the frames and pixels of `Referenced.reconstruction`, with
            the judge; `agreement.disagree` are the disputed pixels. None without one.
        provenance: of what the judge found.
        note: what to keep in mind about it, or why there is no agreement.
    """

    judge: str
    agreement: Agreement | None
    provenance: dict[str, Any]
    note: str | None


@dataclass(frozen=True, kw_only=True)
class Compared(Stage):
    """The metrics; `report` is None without a prediction or a reference.

    `undisputed` is the same without the pixels that a second judge disputes, None without one.

    `correspondence` is what `explorer.correspondence.correspondence_summary` gives (`error_px`,
    `pck`, ...), None without a reference.
    """

    report: Report | None
    correspondence: dict[str, Any] | None
    undisputed: Report | None = None


@dataclass(frozen=True, kw_only=True)
class Finished(Stage):
    """The last stage: what `emerge3d look --json` prints."""

    summary: dict[str, Any] = field(default_factory=dict)
