"""Metrics: pure functions on numpy arrays, and `compare`, which fills a `Report` with them.

The default is geometric: point error after a Sim(3) alignment, depth error after median scaling,
pose AUC as the exact area under the recall curve. `explorer.metrics.official` has the variants of
the published evaluation for comparison with its tables.
"""

from __future__ import annotations

from explorer.metrics.compare import compare
from explorer.metrics.interval import Interval, mean_interval, paired_interval

__all__ = ["Interval", "compare", "mean_interval", "paired_interval"]
