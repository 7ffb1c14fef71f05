"""The linear readout of a cell: closed-form ridge regression from tokens to log-depth and points.

It has no trunk, no attention, no training and no seed, so it measures what a cell says rather than
what a probe makes of it: a token's own features, linearly, answer for that token alone. Everything
is **at token resolution**: one answer for each token of the grid (18 x 32 for the toy models), not
for each pixel of the probe's maps.

Targets of a token, from the surface that is seen exactly at its centre (a sample, not an average:
an average would mix the depths of both sides of an edge into a surface that is not there):

- the logarithm of its z-depth, in units of the first frame's mean distance;
- its point in the first camera's frame, in the same unit,

as `explorer.probe.losses.normalize_targets` defines the unit. Tokens without geometry are left out.
Channels are standardised by the training tokens. With position channels
(`explorer.backbones._position`: sines and cosines of the token's time, row and column) the fit also
knows where a token is, as the controls `latent` and `rgb` always do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from explorer._typing import Bool, Float, Int
from explorer.backbones._position import CHANNELS, position_channels
from explorer.errors import ComparisonError, ProbeError
from explorer.features import Features
from explorer.metrics.depth import depth_error
from explorer.metrics.points import point_error
from explorer.probe.checkpoint import SIGMA_TOLERANCE
from explorer.probe.moments import LinearFit, Moments, RidgePath
from explorer.reconstruction import Reconstruction

PENALTIES = tuple(float(penalty) for penalty in np.logspace(-8, 4, 25))
"""Penalties tried, in units of the standardised channels' variance."""

TARGETS = {"log_depth": slice(0, 1), "points": slice(1, 4)}
"""Columns of the targets. Each group has a penalty of its own."""


@dataclass(frozen=True)
class TokenMaps:
    """Geometry at token resolution, in the first camera's frame.

    Attributes:
        frames: (S,) frame that stands for each slot.
        depth: (S, h, w) z-depth at the token's centre, in units of the first frame's mean distance.
        points: (S, h, w, 3) in the same unit.
        valid: (S, h, w) where there is geometry; everywhere in a prediction.
    """

    frames: Int[np.ndarray, " S"]
    depth: Float[np.ndarray, "S h w"]
    points: Float[np.ndarray, "S h w 3"]
    valid: Bool[np.ndarray, "S h w"]


@dataclass(frozen=True)
class RidgeCell:
    """Whose features a ridge reads. Attributes as in `Features`."""

    backbone: str
    backbone_hash: str
    layer: int
    sigma: float

    @classmethod
    def of(cls, features: Features) -> RidgeCell:
        """The cell that features come from."""
        return cls(features.backbone, features.backbone_hash, features.layer, features.sigma)

    def check(self, features: Features) -> None:
        """Refuse features of another cell or of other weights.

        Raises:
            ProbeError: with what differs.
        """
        other = RidgeCell.of(features)
        if other.backbone_hash != self.backbone_hash:
            raise ProbeError(
                f"these features come from other weights ({other.backbone}, "
                f"{other.backbone_hash[:12]}) than this ridge was fitted to ({self.backbone}, "
                f"{self.backbone_hash[:12]}): restore those weights or fit again"
            )
        if other.layer != self.layer or abs(other.sigma - self.sigma) >= SIGMA_TOLERANCE:
            raise ProbeError(
                f"this ridge reads layer {self.layer} at sigma {self.sigma:g}; these features are "
                f"of layer {other.layer} at sigma {other.sigma:g}"
            )


def token_targets(
    reference: Reconstruction, frames: Int[np.ndarray, " S"], grid: tuple[int, int]
) -> TokenMaps:
    """What the tokens of a clip should say: the reference at the centres of the token grid.

    The unit is the mean distance of the first frame's points over all pixels that the reference
    has. Depth is that of the nearest pixel's centre, exactly the token's own where the reference
    has an odd number of pixels to a token along each axis.

    Args:
        reference: geometry of any resolution and unit.
        frames: (S,) frames of the slots; the first one's camera is the world frame.
        grid: (h, w) of the tokens.

    Raises:
        ComparisonError: the reference lacks a frame, or knows nothing in the first.
    """
    try:
        sampled = reference.at_frames(frames).normalized().resized(*grid)
    except (KeyError, ValueError) as error:
        raise ComparisonError(str(error.args[0])) from None
    return TokenMaps(sampled.frames, sampled.depth, sampled.points, sampled.valid)


