"""Correspondence: which tokens of other frames look like a picked one, and where the truth is.

Matches are token centres: no finer position is interpolated, so even a perfect feature is wrong by
up to half a token. The truth is the reference's surface point under the picked pixel, projected
into the other frames; it counts only where it is in view and not hidden. Follows the dense
correspondence test of arXiv 2512.19949 (top-1 neighbour, mean pixel distance).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from explorer._typing import Float
from explorer.features import Features
from explorer.metrics.correspondence import (
    OCCLUDED,
    OUT_OF_VIEW,
    STATUSES,
    UNKNOWN,
    VISIBLE,
    Status,
    true_matches,
)
from explorer.reconstruction import Reconstruction


@dataclass(frozen=True)
class SlotMatch:
    """What the picked token finds in one time slot. Positions are (x, y) in image pixels.

    Attributes:
        slot: time slot; `frame` is the frame of the clip that stands for it.
        picked: this is the slot of the picked token itself.
        heat: (h, w) float32 cosine similarity of each token to the picked one, -1 to 1.
        best: centre of the most similar token.
        similarity: its cosine similarity.
        true: where the reference sees the picked surface point, None out of view or unknown.
        status: "visible", "occluded", "out of view", or "unknown" where the reference cannot tell.
        error_px: distance from `best` to `true`, None unless visible.
        within_5, within_10: whether that is at most 5 and 10 % of the image's longer side.
    """

    slot: int
    frame: int
    picked: bool
    heat: Float[np.ndarray, "h w"]
    best: tuple[float, float]
    similarity: float
    true: tuple[float, float] | None
    status: Status
    error_px: float | None
    within_5: bool | None
    within_10: bool | None

    def as_dict(self) -> dict[str, Any]:
        """Everything but the heat, ready for JSON."""
        values = {name: value for name, value in vars(self).items() if name != "heat"}
        return {
            **values,
            "best": list(self.best),
            "true": None if self.true is None else list(self.true),
        }


@dataclass(frozen=True)
class Correspondence:
    """One picked pixel and its match in every time slot.

    Attributes:
        x, y: the picked pixel, in an image of `size` (height, width).
        frame: the picked frame; `slot` is the slot that holds it.
        token: (row, column) under the pixel; its features are those of the whole slot.
        matches: one for each slot, in order, the picked slot's own included.
    """

    x: float
    y: float
    frame: int
    slot: int
    token: tuple[int, int]
    size: tuple[int, int]
    matches: tuple[SlotMatch, ...]

    @property
    def others(self) -> tuple[SlotMatch, ...]:
        """The matches in the other slots: those that errors are about."""
        return tuple(match for match in self.matches if not match.picked)

    @property
    def error_px(self) -> float | None:
        """Mean error over the other slots that see the point, None if none does."""
        errors = [match.error_px for match in self.others if match.error_px is not None]
        return float(np.mean(errors)) if errors else None

    def as_dict(self) -> dict[str, Any]:
        """Everything but the heats, ready for JSON."""
        return {
            "x": self.x,
            "y": self.y,
            "frame": self.frame,
            "slot": self.slot,
            "token": list(self.token),
            "size": list(self.size),
            "error_px": self.error_px,
            "matches": [match.as_dict() for match in self.matches],
        }


def correspond(
    features: Features,
    x: float | int,
    y: float | int,
    frame: int,
    *,
    size: tuple[int, int],
    reference: Reconstruction | None = None,
) -> Correspondence:
    """Match the token under a pixel against all tokens of all slots by cosine similarity.

    A slot may hold several frames; any of them picks the slot's token. The true surface point is
    taken from the picked frame where the reference has it, else from the slot's own frame.

    Args:
        features: S slots of an h x w token grid.
        x: column of the image point, 0 to width.
        y: row of the image point, 0 to height.
        frame: frame of the clip that was picked.
        size: (height, width) of the image that x and y belong to.
        reference: geometry with the slots' frames, at any resolution; None leaves truth unknown.

    Raises:
        ValueError: the frame or the point lies outside the clip.
    """
    x, y = float(x), float(y)
    height, width = size
    if not 0 <= frame < len(features.frame_to_slot):
        raise ValueError(
            f"frame {frame} is outside the clip's {len(features.frame_to_slot)} frames"
        )
    if not (0 <= x <= width and 0 <= y <= height):
        raise ValueError(f"point ({x}, {y}) is outside the image of {width} x {height}")
    slot = int(features.frame_to_slot[frame])
    row, column = features.token_at(x, y, size)
    tokens = unit_tokens(features.values)
    rows, columns = features.grid
    similarity = tokens @ tokens[slot, row * columns + column]
    best = similarity.argmax(axis=1)
    pixel = np.array([[x, y]])
    slot_frame = int(features.slot_frames[slot])
    origin = frame if reference is not None and frame in reference.frames else slot_frame
    true, status = true_matches(reference, origin, pixel, features.slot_frames, size=size)
    centers = token_centers(features.grid, size)
    matches = []
    for k, near in enumerate(best):
        seen = STATUSES[status[k, 0]]
        error = float(np.linalg.norm(centers[near] - true[k, 0])) if seen == "visible" else None
        matches.append(
            SlotMatch(
                slot=k,
                frame=int(features.slot_frames[k]),
                picked=k == slot,
                heat=similarity[k].reshape(rows, columns),
                best=(float(centers[near, 0]), float(centers[near, 1])),
                similarity=float(similarity[k, near]),
                true=(float(true[k, 0, 0]), float(true[k, 0, 1]))
                if seen in ("visible", "occluded")
                else None,
                status=seen,
                error_px=error,
                within_5=None if error is None else error <= 0.05 * max(size),
                within_10=None if error is None else error <= 0.10 * max(size),
            )
        )
    return Correspondence(x, y, frame, slot, (row, column), size, tuple(matches))


def correspondence_summary(
    features: Features, reference: Reconstruction, *, size: tuple[int, int]
) -> dict[str, float | int | None]:
    """How well the features match on this clip: every slot's token centres against every other's.

    All ordered pairs of slots count, because slots need not be alike: a causal video VAE encodes
    the first frame alone and the others four at a time, and matching from slot 0 only would
    measure that difference more than the features.

    Args:
        features: S slots of an h x w token grid.
        reference: geometry with the slots' frames, at any resolution.
        size: (height, width) of the image in whose pixels errors are given.

    Returns:
        error_px: mean distance of the best match from the true one over `queries`.
        pck5, pck10: share of queries within 5 and 10 % of the longer side; pck is pck10.
        nothing_moves_px: the error of answering that nothing moves, to compare with.
        queries: (token, other slot) pairs whose truth is visible; occluded, out_of_view, unknown:
            the others. Errors and shares are None when there is no query.
    """
    centers = token_centers(features.grid, size)
    tokens = unit_tokens(features.values)
    slots, grid = len(features.slot_frames), len(centers)
    errors, still, statuses = [], [], []
    for slot in range(slots):
        others = np.delete(np.arange(slots), slot)
        true, status = true_matches(
            reference,
            int(features.slot_frames[slot]),
            centers,
            features.slot_frames[others],
            size=size,
        )
        similarity = tokens[slot] @ tokens[others].reshape(len(others) * grid, tokens.shape[-1]).T
        best = similarity.reshape(grid, len(others), grid).argmax(axis=2).T
        visible = status == VISIBLE
        errors.append(np.linalg.norm(centers[best] - true, axis=-1)[visible])
        still.append(np.linalg.norm(centers[None] - true, axis=-1)[visible])
        statuses.append(status.ravel())
    error, unmoved, status = (np.concatenate(parts) for parts in (errors, still, statuses))
    queries = len(error)

    def mean(values: NDArray[Any]) -> float | None:
        return float(values.mean()) if queries else None

    return {
        "error_px": mean(error),
        "pck": mean(error <= 0.10 * max(size)),
        "pck5": mean(error <= 0.05 * max(size)),
        "pck10": mean(error <= 0.10 * max(size)),
        "nothing_moves_px": mean(unmoved),
        "queries": queries,
        "occluded": int((status == OCCLUDED).sum()),
        "out_of_view": int((status == OUT_OF_VIEW).sum()),
        "unknown": int((status == UNKNOWN).sum()),
    }


def token_centers(grid: tuple[int, int], size: tuple[int, int]) -> Float[np.ndarray, "N 2"]:
    """(h * w, 2) image points (x, y) of token centres in row-major order.

    >>> token_centers((1, 2), (4, 8)).tolist()
    [[2.0, 2.0], [6.0, 2.0]]
    """
    rows, columns = grid
    x, y = np.meshgrid(
        (np.arange(columns) + 0.5) / columns * size[1], (np.arange(rows) + 0.5) / rows * size[0]
    )
    return np.stack([x.ravel(), y.ravel()], axis=-1)


def upsample_heat(
    heat: Float[np.ndarray, "h w"], size: tuple[int, int]
) -> Float[np.ndarray, "H W"]:
    """(H, W) float32 bilinear heatmap; token centres keep their values, borders are held.

    >>> upsample_heat(np.array([[0.0, 1.0]]), (1, 4)).tolist()
    [[0.0, 0.25, 0.75, 1.0]]
    """
    import cv2

    resized = cv2.resize(
        np.ascontiguousarray(heat, dtype=np.float32),
        (size[1], size[0]),
        interpolation=cv2.INTER_LINEAR,
    )
    return np.asarray(resized, dtype=np.float32)


def unit_tokens(values: Float[np.ndarray, "S h w C"]) -> Float[np.ndarray, "S N C"]:
    """Float32 tokens of length 1; a zero token stays zero and is similar to nothing."""
    tokens = values.reshape(len(values), -1, values.shape[-1]).astype(np.float32)
    # The largest entry first: squares of float16's range overflow nothing in float32 afterwards.
    tokens /= np.maximum(np.abs(tokens).max(axis=-1, keepdims=True), 1e-30)
    lengths = np.sqrt(np.einsum("snc,snc->sn", tokens, tokens))
    tokens /= np.maximum(lengths, 1e-30)[..., None]
    return tokens
