"""Splits by seed: no scene is in two of them."""

from __future__ import annotations

_RANGES = {
    "validation": (1_000_000, 2_000_000),
    "test": (2_000_000, 3_000_000),
    "shipped": (3_000_000, 4_000_000),
    "train": (10_000_000, 2_000_000_000),
}


def split_seeds(split: str, count: int, *, start: int = 0) -> list[int]:
    """`count` seeds of a split ("train", "validation", "test", "shipped"), from position `start`.

    Raises:
        ValueError: there is no such split, or it has fewer scenes than that.
    """
    if split not in _RANGES:
        raise ValueError(f"there is no split {split!r}; there are: {', '.join(_RANGES)}")
    low, high = _RANGES[split]
    if low + start + count > high:
        raise ValueError(f"the split {split!r} ends at {high - low} scenes")
    return list(range(low + start, low + start + count))
