from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from explorer.backbones.base import hash_arrays, hash_files, resize_frames, slot_map


def test_slots_of_a_causal_vae_start_with_the_first_frame_alone() -> None:
    frame_to_slot, slot_frames = slot_map(17, 4)
    assert slot_frames.tolist() == [0, 1, 5, 9, 13]
    assert frame_to_slot.tolist() == [0] + [slot for slot in (1, 2, 3, 4) for _ in range(4)]
    assert (frame_to_slot[slot_frames] == np.arange(5)).all()


def test_without_latent_time_every_frame_is_a_slot() -> None:
    frame_to_slot, slot_frames = slot_map(3, 1)
    assert frame_to_slot.tolist() == slot_frames.tolist() == [0, 1, 2]


def test_frames_of_the_right_size_are_not_touched() -> None:
    frames = np.zeros((2, 4, 6, 3), dtype=np.uint8)
    assert resize_frames(frames, (4, 6)) is frames


def test_shrinking_averages_areas_and_keeps_the_orientation() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (2, 8, 12, 3), dtype=np.uint8)
    expected = frames.reshape(2, 4, 2, 4, 3, 3).astype(np.float64).mean(axis=(2, 4))
    found = resize_frames(frames, (4, 4))
    assert found.dtype == np.uint8
    np.testing.assert_allclose(found, expected, atol=0.51)


def test_enlarging_is_smooth() -> None:
    frames = np.zeros((1, 2, 2, 3), dtype=np.uint8)
    frames[:, :, 1] = 200
    row = resize_frames(frames, (2, 8))[0, 0, :, 0].astype(int)
    assert (np.diff(row) >= 0).all()
    assert len(set(row.tolist())) > 2


def test_an_axis_that_shrinks_is_averaged_also_where_the_other_grows() -> None:
    stripes = np.zeros((1, 8, 4, 3), dtype=np.uint8)
    stripes[:, ::2] = 200
    found = resize_frames(stripes, (2, 16))
    assert (found == 100).all()


def test_a_hash_of_arrays_sees_name_shape_dtype_and_values() -> None:
    array = np.arange(6, dtype=np.float32)
    variants = [
        hash_arrays([("a", array)], "c"),
        hash_arrays([("b", array)], "c"),
        hash_arrays([("a", array)], "d"),
        hash_arrays([("a", array.reshape(2, 3))], "c"),
        hash_arrays([("a", array.view(np.int32))], "c"),
        hash_arrays([("a", array + 1)], "c"),
    ]
    assert len(set(variants)) == len(variants)
    assert hash_arrays([("a", array.copy())], "c") == variants[0]


def test_a_hash_of_files_does_not_depend_on_their_order_or_folder(tmp_path: Path) -> None:
    def write(root: Path, content: bytes) -> list[Path]:
        (root / "vae").mkdir(parents=True)
        paths = [root / "vae" / "a.bin", root / "vae" / "b.bin"]
        paths[0].write_bytes(content)
        paths[1].write_bytes(b"2" * (1 << 21))
        return paths

    first = hash_files(write(tmp_path / "x", b"1"))
    assert hash_files(write(tmp_path / "y", b"1")[::-1]) == first
    assert hash_files(write(tmp_path / "z", b"3")) != first
    assert len(first) == len(hashlib.sha256().hexdigest())
