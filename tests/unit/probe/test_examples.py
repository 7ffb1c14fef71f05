"""Examples of prepared scenes: what is computed once, and what a draw holds."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import prepared_samples as samples
import pytest
from prepared_samples import FRAMES, SIZE
from still_backbone import CARD, CHANNELS, GRID, Still, examples

from explorer.backbones import registry
from explorer.data.dataset import open_dataset
from explorer.data.prepared.make import prepare
from explorer.data.prepared.manifest import Settings
from explorer.data.readers.prepared import Prepared, open_prepared
from explorer.errors import ProbeError
from explorer.probe.examples import Cell, Examples, collate
from explorer.store import Store

pytestmark = pytest.mark.usefixtures("one_thread")


def test_backbones_are_asked_for_the_same_frames_of_a_scene(
    store: Prepared, coarse: Still, tmp_path: Path
) -> None:
    one, other = (
        examples(store, "train", tmp_path / "features", name) for name in ("still", "coarse")
    )
    assert coarse.clip.source_frames.tolist() == [0, 4, 8]  # over all of the scene
    assert one.items[0].frames.tolist() == other.items[0].frames.tolist() == [0, 1, 5]
    assert one.items[0].slots.tolist() == [0, 1, 2]
    assert other.items[0].slots.tolist() == [0, 0, 1]  # frame 5 is nearest to 4
    for index in range(len(one)):
        assert (one.evaluation_frames(index) == other.evaluation_frames(index)).all()
        mine, theirs = one.fixed(index), other.fixed(index)
        for name in ("depth", "confidence", "cam_from_world", "intrinsics"):
            assert (mine[name] == theirs[name]).all(), name
        assert (
            one.draw(index, seed=0, draw=3)["depth"] == other.draw(index, seed=0, draw=3)["depth"]
        ).all()


def test_pictures_are_brought_to_a_backbones_shape_as_a_look_does_it(
    store: Prepared, still: Still, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shapes: dict[str, Any] = {}
    for fit in ("crop", "stretch"):
        card = replace(CARD, input_size=(16, 12), fit=fit)  # type: ignore[arg-type]
        monkeypatch.setattr(still, "card", card)
        entry = replace(registry._entries["still"], card=card)
        monkeypatch.setitem(registry._entries, "still", entry)
        found = examples(store, "test", tmp_path / "features")
        item = found.items[0]
        shapes[fit] = still.clip.crop, item.features, item.geometry, item.read(np.array([0]))
    assert shapes["crop"][0] == (0, 7, 24, 18)
    assert shapes["stretch"][0] == (0, 0, 24, 32)
    assert shapes["crop"][1] != shapes["stretch"][1]
    assert shapes["crop"][2] != shapes["stretch"][2]
    assert (shapes["crop"][3]["intrinsics"] != shapes["stretch"][3]["intrinsics"]).any()


def test_both_sides_have_scenes_and_share_no_place(store: Prepared) -> None:
    sides = {side: {scene.place for scene in store.side(side)} for side in ("train", "test")}
    assert sides["train"]
    assert sides["test"]
    assert not sides["train"] & sides["test"]


def test_features_are_computed_once_and_read_by_slot(
    store: Prepared, still: Still, tmp_path: Path
) -> None:
    found = examples(store, "train", tmp_path / "features")
    assert still.calls == len(found) > 0
    assert found.channels == CHANNELS
    again = examples(store, "train", tmp_path / "features")
    assert still.calls == len(found)
    item = again.items[0]
    part = item.read(np.array([0, 5]))
    assert part["values"].shape == (2, *GRID, CHANNELS)
    whole = item.read(np.array([0, 1, 5]))
    for name, values in part.items():
        assert (values == whole[name][[0, 2]]).all(), name
    scene = store.scene(item.scene)
    exact = scene.reconstruction(scene.clip(count=FRAMES, size=(16, 24)))
    assert part["depth"].shape == (2, 8, 12)
    np.testing.assert_allclose(part["depth"], exact.depth[[0, 5]][:, 1::2, 1::2], rtol=0.02)
    np.testing.assert_allclose(
        part["cam_from_world"], exact.cameras.cam_from_world[[0, 5]], atol=1e-3
    )


def test_pictures_that_a_backbone_sees_enlarged_are_said(
    store: Prepared, still: Still, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert examples(store, "test", tmp_path / "features").enlarged is None
    card = replace(CARD, input_size=(32, 48))
    monkeypatch.setattr(still, "card", card)
    entry = replace(registry._entries["still"], card=card)
    monkeypatch.setitem(registry._entries, "still", entry)
    said = examples(store, "test", tmp_path / "features").enlarged
    assert said is not None
    assert said.startswith("pictures are kept at 24x32 and enlarged to 32x48 for still")


@pytest.mark.parametrize("what", ["features", "geometry"])
def test_a_full_disk_is_said(
    what: str, store: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Store.put
    monkeypatch.setattr(
        Store, "put", lambda self, kind, *rest: kind != what and real(self, kind, *rest)
    )
    with pytest.raises(ProbeError, match=f"{what} cannot be kept in .* another --features"):
        examples(store, "test", tmp_path / "features")


def test_targets_are_in_the_first_frame_s_unit(store: Prepared, tmp_path: Path) -> None:
    found = examples(store, "train", tmp_path / "features")
    features, targets = collate(
        [found.draw(0, seed=0, draw=0), found.draw(0, seed=0, draw=1)], "cpu"
    )
    assert features.shape == (2, found.rule.views, *GRID, CHANNELS)
    valid = targets.weight[:, 0] > 0
    distance = targets.points[:, 0].norm(dim=-1)
    for clip in range(2):
        assert float(distance[clip][valid[clip]].mean()) == pytest.approx(1, abs=1e-4)
    assert (targets.weight.amax((1, 2, 3)) > 2).all()  # the reference's confidence, not 1


def test_some_scenes_of_a_side_are_the_same_ones_and_not_the_first(store: Prepared) -> None:
    names = [[scene.name for scene in store.side("train", most=most)] for most in range(4)]
    assert names[0] == []
    assert [len(each) for each in names] == [0, 1, 2, 3]
    assert all(set(few) < set(more) for few, more in itertools.pairwise(names))
    assert names[3] == [scene.name for scene in store.side("train")]
    assert names[1] != names[3][:1]


def test_scenes_whose_reference_lacks_the_slots_are_left_out(
    still: Still, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    samples.patch(monkeypatch)
    folder = samples.folder_in(tmp_path)
    settings = Settings("tiny", "tiny-sparse", frames=FRAMES, size=SIZE)
    prepare(open_dataset("tiny", folder), tmp_path / "store", settings, limit=2)
    scenes = [open_prepared(tmp_path / "store").scene("s0")]
    with pytest.raises(ProbeError, match="none of the scenes can be trained on; s0: .* no frames"):
        Examples(scenes, Cell("still", 1, 0.3), map_size=(8, 12), folder=tmp_path / "f")  # type: ignore[arg-type]
