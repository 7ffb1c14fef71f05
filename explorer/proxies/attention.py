"""How far a layer's self-attention looks: mean attention distance (Dosovitskiy et al. 2021)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from explorer._typing import Float
from explorer.correspondence import token_centers

THETA = 10_000.0
"""Base of the rotary frequencies of Wan2.1."""


@dataclass(frozen=True)
class AttentionReach:
    """Means over all tokens and heads.

    Attributes:
        distance_px: distance in image pixels, within the picture, from a token to what it attends
            to, weighed by attention; time does not count.
        own_slot_share: attention that stays within the token's own slot, 0 to 1; attention that
            cannot tell slots apart has 1 / S.
    """

    distance_px: float
    own_slot_share: float


def attention_reach(
    query: Float[np.ndarray, "S h w C"],
    key: Float[np.ndarray, "S h w C"],
    *,
    heads: int,
    size: tuple[int, int],
) -> AttentionReach:
    """Attention of Wan's blocks from their normalised queries and keys (taps "query" and "key").

    Args:
        query: of one layer, not yet rotated.
        key: of the same layer.
        heads: of which C channels are.
        size: (height, width) of the image in whose pixels distances are given.

    Raises:
        ValueError: C is not a multiple of the heads.
    """
    slots, rows, columns, channels = query.shape
    if channels % heads:
        raise ValueError(f"{channels} channels do not divide into {heads} heads")
    wide = channels // heads
    turn = _angles((slots, rows, columns), wide)
    q, k = (_rotated(each, heads, turn) for each in (query, key))
    centers = token_centers((rows, columns), size).astype(np.float32)
    between = np.linalg.norm(centers[:, None] - centers[None], axis=-1)
    count = rows * columns
    distance = own = 0.0
    for head in range(heads):
        for slot in range(slots):
            mine = q[slot * count : (slot + 1) * count, head]
            logits = mine @ k[:, head].T / np.float32(np.sqrt(wide))
            logits -= logits.max(axis=1, keepdims=True)
            weight = np.exp(logits)
            weight /= weight.sum(axis=1, keepdims=True)
            by_slot = weight.reshape(count, slots, count)
            distance += float((by_slot.sum(axis=1) * between).sum())
            own += float(by_slot[:, slot].sum())
    total = heads * slots * count
    return AttentionReach(distance / total, own / total)


def _angles(shape: tuple[int, int, int], wide: int) -> Float[np.ndarray, "N D"]:
    """(tokens, pairs of channels) angles: the first channels turn with time, then rows, columns."""
    side = 2 * (wide // 6)
    found = []
    for axis, dim in zip(
        np.indices(shape).reshape(3, -1), (wide - 2 * side, side, side), strict=True
    ):
        frequency = THETA ** (-np.arange(0, dim, 2, dtype=np.float64) / dim)
        found.append(axis[:, None] * frequency)
    return np.concatenate(found, axis=1).astype(np.float32)


def _rotated(
    values: Float[np.ndarray, "S h w C"], heads: int, turn: Float[np.ndarray, "N D"]
) -> Float[np.ndarray, "N H E"]:
    flat = values.astype(np.float32).reshape(len(turn), heads, -1, 2)
    cosine, sine = np.cos(turn)[:, None], np.sin(turn)[:, None]
    even, odd = flat[..., 0], flat[..., 1]
    pairs = np.stack([even * cosine - odd * sine, even * sine + odd * cosine], axis=-1)
    return pairs.reshape(len(turn), heads, -1)
