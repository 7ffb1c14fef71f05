from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from explorer.metrics.rank import spearman


@pytest.mark.parametrize("seed", range(5))
def test_it_is_the_correlation_that_scipy_gives_with_and_without_ties(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a = rng.integers(0, 4 if seed % 2 else 1000, size=12).astype(float)
    b = a + rng.normal(scale=2.0, size=12).round(seed % 3)
    assert float(spearman(a, b)) == pytest.approx(spearmanr(a, b).statistic)
    both = spearman(np.stack([a, b]), np.stack([b, b]))
    assert both.tolist() == pytest.approx([spearmanr(a, b).statistic, 1.0])


def test_equal_values_have_no_rank_correlation() -> None:
    assert np.isnan(spearman(np.ones(4), np.arange(4.0)))
