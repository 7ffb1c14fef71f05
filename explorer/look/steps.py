"""What looks at one clip with one backbone are made of: a look takes one cell, a sweep many."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

from explorer import references
from explorer.errors import NoReconstruction, ProbeError
from explorer.look import cache, judging
from explorer.look.features import FeatureSteps

if TYPE_CHECKING:
    from explorer.clip import Clip
    from explorer.features import Features
    from explorer.look.stages import LookRequest
    from explorer.probe.checkpoint import ProbeCard
    from explorer.reconstruction import Reconstruction
    from explorer.report import Report
    from explorer.source import Source
    from explorer.store import Store

NO_REFERENCE = "none"
WHO_KNOWS = "auto"
"""The first reference that has the clip's geometry at hand, or none."""
NOBODY_KNOWS = (
    "no reference: none has the geometry of this video at hand; the reference 'estimate' asks the "
    "best judge that is here (emerge3d references lists them)"
)

Geometry = tuple["Reconstruction | None", "str | None"]
"""What a reference says of a whole clip, or None and why."""
Sampled = tuple["Reconstruction | None", "Reconstruction | None", "str | None"]


class Steps(FeatureSteps):
    """All steps: features, what a probe reads out of them, and what a reference says to it.

    Args:
        request: with reference and probe.
        store: as in `FeatureSteps`, and so should_stop, source and keep.
        known: geometries of this clip, shared by the backbones that see it alike.

    Attributes:
        reference_id: who is asked for the geometry; set by `decode` where "auto" was asked.
    """

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
        super().__init__(request, store, should_stop, source=source, keep=keep)
        self.reference_id = request.reference
        self.known = {} if known is None else known
        self._sampled: dict[tuple[int, int], Sampled] = {}

    def decode(self) -> Clip:
        """As in `FeatureSteps`; also finds out who knows the clip's geometry."""
        clip = super().decode()
        if self.request.reference == WHO_KNOWS:
            self.reference_id = references.who_knows(clip) or NO_REFERENCE
        return clip

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
                return None, NOBODY_KNOWS
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
        size = prediction.size if prediction else judging.half(self.clip)
        if size not in self._sampled:
            with self.timed("reference"):
                shown, lacking = judging.sampled(full, features, size)
                said = lacking if shown is None else references.note(self.reference_id, full)
                note = "; ".join(dict.fromkeys(filter(None, (said, lacking)))) or None
                self._sampled[size] = shown, None if shown is None else full, note
        return self._sampled[size]

    def surroundings(self, features: Features) -> references.Context:
        """What a reference may use besides the frames that the backbone takes."""
        return references.Context(
            store=self.store,
            should_stop=self.should_stop,
            decode=self.decoded,
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

    def prediction_key(self, probe: ProbeCard, features: Features) -> dict[str, Any]:
        """What determines a prediction from features of this clip."""
        cell = self.features_key(features.layer, features.sigma, features.seed)
        return cache.prediction_key(cell, probe.sha256)


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
