"""What the metrics of a look are called wherever a person reads them, by their keys in JSON."""

from __future__ import annotations

METRIC_NAMES = {
    "point_error": "point error",
    "depth_error": "depth error",
    "auc5": "AUC@5",
    "auc30": "AUC@30",
    "correspondence_error_px": "correspondence error (px)",
    "pck": "PCK",
}
GEOMETRY = ("point_error", "depth_error", "auc5", "auc30")
"""Of a reconstruction held against a reference."""
LOWER_IS_BETTER = ("point_error", "depth_error", "correspondence_error_px")
NOTHING_MOVES = "nothing moves (px)"
"""The correspondence error of answering that nothing moves."""
