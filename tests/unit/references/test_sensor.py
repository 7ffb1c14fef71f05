"""The reference that asks the dataset."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "data"))
import dataset_samples as samples

from explorer import references
from explorer.clip import clip_from_frames
from explorer.data.dataset import open_dataset
from explorer.errors import Cancelled, NoReconstruction
from explorer.references import Context


def test_a_datasets_clip_has_the_datasets_geometry_and_its_unit_is_said(tmp_path: Path) -> None:
    truth = samples.write_transforms(tmp_path)
    clip = open_dataset(None, tmp_path).scene().clip(count=3, size=(24, 32))
    assert references.who_knows(clip) == "sensor"
    found = references.reconstruct("sensor", clip)
    assert found is not None
    assert found.source == "transforms: depth maps"
    metres = np.linalg.norm(truth.points()[0], axis=-1).mean()
    assert found.provenance["unit"] == pytest.approx(metres, rel=0.02)
    assert f"the unit length is {found.provenance['unit']:.4g} m" in found.provenance["note"]


def test_lengths_without_a_scale_are_not_called_metres(tmp_path: Path) -> None:
    samples.write_sft(tmp_path / "a.sft")
    clip = open_dataset(None, tmp_path).scene().clip(count=3)
    found = references.reconstruct("sensor", clip)
    assert found is not None
    assert found.provenance["note"] == "reference: vidfm3d: VGGT estimate; no metric scale"


def test_a_video_that_came_alone_is_unknown_to_it() -> None:
    clip = clip_from_frames(np.zeros((2, 8, 8, 3), np.uint8), name="black")
    assert references.who_knows(clip) is None
    assert references.reconstruct("sensor", clip) is None


def test_cameras_without_depth_say_so(tmp_path: Path) -> None:
    samples.write_dl3dv(tmp_path)
    clip = open_dataset(None, tmp_path).scene().clip(count=3)
    with pytest.raises(NoReconstruction, match="dl3dv has cameras but no depth"):
        references.reconstruct("sensor", clip)


def test_it_stops_between_frames(tmp_path: Path) -> None:
    samples.write_transforms(tmp_path)
    clip = open_dataset(None, tmp_path).scene().clip(count=3)
    with pytest.raises(Cancelled):
        references.reconstruct("sensor", clip, Context(should_stop=lambda: True))


def test_it_is_not_offered_for_videos() -> None:
    assert "sensor" in references.names()
    assert "sensor" not in references.offered()
    assert "exact" in references.offered()
