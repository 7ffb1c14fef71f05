"""All proxies of one cell on one clip, as numbers."""

from __future__ import annotations

from explorer.features import Features
from explorer.proxies.correspondence import true_match_errors
from explorer.proxies.cycle import cycle_consistency
from explorer.proxies.epipolar import epipolar_consistency
from explorer.proxies.matching import top_matches
from explorer.reconstruction import Reconstruction


def proxies_of(
    features: Features,
    reference: Reconstruction | None = None,
    *,
    size: tuple[int, int],
    seed: int = 0,
) -> dict[str, float | int | None]:
    """Every figure of every proxy, named `<proxy>_<figure>`: ready for JSON.

    Args:
        features: S slots of an h x w token grid.
        reference: exact geometry; without it the figures that need it are None, and those of
            `correspondence` are missing.
        size: (height, width) of the image in whose pixels distances are given.
        seed: of the robust estimator.

    Returns:
        correspondence_*: `TrueMatches`; epipolar_*: `EpipolarConsistency`; cycle_*:
        `CycleConsistency`.
    """
    matches = top_matches(features)
    found: dict[str, object] = {
        "epipolar": epipolar_consistency(
            features, reference, size=size, seed=seed, matches=matches
        ),
        "cycle": cycle_consistency(features, size=size, matches=matches),
    }
    if reference is not None:
        found["correspondence"] = true_match_errors(features, reference, size=size)
    return {
        f"{proxy}_{name}": value
        for proxy, figures in found.items()
        for name, value in vars(figures).items()
    }
