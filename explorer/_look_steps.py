"""What looks at one clip with one backbone are made of: a look takes one cell, a sweep many."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from explorer import _look_cache as cache
from explorer import _look_references, references
from explorer.backbones import registry
from explorer.backbones.base import Hashes, check_clip
from explorer.errors import BackboneError, NoReconstruction, ProbeError
from explorer.source import Source, open_source

if TYPE_CHECKING:
    from explorer._look_stages import LookRequest
    from explorer.backbones.base import Backbone
    from explorer.clip import Clip
    from explorer.features import Features
    from explorer.probe.checkpoint import ProbeCard
    from explorer.reconstruction import Reconstruction
    from explorer.report import Report
    from explorer.store import Store

NO_REFERENCE = "none"
WHO_KNOWS = "auto"
"""The first reference that has the clip's geometry at hand, or none."""
STEPS = ("decode", "load", "latents", "features", "prediction", "reference", "comparison")

Geometry = tuple["Reconstruction | None", "str | None"]
"""What a reference says of a whole clip, or None and why."""
Sampled = tuple["Reconstruction | None", "Reconstruction | None", "str | None"]


class Steps:
    """One clip before one backbone. `decode` and `prepare` come first, in this order.

    Args:
        request: path, window, backbone, reference, probe and target; which cell is said with each
            step.
        store: asked before anything is computed.
        should_stop: asked within the steps.
        source: of the clip, where it is open already.
        keep: put features, predictions and comparisons into the store; latents always go there.
        known: geometries of this clip, shared by the backbones that see it alike.

    Attributes:
        card: of the backbone.
        clip, key: the frames, and what determines them; set by `decode`.
        reference_id: who is asked for the geometry; set by `decode` where "auto" was asked.
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
        known: dict[tuple[Any, ...], Geometry] | None = None,
    ) -> None:
        self.request = request
        self.store = store
        self.should_stop = should_stop
        self.source = open_source(request.path) if source is None else source
        self.keep = keep
        self.known = {} if known is None else known
        self.reference_id = request.reference
        self.card = registry.fitting_card(request.backbone, request.target("cpu"))
        self._latents: np.ndarray | None = None
        self._sampled: dict[tuple[int, int], Sampled] = {}
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
        """The frames, in the backbone's size; also finds out who knows their geometry.

        Raises:
            ClipError, DatasetError: they cannot be read.
        """
        with self.timed("decode"):
            self.clip = self._decoded(self.card.input_size)
            self.key = cache.clip_key(self.clip)
        if self.request.reference == WHO_KNOWS:
            self.reference_id = references.who_knows(self.clip) or NO_REFERENCE
        return self.clip

    def _decoded(self, size: tuple[int, int]) -> Clip:
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

    def probe(self, features: Features) -> ProbeCard | None:
        """The card of the probe for a cell, None where there is none.

        Raises:
            ProbeError: there is something else in its place.
        """
        from explorer.probe.checkpoint import choose_probe

        return choose_probe(self.request.probe, self.card.id, features.layer, features.sigma)

    def prediction(
        self, features: Features
    ) -> Generator[
        dict[str, Any], None, tuple[Reconstruction | None, ProbeCard | None, str | None]
    ]:
        """What a probe reads out of a cell, or why none does.

        Yields:
            The fields of a `FramePredicted` but its seconds and `cached`, slot by slot.
        """
        from explorer.probe.checkpoint import missing_probe

        probe = self.probe(features)
        if probe is None:
            asked = self.request.probe, self.card.id, features.layer, features.sigma
            return None, None, missing_probe(*asked)
        try:
            return (yield from self._frames(probe, features)), probe, None
        except ProbeError as error:
            # The clip's features are still worth looking at, so the look goes on.
            return None, None, str(error)

    def _frames(
        self, probe: ProbeCard, features: Features
    ) -> Generator[dict[str, Any], None, Reconstruction]:
        wanted = self.prediction_key(probe, features)
        with self.timed("prediction"):
            stored = cache.get_reconstruction(self.store, wanted)
        self.cached["prediction"] = stored is not None
        if stored is not None:
            for slot in range(len(stored.frames)):
                yield _frame_of(stored, slot)
            return stored

        from explorer.probe.checkpoint import load_probe
        from explorer.probe.predict import assemble, predict_frames

        with self.timed("prediction"):
            model = load_probe(probe, backbone_hash=features.backbone_hash, device=self.device)
        done = []
        stream = predict_frames(model, features)
        while True:
            with self.timed("prediction"):
                frame = next(stream, None)
            if frame is None:
                break
            done.append(frame)
            yield vars(frame)
        with self.timed("prediction"):
            found = assemble(done, features, card=probe)
            if self.keep:
                cache.put_reconstruction(self.store, wanted, found)
        return found

    def geometry(self, features: Features) -> Geometry:
        """What the reference says of the whole clip, asked once for all that see it alike.

        Raises:
            ReferenceError3D: the reference cannot be used.
            Cancelled: `should_stop` became true.
        """
        name = self.reference_id
        if name == NO_REFERENCE:
            if self.request.reference == WHO_KNOWS:
                return None, "no reference: none has the geometry of this video at hand"
            return None, "no reference was asked for"
        alike = (name, self.clip.content_hash, self.device, *features.slot_frames.tolist())
        if alike not in self.known:
            with self.timed("reference"):
                self.known[alike] = self._geometry(name, features)
        return self.known[alike]

    def _geometry(self, name: str, features: Features) -> Geometry:
        try:
            full = references.reconstruct(name, self.clip, self.surroundings(features))
        except NoReconstruction as error:
            # The clip's features are still worth looking at, so the look goes on.
            return None, f"no reference: {error}"
        return full, None if full else f"no reference: {name!r} knows nothing about this video"

    def reference(self, features: Features, prediction: Reconstruction | None) -> Sampled:
        """(at the compared frames and pixels, at all that the reference has, what to keep in mind).

        Raises:
            ReferenceError3D: the reference cannot be used, or has not all of the compared frames.
            Cancelled: `should_stop` became true.
        """
        full, note = self.geometry(features)
        if full is None:
            return None, None, note
        size = prediction.size if prediction else _look_references.half(self.clip)
        if size not in self._sampled:
            with self.timed("reference"):
                shown, lacking = _look_references.sampled(full, features, size)
                said = lacking if shown is None else references.note(self.reference_id, full)
                note = "; ".join(dict.fromkeys(filter(None, (said, lacking)))) or None
                self._sampled[size] = shown, None if shown is None else full, note
        return self._sampled[size]

    def surroundings(self, features: Features) -> references.Context:
        """What a reference may use besides the frames that the backbone takes."""
        return references.Context(
            store=self.store,
            should_stop=self.should_stop,
            decode=self._decoded,
            device=self.device,
            frames=tuple(features.slot_frames.tolist()),
        )

    def report(
        self, prediction_key: dict[str, Any], prediction: Reconstruction, reference: Reconstruction
    ) -> Report:
        """The comparison, from the store where it has it: computing it imports torch.

        Raises:
            ComparisonError: the two have nothing in common.
        """
        wanted = cache.report_key(prediction_key, reference)
        found = cache.get_report(self.store, wanted)
        if found is None:
            from explorer.metrics import compare

            found = compare(prediction, reference)
            if self.keep:
                cache.put_report(self.store, wanted, found)
        return found

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
        )

    def prediction_key(self, probe: ProbeCard, features: Features) -> dict[str, Any]:
        """What determines a prediction from features of this clip."""
        cell = self.features_key(features.layer, features.sigma, features.seed)
        return cache.prediction_key(cell, probe.sha256)

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Add the time spent inside to a step; what the caller does between steps is not ours."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


def _frame_of(found: Reconstruction, slot: int) -> dict[str, Any]:
    return {
        "slot": slot,
        "frame": int(found.frames[slot]),
        "depth": found.depth[slot],
        "points": found.points[slot],
        "confidence": found.confidence[slot],
        "cam_from_world": found.cameras.cam_from_world[slot],
        "intrinsics": found.cameras.intrinsics[slot],
    }
