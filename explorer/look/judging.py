"""References in a look: sampled as the prediction is, and held against a second judge."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from explorer import references
from explorer.errors import ComparisonError, NoReconstruction, ReferenceError3D
from explorer.look import cache
from explorer.references import agreement

if TYPE_CHECKING:
    from explorer._typing import Bool
    from explorer.clip import Clip
    from explorer.features import Features
    from explorer.reconstruction import Reconstruction
    from explorer.references.agreement import Agreement
    from explorer.report import Report
    from explorer.store import Store


@dataclass(frozen=True)
class Judgement:
    """What a second judge says about a reference.

    Attributes:
        judge: its id, or that of whom it asked in turn.
        agreement: of the reference, at the compared frames and pixels, with the judge; None where
            they cannot be compared.
        provenance: of what the judge found.
        note: what to keep in mind about it, or why there is no agreement.
    """

    judge: str
    agreement: Agreement | None
    provenance: dict[str, Any]
    note: str | None


def judge(
    name: str,
    clip: Clip,
    reference: Reconstruction | None,
    context: references.Context,
    store: Store,
) -> Judgement:
    """Ask a second judge about the compared frames and hold the reference against it.

    Args:
        name: id of the judge.
        clip: the frames.
        reference: at the compared frames and pixels; None where there is none.
        context: for the judge, whose reconstruction is stored as any reference's.
        store: keeps the agreement, which takes torch to compute.

    Raises:
        ReferenceError3D: the judge cannot be used.
        Cancelled: `context.should_stop` became true.
    """
    if reference is None:
        return _none(name, "there is no reference to hold against it")
    try:
        found = references.reconstruct(name, clip, context)
    except NoReconstruction as error:
        return _none(name, str(error))
    if found is None:
        return _none(name, f"{name!r} knows nothing about this video")
    if found.source == reference.source:
        return _none(name, f"here it is {found.source}, as is the reference")
    key = cache.agreement_key(reference, found)
    agreed = cache.get_agreement(store, key)
    if agreed is None:
        try:
            agreed = agreement.agree(reference, found)
        except ComparisonError as error:
            return _none(name, str(error))
        cache.put_agreement(store, key, agreed)
    said = references.note(name, found)
    note = said and said.replace("the reference", "the second judge", 1)
    who = found.provenance.get("judge", name)  # whom it asked in turn
    return Judgement(who, agreed, {"source": found.source, **found.provenance}, note)


def undisputed(
    judgement: Judgement | None,
    reference: Reconstruction,
    report: Report,
    compare: Callable[[Reconstruction], Report],
) -> Report | None:
    """The comparison without the pixels that the judges dispute; None without a second judge.

    Args:
        judgement: of the second judge.
        reference: at the compared frames and pixels.
        report: of the prediction against all of it.
        compare: the prediction with another reference.
    """
    if judgement is None or judgement.agreement is None:
        return None
    disputed = judgement.agreement.disagree
    if not disputed.any():
        return report
    try:
        return compare(agreement.without(reference, disputed))
    except ComparisonError:  # nothing is left
        return None


def summary(
    judgement: Judgement | None, reference: Reconstruction | None, rest: Report | None
) -> dict[str, Any]:
    """`agreement` and `undisputed` of a look's summary, each None where there is none."""
    if judgement is None or judgement.agreement is None or reference is None:
        return {"agreement": None, "undisputed": None}
    found = judgement.agreement
    report, known = found.report, found.known
    return {
        "agreement": {
            "judge": judgement.judge,
            "share": found.share,
            "threshold": found.threshold,
            "pixels": int(known.sum()),
            "point_error": report.point_error,
            "depth_error": report.depth_error,
            "auc5": report.auc5,
            "auc30": report.auc30,
            "per_frame": [
                {
                    "frame": int(frame),
                    "share": _share(found.disagree[slot], known[slot]),
                }
                for slot, frame in enumerate(reference.frames)
            ],
            "provenance": judgement.provenance,
        },
        "undisputed": rest
        and {
            "point_error": rest.point_error,
            "depth_error": rest.depth_error,
            "per_frame": rest.per_frame,
        },
    }


def _share(disputed: Bool[np.ndarray, "H W"], known: Bool[np.ndarray, "H W"]) -> float | None:
    """Of the known pixels; None where there are none."""
    return float(disputed.sum() / known.sum()) if known.any() else None


def sampled(
    reference: Reconstruction, features: Features, size: tuple[int, int]
) -> tuple[Reconstruction | None, str | None]:
    """The reference at the slots' frames, on a prediction's pixel grid, and what it lacks there.

    None where a sparse reference has nothing in any of these frames.
    """
    frames = features.slot_frames
    note: str | None = None
    if reference.sparse:
        found = np.isin(frames, reference.frames)
        if not found.all():
            lacking = ", ".join(map(str, frames[~found]))
            note = f"{reference.source} did not register frames {lacking}: no errors there"
        frames = frames[found]
        if not found.any() or not reference.at_frames(frames).valid.any():
            return (
                None,
                f"no reference: {reference.source} has none of the frames that are compared",
            )
    try:
        sampled = reference.at_frames(frames)
    except KeyError as error:
        raise ReferenceError3D(f"{error.args[0]}: choose another window or reference") from None
    return (sampled if sampled.size == size else sampled.resized(*size)), note


def half(clip: Clip) -> tuple[int, int]:
    """Where there is no prediction to match: enough points to see, few enough to stream."""
    height, width = clip.size
    return max(1, height // 2), max(1, width // 2)


def _none(name: str, why: str) -> Judgement:
    return Judgement(name, None, {}, f"no second judge: {name}: {why}")
