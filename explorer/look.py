"""One look: clip + backbone + layer + sigma -> everything shown, as a stream of stages."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from explorer import _look_cache as cache
from explorer import _look_references, references
from explorer._look_stages import (
    Compared,
    Decoded,
    FeaturesReady,
    Finished,
    FramePredicted,
    Judged,
    LatentsReady,
    LookRequest,
    Predicted,
    Referenced,
    Stage,
)
from explorer._look_summary import summarize
from explorer.backbones import registry
from explorer.backbones.base import Hashes, check_clip, never, stop_check
from explorer.correspondence import correspondence_summary
from explorer.errors import BackboneError, NoReconstruction, ProbeError
from explorer.features import resolve_layers
from explorer.references import consistency
from explorer.source import open_source

if TYPE_CHECKING:
    from explorer.clip import Clip
    from explorer.features import Features
    from explorer.probe.checkpoint import ProbeCard
    from explorer.reconstruction import Reconstruction
    from explorer.report import Report
    from explorer.store import Store

__all__ = [
    "Compared",
    "Decoded",
    "FeaturesReady",
    "Finished",
    "FramePredicted",
    "Judged",
    "LatentsReady",
    "LookRequest",
    "Predicted",
    "Referenced",
    "Stage",
    "look",
]

NO_REFERENCE = "none"
WHO_KNOWS = "auto"
"""The first reference that has the clip's geometry at hand, or none."""
STEPS = ("decode", "load", "latents", "features", "prediction", "reference", "comparison")


def look(
    request: LookRequest,
    *,
    store: Store,
    should_stop: Callable[[], bool] = never,
) -> Iterator[Stage]:
    """Look at one cell; each stage is yielded as soon as it is there.

    Order: Decoded, LatentsReady, FeaturesReady, FramePredicted (one a slot), Predicted, Referenced,
    Judged (only where a second judge is asked), Compared, Finished. Without a probe for the cell
    there is no FramePredicted and Predicted says which cells have one; without a reference the
    metrics are None.

    Raises:
        EmergeError: bad clip, backbone, layer, sigma or reference.
        Cancelled: `should_stop` became true; nothing of the unfinished step is stored.
    """
    run = _Run(request, store, should_stop)
    stop_check(should_stop)
    for stage in run.stages():
        yield stage
        if not isinstance(stage, Finished):
            stop_check(should_stop)


