"""What comes back from a store, and how little of it is read for a few frames."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import prepared_samples as samples
import pytest
from prepared_samples import FRAMES, SIZE

from explorer import references
from explorer.data.dataset import open_dataset
from explorer.data.prepared.codes import LOSSLESS, LogCode, decode_map, encode_map, psnr
from explorer.data.prepared.make import prepare
from explorer.data.prepared.manifest import Settings
from explorer.data.prepared.scene import PreparedScene
from explorer.data.prepared.shards import Shard, open_shards
from explorer.data.readers.prepared import open_prepared
from explorer.errors import DatasetError, NoReconstruction


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """A function that prepares scene s1 with some reference and opens it again."""
    samples.patch(monkeypatch)
    folder = samples.folder_in(tmp_path)

    def make(reference: str, **changes: Any) -> PreparedScene:
        values = {"frames": FRAMES, "size": SIZE, **changes}
        out = tmp_path / reference
        prepare(open_dataset("tiny", folder), out, Settings("tiny", reference, **values), limit=2)
        return open_prepared(out).scene("s1")  # type: ignore[return-value]

    return make


def original(reference: str = "tiny-dense") -> Any:
    scene = samples.TinyScene(samples.Tiny(Path()).entries[1], 1)
    clip = scene.clip(count=FRAMES, size=SIZE)
    return clip, samples.REFERENCES[reference](clip, references.Context())


def test_geometry_comes_back_within_what_is_stated(kept: Any) -> None:
    scene = kept("tiny-dense")
    _, expected = original()
    found = scene.maps(range(FRAMES))
    valid = expected.valid
    assert (found.valid == valid).all()
    assert np.abs(found.depth[valid] / expected.depth[valid] - 1).max() < 1.23e-4
    assert np.abs(found.confidence[valid] / expected.confidence[valid] - 1).max() < 1.96e-3
    distance = np.linalg.norm(expected.points, axis=-1)
    errors = np.linalg.norm(found.points - expected.points, axis=-1)
    assert (errors[valid] / distance[valid]).max() < 1.3e-4
    assert found.cameras.cam_from_world.dtype == np.float64
    assert (found.cameras.cam_from_world == expected.cameras.cam_from_world).all()
    assert (found.cameras.intrinsics == expected.cameras.intrinsics).all()
    assert found.provenance["unit"] == expected.provenance["unit"]
    assert found.provenance["dataset"] == "tiny"
    assert found.points_are_depth()


def test_a_clip_takes_at_most_a_quarter_of_the_published_layout(kept: Any, tmp_path: Path) -> None:
    kept("tiny-dense")
    # uint8 pictures and masks, float32 depth, confidence and points: 296 MB for 81 x 294 x 518
    published = (3 + 1 + 4 + 4 + 12) * FRAMES * SIZE[0] * SIZE[1]
    assert (3 + 1 + 4 + 4 + 12) * 81 * 294 * 518 == pytest.approx(296e6, rel=2e-3)
    (shard,) = open_shards(tmp_path / "tiny-dense")
    for listed in shard.clips:  # with the headers of the archive, which weigh more in small frames
        assert 0 < listed["bytes"] < published / 4


def test_pictures_come_back_within_what_is_stated(kept: Any) -> None:
    scene = kept("tiny-dense")
    clip, _ = original()
    assert psnr(scene.pictures(range(FRAMES)), clip.frames) > 40
    np.testing.assert_allclose(scene.seconds(range(FRAMES)), clip.timestamps)
    assert scene.identity == clip.source_hash


def test_pictures_without_loss_are_the_same(kept: Any) -> None:
    scene = kept("tiny-dense", quality=LOSSLESS)
    clip, _ = original()
    assert (scene.pictures(range(FRAMES)) == clip.frames).all()


def test_a_few_frames_are_read_alone(kept: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = kept("tiny-dense")
    taken: list[int] = []
    read = Shard._read

    def counted(self: Shard, start: int, members: Any) -> list[bytes]:
        taken.extend(size for _, size, _ in members)
        return read(self, start, members)

    monkeypatch.setattr(Shard, "_read", counted)
    sample = scene.sample([0, 5])
    assert len(taken) == 6
    maps = scene.maps([0, 5])
    assert (sample.depth == maps.depth).all()
    assert (sample.confidence == maps.confidence).all()
    assert (sample.cameras.cam_from_world == maps.cameras.cam_from_world).all()
    assert (sample.pictures == scene.pictures([0, 5])).all()
    del taken[6:]
    assert sum(taken) < 0.3 * scene._listed["bytes"]


def test_the_store_is_a_dataset_like_any_other(kept: Any, tmp_path: Path) -> None:
    scene = kept("tiny-dense")
    store = open_dataset(None, tmp_path / "tiny-dense")
    assert store.card.id == "prepared"
    assert store.names == ("s0", "s1")
    clip = scene.clip(count=5, size=(12, 16))
    found = references.reconstruct("sensor", clip)
    assert found is not None
    assert found.size == (12, 16)
    expected = samples.TinyScene(samples.Tiny(Path()).entries[1], 1)
    exact = expected.reconstruction(expected.clip(count=5, size=(12, 16)))
    valid = exact.valid
    np.testing.assert_allclose(found.depth[valid], exact.depth[valid], rtol=2.5e-4)
    np.testing.assert_allclose(found.cameras.intrinsics, exact.cameras.intrinsics)
    assert found.provenance["unit"] == pytest.approx(exact.provenance["unit"], rel=2e-4)
    assert "the unit length is 3.78" in found.provenance["note"]


def test_a_crop_of_a_later_window_has_its_own_unit_and_first_camera(kept: Any) -> None:
    scene = kept("tiny-dense")
    clip = scene.clip(start=2, stride=2, count=3, size=(12, 12))
    assert clip.crop == (0, 4, 24, 24)
    found = scene.reconstruction(clip)
    expected = samples.TinyScene(samples.Tiny(Path()).entries[1], 1)
    exact = expected.reconstruction(expected.clip(start=2, stride=2, count=3, size=(12, 12)))
    valid = exact.valid
    np.testing.assert_allclose(found.points[valid], exact.points[valid], atol=4e-4)
    np.testing.assert_allclose(
        found.cameras.cam_from_world, exact.cameras.cam_from_world, atol=1e-4
    )
    assert np.linalg.norm(found.points[0][found.valid[0]], axis=-1).mean() == pytest.approx(1)


def test_sparse_points_come_back_exactly_and_survive_another_size(kept: Any) -> None:
    scene = kept("tiny-sparse")
    _, expected = original("tiny-sparse")
    found = scene.maps([0, 4, 8])
    assert found.sparse
    picked = expected.at_frames(np.array([0, 4, 8]))
    assert (found.valid == picked.valid).all()
    np.testing.assert_allclose(found.points, picked.points, rtol=1e-6)
    small = scene.reconstruction(scene.clip(count=FRAMES, size=(12, 16)))
    assert small.sparse
    assert small.frames.tolist() == [0, 2, 4, 6, 8]
    assert small.valid.sum() >= 0.5 * expected.valid.sum()
    with pytest.raises(DatasetError, match="without geometry for frame 3; it has"):
        scene.maps([0, 3])


def test_a_reference_of_few_frames_is_known_at_those(kept: Any) -> None:
    scene = kept("tiny-some")
    assert scene.geometry_frames.tolist() == [0, 1, 5]
    clip = scene.clip(count=FRAMES, size=SIZE)
    found = scene.reconstruction(clip)
    assert found.frames.tolist() == [0, 1, 5]
    assert found.size == SIZE
    assert scene.maps([0, 5]).size == (12, 16)
    with pytest.raises(NoReconstruction, match=r"start at one of \[0, 1, 5\]"):
        scene.reconstruction(scene.clip(start=2, count=5, size=SIZE))


def test_frames_that_are_not_there_are_refused(kept: Any) -> None:
    scene = kept("tiny-dense")
    with pytest.raises(DatasetError, match="has frames 0 to 8, not 9"):
        scene.pictures([9])


def test_a_folder_without_a_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="holds no prepared data"):
        open_prepared(tmp_path)
    (tmp_path / "manifest.json").write_text('{"scenes": []}')
    with pytest.raises(DatasetError, match="holds no prepared data"):
        open_prepared(tmp_path)


def test_numbers_are_coded_within_the_same_relative_error_everywhere() -> None:
    values = np.exp(np.random.default_rng(0).uniform(-3, 7, size=(40, 50))).astype(np.float32)
    values[:5] = 0
    code = LogCode.fit(values, step=2.0**-12)
    again = code.decode(decode_map("x", encode_map(code.encode(values))))
    assert (again[:5] == 0).all()
    errors = np.abs(again[5:].astype(np.float64) / values[5:] - 1)
    assert 1e-4 < errors.max() < code.relative_error * 1.001
    assert code.relative_error == pytest.approx(1.2208e-4, rel=1e-3)
    assert LogCode.from_dict(code.to_dict()) == code


def test_a_range_beyond_16_bits_is_coded_in_wider_steps() -> None:
    values = np.array([[1e-9, 1.0, 1e12]], dtype=np.float64)
    code = LogCode.fit(values, step=2.0**-12)
    assert code.step > 2.0**-12
    np.testing.assert_allclose(code.decode(code.encode(values)), values, rtol=code.relative_error)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -1.0])
def test_numbers_that_are_none_are_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="negative or not finite"):
        LogCode.fit(np.array([1.0, bad]), step=0.1)


def test_damaged_maps_are_refused() -> None:
    with pytest.raises(DatasetError, match="no map of 16 bits"):
        decode_map("depth", b"nothing")