def token_errors(predicted: TokenMaps | Reconstruction, target: TokenMaps) -> dict[str, float]:
    """The project's errors at token resolution, in units of the first frame's mean distance.

    Args:
        predicted: (S, h, w) depth and points: a ridge's answer, or a probe's reconstruction
            sampled at the tokens with `Reconstruction.resized`.
        target: from `token_targets`.

    Returns:
        depth_error: mean absolute difference after one scale for the clip
            (`explorer.metrics.depth`); point_error: mean distance after one Sim(3) alignment for
            the clip (`explorer.metrics.points`).

    Raises:
        ComparisonError: no token has geometry, or an answer is not finite.
    """
    weights = target.valid.astype(np.float64)
    return {
        "depth_error": depth_error(predicted.depth, target.depth, target.valid).error,
        "point_error": point_error(predicted.points, target.points, weights).error,
    }


@dataclass(frozen=True)
class Ridge:
    """A fitted linear readout.

    Attributes:
        cell: whose features it reads.
        fit: from a token's channels to log-depth and point, in the order of `TARGETS`.
        position_frames: the longest clip, in frames, that position channels count time by; None
            where it reads the features alone.
        penalties: chosen on validation clips, for each group of targets.
        validation_r2: share of the validation tokens' variance explained at that penalty; the
            three coordinates of points are pooled. Below 0: worse than the validation mean.
        train_r2: the same on the training tokens.
        tokens: training tokens with geometry.
        clips: (training, validation) clips.
    """

    cell: RidgeCell
    fit: LinearFit
    position_frames: int | None
    penalties: dict[str, float]
    validation_r2: dict[str, float]
    train_r2: dict[str, float]
    tokens: int
    clips: tuple[int, int]

    def predict(self, features: Features) -> TokenMaps:
        """Depth and points of every token; depth is positive, as its logarithm is what is fitted.

        Raises:
            ProbeError: the features are of another cell, other weights or another width.
        """
        self.cell.check(features)
        inputs = token_inputs(features, position_frames=self.position_frames)
        if inputs.shape[-1] != len(self.fit.mean):
            raise ProbeError(
                f"this ridge reads {len(self.fit.mean)} channels; these features have "
                f"{inputs.shape[-1]}: they are of another model"
            )
        answers = self.fit(inputs)
        # Far off the training tokens a line may leave the range of exp.
        depth = np.exp(np.clip(answers[..., 0], -20.0, 20.0))
        valid = np.ones(depth.shape, dtype=bool)
        return TokenMaps(features.slot_frames, depth, answers[..., TARGETS["points"]], valid)


class RidgeData:
    """What a ridge is fitted to: moments of the tokens of any number of clips of one cell.

    Args:
        position_frames: add position channels, with time counted by a longest clip of this many
            frames; None reads the features alone. Features that end with the same channels (the
            controls `latent` and `rgb`) are not given them twice.
    """

    def __init__(self, *, position_frames: int | None = None) -> None:
        self.position_frames = position_frames
        self.clips = 0
        self._cell: RidgeCell | None = None
        self._moments: Moments | None = None

    def add(self, features: Features, target: TokenMaps) -> None:
        """Count the tokens of one more clip that have geometry.

        Raises:
            ProbeError: the features are of another cell than before, of another shape than the
                target's, or not finite.
        """
        if self._cell is not None:
            self._cell.check(features)
        if target.valid.shape != features.values.shape[:3]:
            raise ProbeError(
                f"features of {features.values.shape[:3]} tokens, targets of {target.valid.shape}"
            )
        valid = target.valid
        inputs = token_inputs(features, position_frames=self.position_frames)[valid]
        wanted = np.concatenate([np.log(target.depth[valid])[:, None], target.points[valid]], 1)
        moments = self._moments or Moments(inputs.shape[1], wanted.shape[1])
        try:
            moments.add(inputs, wanted)
        except ValueError as error:
            raise ProbeError(f"{features.backbone} layer {features.layer}: {error}") from None
        self._cell, self._moments = RidgeCell.of(features), moments
        self.clips += 1

    @property
    def whole(self) -> tuple[RidgeCell, Moments]:
        """The cell and its moments.

        Raises:
            ProbeError: no clip was added.
        """
        if self._cell is None or self._moments is None:
            raise ProbeError("no clip to fit a ridge to: add at least one")
        return self._cell, self._moments


