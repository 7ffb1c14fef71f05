"""Training-free proxies of 3D: what a cell's features say about geometry before any readout.

Each file has one, as a function that returns a small frozen dataclass; `proxies_of` gathers those
of `Features`. All but `attention`, which reads queries and keys, match tokens by cosine similarity,
and all lengths are pixels of an image whose size the caller names. A match is a token centre, so
that even perfect features are wrong by up to half a token.

Only `correspondence` and the `true_` figures of `epipolar` see geometry. The others see whether
matches agree with each other, which features that encode nothing but the position of a token do
perfectly: read them beside `still_share`.
"""

from __future__ import annotations

from explorer.proxies.attention import AttentionReach, attention_reach
from explorer.proxies.correspondence import TrueMatches, true_match_errors
from explorer.proxies.cycle import CycleConsistency, cycle_consistency
from explorer.proxies.epipolar import EpipolarConsistency, epipolar_consistency
from explorer.proxies.gather import proxies_of

__all__ = [
    "AttentionReach",
    "CycleConsistency",
    "EpipolarConsistency",
    "TrueMatches",
    "attention_reach",
    "cycle_consistency",
    "epipolar_consistency",
    "proxies_of",
    "true_match_errors",
]
