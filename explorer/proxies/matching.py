"""Top-1 matches between the token grids of all slots, which the other proxies judge."""

from __future__ import annotations

import numpy as np

from explorer._typing import Int
from explorer.correspondence import unit_tokens
from explorer.features import Features


def top_matches(features: Features) -> Int[np.ndarray, "S S N"]:
    """Entry (a, b, n): the token of slot b that is most similar to token n of slot a.

    Tokens are numbered in row-major order and compared by cosine similarity; the first of equals
    is taken. Entry (a, a, n) is n.

    Args:
        features: S slots of a grid of N tokens.
    """
    tokens = unit_tokens(features.values)
    slots, count = tokens.shape[:2]
    found = np.empty((slots, slots, count), dtype=np.int64)
    for a in range(slots):
        found[a, a] = np.arange(count)
        for b in range(a + 1, slots):
            similarity = tokens[a] @ tokens[b].T
            found[a, b], found[b, a] = similarity.argmax(axis=1), similarity.argmax(axis=0)
    return found


def mutual_matches(matches: Int[np.ndarray, "S S N"], a: int, b: int) -> Int[np.ndarray, "M 2"]:
    """(M, 2) pairs of tokens of slots a and b that are each other's most similar token.

    >>> forth, back = [1, 1, 2], [2, 1, 0]
    >>> matches = np.array([[[0, 1, 2], forth], [back, [0, 1, 2]]])
    >>> mutual_matches(matches, 0, 1).tolist()
    [[1, 1]]
    """
    there = matches[a, b]
    own = np.flatnonzero(matches[b, a][there] == np.arange(len(there)))
    return np.stack([own, there[own]], axis=-1)
