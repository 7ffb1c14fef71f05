"""A dataset to prepare."""

from __future__ import annotations

from pathlib import Path

import prepared_samples as samples
import pytest


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tiny dataset, whose reader and references are registered."""
    samples.patch(monkeypatch)
    return samples.folder_in(tmp_path)
