"""The first steps of looks at one clip with one backbone: from the video to features."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from explorer.backbones import registry
from explorer.backbones.base import Hashes, check_clip
from explorer.errors import BackboneError
from explorer.look import cache
from explorer.source import Source, open_source

if TYPE_CHECKING:
    from explorer.backbones.base import Backbone
    from explorer.clip import Clip
    from explorer.features import Features
    from explorer.look.stages import LookRequest
    from explorer.store import Store

STEPS = ("decode", "load", "latents", "features", "prediction", "reference", "comparison")


class FeatureSteps:
    """One clip before one backbone. `decode` and `prepare` come first, in this order.

    Args:
        request: path, window, backbone and target; which cell is said with each step.
        store: asked before anything is computed.
        should_stop: asked within the steps.
        source: of the clip, where it is open already.
        keep: put features, predictions and comparisons into the store; latents always go there.

    Attributes:
        card: of the backbone.
        clip, key: the frames, and what determines them; set by `decode`.
        device, hashes: set by `prepare`.
        seconds: spent on each step since `begin`.
        cached: what the store had.

    Raises:
        EmergeError: the path names nothing, or the backbone or its weights are not here.
    """

    clip: Clip
    key: dict[str, Any]
    device: str
    hashes: Hashes

    def __init__(
        self,
        request: LookRequest,
        store: Store,
        should_stop: Callable[[], bool],
        *,
        source: Source | None = None,
        keep: bool = True,
    ) -> None:
        self.request = request
        self.store = store
        self.should_stop = should_stop
        self.source = open_source(request.path) if source is None else source
        self.keep = keep
        self.card = registry.fitting_card(request.backbone, request.target("cpu"))
        self._latents: np.ndarray | None = None
        self.begin()

    def begin(self) -> None:
        """Count the seconds and the hits of the store from here."""
        self.seconds = dict.fromkeys(STEPS, 0.0)
        self.cached: dict[str, bool | None] = {
            "latents": None,
            "features": False,
            "prediction": False,
        }

    def sigma(self, asked: float) -> float:
        """The noise level that counts: 0 for a backbone without noise.

        Raises:
            BackboneError: it is outside [0, 1].
        """
        sigma = float(asked) if self.card.uses_sigma else 0.0
        if not 0.0 <= sigma <= 1.0:
            raise BackboneError(f"sigma {sigma} is not in [0, 1]: it is the fraction of noise")
        return sigma

    def decode(self) -> Clip:
        """The frames, in the backbone's size.

        Raises:
            ClipError, DatasetError: they cannot be read.
        """
        with self.timed("decode"):
            self.clip = self.decoded(self.card.input_size)
            self.key = cache.clip_key(self.clip)
        return self.clip

    def decoded(self, size: tuple[int, int]) -> Clip:
        """The frames of the window in another (height, width)."""
        request = self.request
        return self.source.clip(
            start=request.start,
            stride=request.stride,
            count=request.count,
            size=size,
            fit=self.card.fit,
        )

    def prepare(self, layers: Sequence[int], sigma: float) -> None:
        """Refuse what the backbone cannot take, and find out what its results are stored under.

        Raises:
            BackboneError: the frame count, a layer, sigma, the device or the weights do not fit.
        """
        with self.timed("load"):
            check_clip(self.card, self.clip, layers, sigma)
            self.device = registry.resolve_device(self.request.device)
            self.hashes = registry.hashes(self.request.backbone, self.request.target(self.device))

    def stored(self, layers: Sequence[int], sigma: float, seed: int) -> dict[int, Features] | None:
        """The features of all these layers out of the store, or None where it lacks any."""
        found = {}
        with self.timed("features"):
            for layer in layers:
                values = cache.get_features(self.store, self.features_key(layer, sigma, seed))
                if values is None:
                    return None
                found[layer] = values
        self.cached["features"] = True
        return found

    def latents(self) -> np.ndarray | None:
        """What the VAE makes of the clip, once; None for a backbone without one.

        Raises:
            BackboneError: the model cannot be loaded.
            Cancelled: `should_stop` became true.
        """
        backbone = self._backbone()
        if backbone.encoder_hash is None or self._latents is not None:
            return self._latents
        with self.timed("latents"):
            self._latents, self.cached["latents"] = cache.cached_latents(
                self.store,
                cache.latents_key(self.key, self.card, self.hashes, self.device),
                lambda: backbone.encode(self.clip, should_stop=self.should_stop),
            )
        return self._latents

    def extract(self, layers: Sequence[int], sigma: float, seed: int) -> dict[int, Features]:
        """The features of all these layers from one pass.

        Raises:
            BackboneError: the model cannot be loaded.
            Cancelled: `should_stop` became true; nothing of the pass is stored.
        """
        backbone, latents = self._backbone(), self.latents()
        with self.timed("features"):
            found = backbone.extract(
                self.clip,
                layers=layers,
                sigma=sigma,
                seed=seed,
                latents=latents,
                should_stop=self.should_stop,
            )
            if self.keep:
                for layer, values in found.items():
                    cache.put_features(self.store, self.features_key(layer, sigma, seed), values)
        return found

    def _backbone(self) -> Backbone:
        with self.timed("load"):
            request = self.request
            backbone = registry.load(request.backbone, target=request.target(self.device))
            # The store was asked with the files' hash; what is kept is named after the model's own.
            self.hashes = Hashes(backbone.weights_hash, backbone.encoder_hash)
        return backbone

    def features_key(self, layer: int, sigma: float, seed: int) -> dict[str, Any]:
        """What determines features of this clip."""
        return cache.features_key(
            self.key,
            self.card,
            self.hashes,
            layer=layer,
            sigma=sigma,
            seed=seed,
            device=self.device,
            dtype=self.request.dtype,
            compiled=self.request.compile,
        )

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Add the time spent inside to a step; what the caller does between steps is not ours."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start