class _Run:
    """State of one look."""

    def __init__(self, request: LookRequest, store: Store, should_stop: Callable[[], bool]) -> None:
        self.request = request
        self.chosen = request.reference
        self.source = open_source(request.path)
        self.store = store
        self.should_stop = should_stop
        self.begin = time.perf_counter()
        self.seconds = dict.fromkeys(STEPS, 0.0)
        self.cached: dict[str, bool | None] = {
            "latents": None,
            "features": False,
            "prediction": False,
        }
        self.consistency: dict[str, Any] | None = None
        self.card = registry.fitting_card(request.backbone, request.target("cpu"))
        asked = [request.layer, *request.also_layers]
        self.layers = resolve_layers(asked, self.card.layers)
        self.layer = resolve_layers([request.layer], self.card.layers)[0]
        self.sigma = float(request.sigma) if self.card.uses_sigma else 0.0
        if not 0.0 <= self.sigma <= 1.0:
            raise BackboneError(f"sigma {self.sigma} is not in [0, 1]: it is the fraction of noise")
        if request.reference not in (NO_REFERENCE, WHO_KNOWS):
            references.check(request.reference)
        if request.judge != NO_REFERENCE:
            references.check(request.judge)
            self.seconds["judge"] = 0.0

    def stages(self) -> Iterator[Stage]:
        request = self.request
        with self.timed("decode"):
            clip = self.source.clip(
                start=request.start,
                stride=request.stride,
                count=request.count,
                size=self.card.input_size,
                fit=self.card.fit,
            )
            key = cache.clip_key(clip)
        if request.reference == WHO_KNOWS:
            known = references.who_knows(clip) or NO_REFERENCE
            request = self.request = replace(request, reference=known)
        yield Decoded(seconds=self.now(), clip=clip)

        with self.timed("load"):
            check_clip(self.card, clip, self.layers, self.sigma)
            device = registry.resolve_device(request.device)
            self.hashes = registry.hashes(request.backbone, request.target(device))
        features = yield from self.features(clip, key, device)
        prediction, probe, probe_note = yield from self.prediction(key, features, device)
        reference, full, reference_note = yield from self.reference(
            clip, features, prediction, device
        )

        judgement = None
        if request.judge != NO_REFERENCE:
            with self.timed("judge"):
                surroundings = self.surroundings(features, device)
                judgement = _look_references.judge(
                    request.judge, clip, reference, surroundings, self.store
                )
            yield Judged(seconds=self.now(), **vars(judgement))

        with self.timed("comparison"):
            report = rest = None
            if prediction is not None and probe is not None and reference is not None:
                wanted = cache.prediction_key(self.features_key(key, device), probe.sha256)
                compare = functools.partial(self.report, wanted, prediction)
                report = compare(reference)
                rest = _look_references.undisputed(judgement, reference, report, compare)
            matches = None
            if full is not None:
                matches = correspondence_summary(features, full, size=clip.size)
        yield Compared(seconds=self.now(), report=report, correspondence=matches, undisputed=rest)

        self.seconds["total"] = sum(self.seconds.values())
        summary = summarize(
            request,
            clip=clip,
            features=features,
            device=device,
            probe=probe,
            probe_note=probe_note,
            reference=reference,
            reference_note=reference_note,
            reference_consistency=self.consistency,
            judged=_look_references.summary(judgement, reference, rest),
            judge_note=None if judgement is None else judgement.note,
            report=report,
            correspondence=matches,
            seconds=self.seconds,
            cached=self.cached,
        )
        yield Finished(seconds=self.now(), summary=summary)

    def features(
        self, clip: Clip, key: dict[str, Any], device: str
    ) -> Generator[Stage, None, Features]:
        with self.timed("features"):
            found = cache.get_features(self.store, self.features_key(key, device))
        if found is not None:
            self.cached["features"] = True
            yield LatentsReady(seconds=self.now(), cached=None)
            yield FeaturesReady(seconds=self.now(), features=found, cached=True)
            return found
        with self.timed("load"):
            request = self.request
            backbone = registry.load(request.backbone, target=request.target(device))
            # The store was asked with the files' hash; what is kept is named after the model's own.
            self.hashes = Hashes(backbone.weights_hash, backbone.encoder_hash)
        latents = None
        with self.timed("latents"):
            if backbone.encoder_hash is not None:
                latents, self.cached["latents"] = cache.cached_latents(
                    self.store,
                    cache.latents_key(key, self.card, self.hashes, device),
                    lambda: backbone.encode(clip, should_stop=self.should_stop),
                )
        yield LatentsReady(seconds=self.now(), cached=self.cached["latents"])
        with self.timed("features"):
            all_features = backbone.extract(
                clip,
                layers=self.layers,
                sigma=self.sigma,
                seed=self.request.seed,
                latents=latents,
                should_stop=self.should_stop,
            )
            for layer, values in all_features.items():
                cache.put_features(self.store, self.features_key(key, device, layer), values)
        found = all_features[self.layer]
        yield FeaturesReady(seconds=self.now(), features=found, cached=False)
        return found

    def prediction(
        self, key: dict[str, Any], features: Features, device: str
    ) -> Generator[Stage, None, tuple[Reconstruction | None, ProbeCard | None, str | None]]:
        from explorer.probe.checkpoint import choose_probe, missing_probe

        found, reason = None, None
        probe = choose_probe(self.request.probe, self.card.id, self.layer, self.sigma)
        if probe is None:
            reason = missing_probe(self.request.probe, self.card.id, self.layer, self.sigma)
        else:
            wanted = cache.prediction_key(self.features_key(key, device), probe.sha256)
            try:
                found = yield from self.frames(probe, features, wanted, device)
            except ProbeError as error:
                # The clip's features are still worth looking at, so the look goes on.
                probe, reason = None, str(error)
        cached = bool(self.cached["prediction"])
        yield Predicted(seconds=self.now(), reconstruction=found, reason=reason, cached=cached)
        return found, probe, reason

    def frames(
        self, probe: ProbeCard, features: Features, wanted: dict[str, Any], device: str
    ) -> Generator[Stage, None, Reconstruction]:
        with self.timed("prediction"):
            stored = cache.get_reconstruction(self.store, wanted)
        if stored is not None:
            self.cached["prediction"] = True
            for slot in range(len(stored.frames)):
                yield _frame_of(stored, slot, self.now())
            return stored

        from explorer.probe.checkpoint import load_probe
        from explorer.probe.predict import assemble, predict_frames

        with self.timed("prediction"):
            model = load_probe(probe, backbone_hash=features.backbone_hash, device=device)
        done = []
        stream = predict_frames(model, features)
        while True:
            with self.timed("prediction"):
                frame = next(stream, None)
            if frame is None:
                break
            done.append(frame)
            yield FramePredicted(seconds=self.now(), cached=False, **vars(frame))
        with self.timed("prediction"):
            found = assemble(done, features, card=probe)
            cache.put_reconstruction(self.store, wanted, found)
        return found

    def reference(
        self, clip: Clip, features: Features, prediction: Reconstruction | None, device: str
    ) -> Generator[Stage, None, tuple[Reconstruction | None, Reconstruction | None, str | None]]:
        name = self.request.reference
        full = shown = None
        note: str | None = "no reference was asked for"
        if self.chosen == WHO_KNOWS:
            note = "no reference: none has the geometry of this video at hand"
        with self.timed("reference"):
            if name != NO_REFERENCE:
                try:
                    full = references.reconstruct(name, clip, self.surroundings(features, device))
                    note = (
                        None if full else f"no reference: {name!r} knows nothing about this video"
                    )
                except NoReconstruction as error:
                    # The clip's features are still worth looking at, so the look goes on.
                    note = f"no reference: {error}"
            if full is not None:
                size = prediction.size if prediction else _look_references.half(clip)
                shown, lacking = _look_references.sampled(full, features, size)
                said = lacking if shown is None else references.note(name, full)
                note = "; ".join(dict.fromkeys(filter(None, (said, lacking)))) or None
                full = None if shown is None else full
            if full is not None and not full.sparse and len(full.frames) > 1:
                self.consistency = consistency.summary(full)
        yield Referenced(seconds=self.now(), reconstruction=shown, full=full, note=note)
        return shown, full, note

    def surroundings(self, features: Features, device: str) -> references.Context:
        """What a reference may use besides the frames that the backbone takes."""
        request = self.request

        def decode(size: tuple[int, int]) -> Clip:
            return self.source.clip(
                start=request.start,
                stride=request.stride,
                count=request.count,
                size=size,
                fit=self.card.fit,
            )

        return references.Context(
            store=self.store,
            should_stop=self.should_stop,
            decode=decode,
            device=device,
            frames=tuple(features.slot_frames.tolist()),
        )

    def report(
        self, prediction_key: dict[str, Any], prediction: Reconstruction, reference: Reconstruction
    ) -> Report:
        """The comparison, from the store where it has it: computing it imports torch."""
        wanted = cache.report_key(prediction_key, reference)
        found = cache.get_report(self.store, wanted)
        if found is None:
            from explorer.metrics import compare

            found = compare(prediction, reference)
            cache.put_report(self.store, wanted, found)
        return found

    def features_key(
        self, clip: dict[str, Any], device: str, layer: int | None = None
    ) -> dict[str, Any]:
        return cache.features_key(
            clip,
            self.card,
            self.hashes,
            layer=self.layer if layer is None else layer,
            sigma=self.sigma,
            seed=self.request.seed,
            device=device,
            dtype=self.request.dtype,
        )

    def now(self) -> float:
        return time.perf_counter() - self.begin

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Add the time spent inside to a step; what the caller does between stages is not ours."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - start


def _frame_of(found: Reconstruction, slot: int, seconds: float) -> FramePredicted:
    return FramePredicted(
        seconds=seconds,
        slot=slot,
        frame=int(found.frames[slot]),
        depth=found.depth[slot],
        points=found.points[slot],
        confidence=found.confidence[slot],
        cam_from_world=found.cameras.cam_from_world[slot],
        intrinsics=found.cameras.intrinsics[slot],
        cached=True,
    )