def fit_ridge(
    train: RidgeData, validation: RidgeData, *, penalties: Sequence[float] = PENALTIES
) -> Ridge:
    """The ridge of the penalty that explains most of the validation tokens.

    Each group of targets chooses its own penalty. One eigen-decomposition serves all of them, and
    the validation clips are judged by their moments alone.

    Args:
        train: clips to fit.
        validation: other clips of the same cell, to choose the penalty by.
        penalties: > 0, to choose from.

    Raises:
        ProbeError: no clips, too few tokens, no variance, or the two are of different cells.
        ValueError: no penalty, or one that is not positive.
    """
    if not penalties or min(penalties) <= 0:
        raise ValueError(f"penalties {list(penalties)}: give at least one, all of them above 0")
    (cell, fitted), (other, held_out) = train.whole, validation.whole
    if cell != other or train.position_frames != validation.position_frames:
        raise ProbeError("training and validation clips are of different cells: extract them alike")
    for moments in (fitted, held_out):
        if any(not moments.yy[columns].any() for columns in TARGETS.values()):
            raise ProbeError("all tokens have the same geometry: there is nothing to explain")
    try:
        path = RidgePath(fitted)
    except ValueError as error:
        raise ProbeError(str(error)) from None
    fits = {penalty: path.fit(penalty) for penalty in penalties}
    chosen, scores = {}, {}
    for name, columns in TARGETS.items():
        judged = {penalty: _r2(held_out, fit, columns) for penalty, fit in fits.items()}
        chosen[name] = max(judged, key=lambda penalty: judged[penalty])
        scores[name] = judged[chosen[name]]
    weights = np.concatenate([fits[chosen[name]].weights[:, TARGETS[name]] for name in TARGETS], 1)
    fit = LinearFit(path.mean, path.scale, weights, path.bias)
    return Ridge(
        cell=cell,
        fit=fit,
        position_frames=train.position_frames,
        penalties=chosen,
        validation_r2=scores,
        train_r2={name: _r2(fitted, fit, columns) for name, columns in TARGETS.items()},
        tokens=fitted.count,
        clips=(train.clips, validation.clips),
    )


def token_inputs(
    features: Features, *, position_frames: int | None
) -> Float[np.ndarray, "S h w D"]:
    """(S, h, w, D) float64 channels that a ridge reads: the features, then position channels.

    Args:
        features: of any cell.
        position_frames: see `RidgeData`.
    """
    values = features.values.astype(np.float64)
    if position_frames is None:
        return values
    position = position_channels(features.slot_frames, features.grid, max_frames=position_frames)
    # Features are stored in float16, and so are the position channels that controls bring along.
    if np.array_equal(features.values[..., -CHANNELS:], position.astype(np.float16)):
        return values
    return np.concatenate([values, position.astype(np.float64)], axis=-1)


def _r2(moments: Moments, fit: LinearFit, columns: slice) -> float:
    """1 - squared error / variance about the mean, pooled over columns."""
    wrong = float(moments.squared_error(fit)[columns].sum())
    return 1.0 - wrong / float(moments.yy[columns].sum())
