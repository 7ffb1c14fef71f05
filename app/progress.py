"""The status line: which stages of a look are done, how long each took, and what is next."""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape

from explorer.look import (
    Compared,
    Decoded,
    FeaturesReady,
    Finished,
    FramePredicted,
    Judged,
    LatentsReady,
    Predicted,
    Referenced,
    Stage,
)

STEPS = ("clip", "latents", "features", "prediction", "reference", "judge", "comparison")
DOING = {
    "clip": "Decoding the clip",
    "latents": "Encoding the clip; the first run of a backbone loads it too",
    "features": "Running the backbone up to the layer",
    "prediction": "Reading the geometry out",
    "reference": "Fetching the reference",
    "judge": "Asking the second judge",
    "comparison": "Comparing",
}

ABOUT = {
    "clip": "The chosen frames, decoded, resized and cropped.",
    "latents": "What the video encoder (VAE) makes of the clip; the first run of a backbone also "
    "loads it here. Skipped where the features were stored, or there is no such encoder.",
    "features": "What the backbone makes of the latents and the noise, up to the chosen layer.",
    "prediction": "What the probe reads out of the features: depth, points and cameras.",
    "reference": "The geometry that the prediction is compared with.",
    "judge": "Another reference, asked about the same clip: where the two disagree, neither is "
    "taken for the truth.",
    "comparison": "The errors, and how well the features find each point again.",
}


@dataclass
class Progress:
    """What has been reported so far.

    Args:
        judged: whether a second judge is asked, which is a step of its own.
    """

    judged: bool = False
    done: dict[str, str] = field(default_factory=dict)
    before: float = 0.0
    frames: int = 0
    slots: int = 0
    finished: float | None = None

    @property
    def steps(self) -> tuple[str, ...]:
        """Those of this run, in order."""
        return tuple(step for step in STEPS if self.judged or step != "judge")

    def add(self, stage: Stage) -> None:
        """Take note of one more stage."""
        spent = stage.seconds - self.before
        when = f"{spent:.2f} s"
        in_vain = f", {when}" if spent >= 1 else ""  # who has no answer may have looked for long
        if not isinstance(stage, FramePredicted):  # part of the prediction's time
            self.before = stage.seconds
        match stage:
            case Decoded():
                self.done["clip"] = when
            case LatentsReady():
                self.done["latents"] = _stored(when, stage.cached)
            case FeaturesReady():
                self.done["features"] = _stored(when, stage.cached)
                self.slots = len(stage.features.slot_frames)
            case FramePredicted():
                self.frames += 1
            case Predicted(reconstruction=None):
                self.done["prediction"] = "no probe"
            case Predicted():
                self.done["prediction"] = _stored(when, stage.cached)
            case Referenced(reconstruction=None):
                self.done["reference"] = f"none{in_vain}"
            case Referenced():
                self.done["reference"] = when
            case Judged(agreement=None):
                self.done["judge"] = f"no judgement{in_vain}"
            case Judged():
                self.done["judge"] = when
            case Compared(report=None, correspondence=None):
                self.done["comparison"] = "nothing"
            case Compared():
                self.done["comparison"] = when
            case Finished():
                self.finished = stage.seconds

    def html(self, line: str | None = None, *, kind: str = "running") -> str:
        """The status line; `kind` is idle, waiting, running, done, stopped or failed."""
        current = next((step for step in self.steps if step not in self.done), None)
        if line is None:
            line = f"{DOING[current]} …" if current else "Done"
            if current == "prediction" and self.frames:
                line = f"Reading the geometry out: {self.frames} of {self.slots} frames"
        items = []
        for step in self.steps:
            kinds, value = "", self.done.get(step, "–")
            if step in self.done:
                kinds = "done"
            elif step == current and kind == "running":
                kinds, value = "now", "…"
            about = escape(ABOUT[step])
            items.append(f"<li class='{kinds}' title='{about}'>{step}<b>{escape(value)}</b></li>")
        # A line about a file or the queue says nothing about steps, nor one before the first.
        hidden = kind in ("idle", "waiting") or (kind == "failed" and not self.done)
        shown = "" if hidden else f"<ol>{''.join(items)}</ol>"
        return (
            f"<div class='status {kind}' data-done='{' '.join(self.done)}' role='status' "
            f"aria-live='polite'>"
            f"<p>{escape(line)}</p>{shown}</div>"
        )


def _stored(when: str, cached: bool | None) -> str:
    if cached is None:
        return "skipped"
    return "stored" if cached else when


def idle() -> str:
    """The status line before the first run."""
    return Progress().html("Pick a clip, then Run.", kind="idle")
