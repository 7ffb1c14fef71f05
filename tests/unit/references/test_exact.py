"""The exact reference and its geometry files."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from explorer import references
from explorer.camera import project
from explorer.clip import Clip
from explorer.data.geometry import load_geometry, save_geometry
from explorer.errors import ReferenceError3D
from explorer.references import exact

SIZE = (48, 80)
FRAMES = 6


def wall(shift=0.1, size=SIZE, frames=FRAMES):
    """A camera that slides right before a slanted wall z = 3 + x / 4, sky above y = -1."""
    height, width = size
    intrinsics = np.array([[60.0, 0, width / 2], [0, 60, height / 2], [0, 0, 1]])
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    ray_x, ray_y = (x - width / 2) / 60, (y - height / 2) / 60
    depth = np.stack([(3 + k * shift / 4) / (1 - ray_x / 4) for k in range(frames)])
    depth = np.where(depth * ray_y > -1, depth, 0.0).astype(np.float32)
    pose = np.tile(np.eye(3, 4), (frames, 1, 1))
    pose[:, 0, 3] = -shift * np.arange(frames)
    return {
        "depth": depth,
        "surface": np.where(depth > 0, 3, 0).astype(np.uint8),
        "cam_from_world": pose,
        "intrinsics": np.tile(intrinsics, (frames, 1, 1)),
        "attributes": {"seed": 5, "motion": "pan"},
    }


def clip(source_hash, *, frames=FRAMES, size=SIZE, crop=None, source_frames=None):
    taken = np.arange(frames) if source_frames is None else np.asarray(source_frames)
    return Clip(
        frames=np.zeros((len(taken), *size, 3), np.uint8),
        timestamps=taken / 30.0,
        content_hash="c" * 64,
        name="wall.mp4",
        source_hash=source_hash,
        source_frames=taken,
        source_size=SIZE,
        crop=(0, 0, *SIZE) if crop is None else crop,
    )


@pytest.fixture
def registered(tmp_path):
    path = tmp_path / "wall.safetensors"
    save_geometry(path, **wall())
    exact.register_geometry("a" * 64, path)
    yield path
    del exact._registered["a" * 64]


@pytest.fixture(params=["g.safetensors", "g.safetensors.gz"])
def path(request, tmp_path):
    return tmp_path / request.param


def test_geometry_comes_back_with_a_relative_depth_error_under_1e_4(path):
    scene = wall()
    rng = np.random.default_rng(0)
    scene["depth"] = np.exp(rng.uniform(np.log(0.1), np.log(100), (FRAMES, *SIZE)))
    scene["depth"][:, :5] = 0.0
    save_geometry(path, **scene)
    found = load_geometry(path)
    known = scene["depth"] > 0
    relative = np.abs(found.depth[known] / scene["depth"][known] - 1)
    assert relative.max() < np.log(1000) / 131_068 + 1e-6
    np.testing.assert_array_equal(found.depth > 0, known)
    np.testing.assert_array_equal(found.surface, scene["surface"])
    np.testing.assert_array_equal(found.cameras.cam_from_world, scene["cam_from_world"])
    np.testing.assert_array_equal(found.cameras.intrinsics, scene["intrinsics"])
    assert found.cameras.size == SIZE
    assert found.attributes == {"seed": 5, "motion": "pan"}


@pytest.mark.parametrize("value", [0.0, 2.5])
def test_constant_depth_and_nothing_but_sky_survive(tmp_path, value):
    scene = {**wall(), "depth": np.full((FRAMES, *SIZE), value, np.float32)}
    save_geometry(tmp_path / "g.safetensors", **scene)
    found = load_geometry(tmp_path / "g.safetensors")
    np.testing.assert_allclose(found.depth, value, rtol=1e-6)


def test_a_clip_of_the_shipped_size_takes_under_two_megabytes(tmp_path):
    save_geometry(tmp_path / "g.safetensors", **wall(size=(144, 256), frames=17))
    assert (tmp_path / "g.safetensors").stat().st_size < 2_000_000


def test_a_packed_file_is_less_than_half_as_large(tmp_path):
    plain, packed = tmp_path / "g.safetensors", tmp_path / "g.safetensors.gz"
    save_geometry(plain, **wall())
    save_geometry(packed, **wall())
    assert packed.stat().st_size < plain.stat().st_size / 2


def test_wide_surface_ids_are_kept_as_int16_and_wider_ones_refused(tmp_path):
    scene = wall()
    scene["surface"] = np.full((FRAMES, *SIZE), 300, np.int32)
    save_geometry(tmp_path / "g.safetensors", **scene)
    assert load_geometry(tmp_path / "g.safetensors").surface.dtype == np.int16
    scene["surface"] = np.full((FRAMES, *SIZE), 70_000, np.int32)
    with pytest.raises(ValueError, match="do not fit int16"):
        save_geometry(tmp_path / "g.safetensors", **scene)


@pytest.mark.parametrize("bad", [np.nan, -1.0])
def test_depth_that_is_no_depth_is_refused_and_leaves_no_file(tmp_path, bad):
    scene = wall()
    scene["depth"][0, 0, 0] = bad
    with pytest.raises(ValueError, match="negative or not finite"):
        save_geometry(tmp_path / "g.safetensors", **scene)
    assert list(tmp_path.iterdir()) == []


def test_a_cut_off_geometry_file_says_what_to_do(registered):
    registered.write_bytes(registered.read_bytes()[:1000])
    with pytest.raises(ReferenceError3D, match="render the clip again"):
        exact.reconstruct(clip("a" * 64))


@pytest.mark.parametrize("content", [b"", b"no gzip at all", "cut"])
def test_a_packed_file_that_is_broken_says_what_to_do(path, content):
    save_geometry(path, **wall())
    path.write_bytes(path.read_bytes()[:200] if content == "cut" else content)
    with pytest.raises(ReferenceError3D, match="render the clip again"):
        load_geometry(path)


def test_a_changed_geometry_file_says_what_to_do(registered):
    registered.write_bytes(b"not a file of tensors")
    with pytest.raises(ReferenceError3D, match="render the clip again"):
        exact.reconstruct(clip("a" * 64))


def test_a_file_of_another_kind_is_refused(tmp_path):
    save_file({"weights": np.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(ReferenceError3D, match="holds no geometry"):
        load_geometry(tmp_path / "other.safetensors")


def test_a_missing_geometry_file_says_what_to_do(tmp_path):
    with pytest.raises(ReferenceError3D, match="cannot be read"):
        load_geometry(tmp_path / "gone.safetensors")


def test_an_unknown_clip_has_no_exact_reference():
    assert exact.reconstruct(clip("0" * 64)) is None


def test_the_registry_knows_the_exact_reference(registered):
    assert "exact" in references.names()
    found = references.reconstruct("exact", clip("a" * 64))
    assert found is not None
    assert found.source == "exact"


def test_the_index_beside_the_shipped_clips_leads_to_the_geometry(tmp_path, monkeypatch):
    (tmp_path / "clips").mkdir()
    save_geometry(tmp_path / "clips" / "wall.safetensors", **wall())
    index = {"b" * 64: "wall.safetensors"}
    (tmp_path / "clips" / "index.json").write_text(json.dumps(index))
    monkeypatch.setenv("EMERGE3D_ASSETS", str(tmp_path))
    assert exact.find_geometry("b" * 64) == tmp_path / "clips" / "wall.safetensors"
    assert exact.reconstruct(clip("b" * 64)) is not None
    assert exact.find_geometry("c" * 64) is None


def test_a_broken_index_is_a_readable_error(tmp_path, monkeypatch):
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "index.json").write_text("{")
    monkeypatch.setenv("EMERGE3D_ASSETS", str(tmp_path))
    with pytest.raises(ReferenceError3D, match="index of shipped clips"):
        exact.find_geometry("b" * 64)


def test_the_reference_is_normalised_to_the_first_camera(registered):
    found = exact.reconstruct(clip("a" * 64, source_frames=[2, 3, 5]))
    np.testing.assert_allclose(found.cameras.cam_from_world[0], np.eye(3, 4), atol=1e-12)
    first = found.points[0][found.valid[0]]
    assert np.linalg.norm(first, axis=-1).mean() == pytest.approx(1.0, rel=1e-5)
    assert found.frames.tolist() == [0, 1, 2]
    scene = wall()
    unit = found.provenance["unit"]
    np.testing.assert_allclose(found.depth * unit, scene["depth"][[2, 3, 5]], rtol=2e-4)
    steps = found.cameras.centers[:, 0] * unit
    np.testing.assert_allclose(steps, [0, 0.1, 0.3], atol=1e-9)


def test_confidence_is_one_on_geometry_and_zero_on_sky(registered):
    found = exact.reconstruct(clip("a" * 64))
    np.testing.assert_array_equal(found.confidence, (wall()["depth"] > 0).astype(np.float32))


@pytest.mark.parametrize(
    ("size", "crop"),
    [((48, 80), (0, 0, 48, 80)), ((24, 40), (8, 16, 40, 64)), ((60, 90), (3, 5, 40, 60))],
)
def test_points_lie_on_the_true_surface_and_project_to_their_own_pixels(registered, size, crop):
    found = exact.reconstruct(clip("a" * 64, size=size, crop=crop))
    assert found.size == size
    unit = found.provenance["unit"]
    for slot in (0, 4):
        known = found.valid[slot]
        points = found.points[slot][known]
        pixels, z = project(
            points, found.cameras.cam_from_world[slot], found.cameras.intrinsics[slot]
        )
        y, x = np.nonzero(known)
        np.testing.assert_allclose(pixels, np.stack([x + 0.5, y + 0.5], axis=-1), atol=1e-3)
        np.testing.assert_allclose(z, found.depth[slot][known], rtol=1e-5)
        # z = 3 + x / 4 in the renderer's world; half a source pixel of slant remains at most.
        world = points * unit
        slant = 0.5 * 0.25 * 4 / 60
        assert np.abs(world[:, 2] - 3 - world[:, 0] / 4).max() < slant + 1e-3


def test_a_crop_moves_the_principal_point_and_a_resize_scales_it(registered):
    found = exact.reconstruct(clip("a" * 64, size=(24, 40), crop=(8, 16, 40, 64)))
    expected = [[60 * 40 / 64, 0, (40 - 16) * 40 / 64], [0, 60 * 24 / 40, (24 - 8) * 24 / 40]]
    np.testing.assert_allclose(found.cameras.intrinsics[0, :2], expected)


def test_a_video_longer_than_its_geometry_is_refused(registered):
    with pytest.raises(ReferenceError3D, match="render the clip again"):
        exact.reconstruct(clip("a" * 64, source_frames=[0, FRAMES]))


def test_a_first_frame_of_sky_alone_is_a_readable_error(tmp_path, monkeypatch):
    scene = wall()
    scene["depth"][0] = 0.0
    save_geometry(tmp_path / "sky.safetensors", **scene)
    monkeypatch.setitem(exact._registered, "d" * 64, tmp_path / "sky.safetensors")
    with pytest.raises(ReferenceError3D, match="only sky"):
        exact.reconstruct(clip("d" * 64))


def test_the_file_holds_arrays_and_a_header_and_no_points(registered):
    names = set(load_file(registered))
    assert names == {"depth_code", "depth_range", "surface", "cam_from_world", "intrinsics"}
