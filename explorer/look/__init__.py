"""One look: clip + backbone + layer + sigma -> everything shown, as a stream of stages."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from explorer import references
from explorer.backbones.base import never, stop_check
from explorer.correspondence import correspondence_summary
from explorer.features import resolve_layers
from explorer.look import judging
from explorer.look.stages import (
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
from explorer.look.steps import NO_REFERENCE, WHO_KNOWS, Steps
from explorer.look.summary import summarize
from explorer.references.consistency import summary as consistency_of

if TYPE_CHECKING:
    from explorer.features import Features
    from explorer.probe.checkpoint import ProbeCard
    from explorer.reconstruction import Reconstruction
    from explorer.store import Store

__all__ = [
    "NO_REFERENCE",
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
        self.start = time.perf_counter()
        self.steps = Steps(request, store, should_stop)
        count = self.steps.card.layers
        self.layers = resolve_layers([request.layer, *request.also_layers], count)
        self.layer = resolve_layers([request.layer], count)[0]
        self.sigma = self.steps.sigma(request.sigma)
        if request.reference not in (NO_REFERENCE, WHO_KNOWS):
            references.check(request.reference)
        if request.judge != NO_REFERENCE:
            references.check(request.judge)
            self.steps.seconds["judge"] = 0.0

    def stages(self) -> Iterator[Stage]:
        steps, timed = self.steps, self.steps.timed
        clip = steps.decode()
        request = replace(self.request, reference=steps.reference_id)
        yield Decoded(seconds=self.now(), clip=clip)

        steps.prepare(self.layers, self.sigma)
        features = yield from self.features()
        prediction, probe, probe_note = yield from self.prediction(features)
        reference, full, reference_note, consistency = yield from self.reference(
            features, prediction
        )

        judgement = None
        if request.judge != NO_REFERENCE:
            with timed("judge"):
                judgement = judging.judge(
                    request.judge, clip, reference, steps.surroundings(features), steps.store
                )
            yield Judged(seconds=self.now(), **vars(judgement))

        with timed("comparison"):
            report = rest = None
            if prediction is not None and probe is not None and reference is not None:
                wanted = steps.prediction_key(probe, features)
                compare = functools.partial(steps.report, wanted, prediction)
                report = compare(reference)
                rest = judging.undisputed(judgement, reference, report, compare)
            matches = None
            if full is not None:
                matches = correspondence_summary(features, full, size=clip.size)
        yield Compared(seconds=self.now(), report=report, correspondence=matches, undisputed=rest)

        steps.seconds["total"] = sum(steps.seconds.values())
        summary = summarize(
            request,
            clip=clip,
            features=features,
            device=steps.device,
            probe=probe,
            probe_note=probe_note,
            reference=reference,
            reference_note=reference_note,
            reference_consistency=consistency,
            judged=judging.summary(judgement, reference, rest),
            judge_note=None if judgement is None else judgement.note,
            report=report,
            correspondence=matches,
            seconds=steps.seconds,
            cached=steps.cached,
        )
        yield Finished(seconds=self.now(), summary=summary)

    def features(self) -> Generator[Stage, None, Features]:
        steps, seed = self.steps, self.request.seed
        found = steps.stored([self.layer], self.sigma, seed)
        stored = found is not None
        if not stored:
            steps.latents()
        yield LatentsReady(seconds=self.now(), cached=steps.cached["latents"])
        if found is None:
            found = steps.extract(self.layers, self.sigma, seed)
        mine = found[self.layer]
        yield FeaturesReady(seconds=self.now(), features=mine, cached=stored)
        return mine

    def prediction(
        self, features: Features
    ) -> Generator[Stage, None, tuple[Reconstruction | None, ProbeCard | None, str | None]]:
        frames = self.steps.prediction(features)
        while True:
            try:
                frame = next(frames)
            except StopIteration as done:
                found, probe, reason = done.value
                break
            cached = bool(self.steps.cached["prediction"])
            yield FramePredicted(seconds=self.now(), cached=cached, **frame)
        cached = bool(self.steps.cached["prediction"])
        yield Predicted(seconds=self.now(), reconstruction=found, reason=reason, cached=cached)
        return found, probe, reason

    def reference(
        self, features: Features, prediction: Reconstruction | None
    ) -> Generator[
        Stage,
        None,
        tuple[Reconstruction | None, Reconstruction | None, str | None, dict[str, Any] | None],
    ]:
        consistency = None
        shown, full, note = self.steps.reference(features, prediction)
        if full is not None and not full.sparse and len(full.frames) > 1:
            with self.steps.timed("reference"):
                consistency = consistency_of(full)
        yield Referenced(seconds=self.now(), reconstruction=shown, full=full, note=note)
        return shown, full, note, consistency

    def now(self) -> float:
        return time.perf_counter() - self.start
