"""The best judge at hand of a video that nobody knows: COLMAP if it registers it, or a network.

COLMAP comes first because no network had a hand in it, so that a probe on a network's features is
not held against a relative. What it cannot reconstruct, and says so, the largest network that is
here estimates.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from explorer import references
from explorer.clip import Clip
from explorer.errors import NoReconstruction, ReferenceError3D
from explorer.reconstruction import Reconstruction
from explorer.references import Context, register

NAME = "estimate"
JUDGES = ("colmap", "vggt", "da3-base", "da3-small", "toy-vggt")
"""In the order in which they are asked."""
ENOUGH = 0.5
"""Share of the compared frames that a judge must have something to say about."""


def _missing() -> str | None:
    if any(references.is_here(name) for name in JUDGES):
        return None
    return (
        "no judge of unknown videos is here: pip install 'emerge3d[colmap]', or see "
        "`emerge3d references` for networks"
    )


@register(
    NAME,
    "Best judge at hand: COLMAP where it registers the clip, else a network",
    missing=_missing,
    remark="best judge at hand, not ground truth",
    licence="that of the judge",
)
def reconstruct(clip: Clip, context: Context) -> Reconstruction:
    """What the first of `JUDGES` that can says; provenance has `judge` and a `note` on why it is.

    Raises:
        NoReconstruction: none of them can; says why of each.
        Cancelled: `context.should_stop` became true.
    """
    passed: list[str] = []
    for name in JUDGES:
        if not references.is_here(name):
            passed.append(f"{name} is not here")
            continue
        try:
            found = references.reconstruct(name, clip, context)
        except ReferenceError3D as error:
            passed.append(f"{name}: {error}")
            continue
        share = 0.0 if found is None else _covered(found, clip, context)
        if found is None or share < ENOUGH:
            passed.append(f"{name} has only {share:.0%} of the frames that are compared")
            continue
        provenance = {**found.provenance, "judge": name, "note": _note(name, found, passed)}
        return replace(found, provenance=provenance)
    raise NoReconstruction(f"no judge here can reconstruct this clip: {'; '.join(passed)}")


def _covered(found: Reconstruction, clip: Clip, context: Context) -> float:
    """Share of the compared frames that have a known pixel."""
    wanted = range(len(clip)) if context.frames is None else context.frames
    known = found.frames[found.valid.any(axis=(1, 2))]
    return float(np.isin(list(wanted), known).mean())


def _note(name: str, found: Reconstruction, passed: list[str]) -> str:
    said = references.note(name, found) or f"the reference is that of {name}"
    return "; ".join((said, *passed))
