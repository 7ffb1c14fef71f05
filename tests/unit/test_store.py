from __future__ import annotations

import logging
import multiprocessing
import os
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from explorer import store as module
from explorer.store import Store, canonical_json, default_root

KEY: dict[str, Any] = {
    "clip": "0f",
    "backbone": "toy-wan",
    "backbone_hash": "ab",
    "layer": 5,
    "sigma": 0.3,
    "seed": 0,
    "dtype": "float32",
    "device": "cpu",
}


def arrays() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    return {
        "half": generator.normal(size=(2, 3, 4)).astype(np.float16),
        "single": generator.normal(size=(5,)).astype(np.float32),
        "double": generator.normal(size=(2, 2)),
        "long": np.arange(7),
        "short": np.arange(4, dtype=np.int32),
        "byte": np.arange(6, dtype=np.uint8).reshape(2, 3),
        "mask": np.array([True, False]),
        "scalar": np.array(1.5),
        "none": np.zeros((0, 3), np.float32),
    }


def files(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file()]


def test_what_is_put_comes_back_bit_for_bit_with_its_meta(tmp_path: Path) -> None:
    store, meta = Store(tmp_path), {"frames": [0, 1, 5], "note": "é", "none": None}
    assert store.get("features", KEY) is None
    assert store.put("features", KEY, arrays(), meta)
    found = store.get("features", KEY)
    assert found is not None
    assert found[1] == meta
    assert set(found[0]) == set(arrays())
    for name, expected in arrays().items():
        assert found[0][name].dtype == expected.dtype
        assert found[0][name].shape == expected.shape
        assert found[0][name].tobytes() == expected.tobytes()


def test_transposed_arrays_come_back_with_their_own_values(tmp_path: Path) -> None:
    store, array = Store(tmp_path), np.arange(12.0).reshape(3, 4).T[::2]
    store.put("latents", KEY, {"x": array})
    found = store.get("latents", KEY)
    assert found is not None
    assert np.array_equal(found[0]["x"], array)


@pytest.mark.parametrize("field", sorted(KEY))
def test_every_field_of_the_key_makes_another_entry(tmp_path: Path, field: str) -> None:
    store = Store(tmp_path)
    store.put("features", KEY, arrays())
    value = KEY[field]
    changed = {**KEY, field: value + 1 if isinstance(value, (int, float)) else value + "x"}
    without = {name: item for name, item in KEY.items() if name != field}
    assert store.get("features", changed) is None
    assert store.get("features", without) is None
    assert store.get("latents", KEY) is None


def test_canonical_json_ignores_order_and_number_types_only() -> None:
    one = canonical_json({"b": (1, 2.5), "a": {"y": np.int64(1), "x": np.float64(0.3)}})
    assert one == '{"a":{"x":0.3,"y":1},"b":[1,2.5]}'
    assert one == canonical_json({"a": {"x": 0.3, "y": 1}, "b": [1, 2.5]})
    assert canonical_json({"a": 0.1}) != canonical_json({"a": 0.1 + 1e-17 * 2})
    assert canonical_json({"a": "1"}) != canonical_json({"a": 1})


@pytest.mark.parametrize(
    ("value", "error"),
    [({1: 2}, TypeError), ({"a": float("nan")}, ValueError), ({"a": Path("x")}, TypeError)],
)
def test_a_key_that_json_cannot_hold_exactly_is_refused(
    value: dict[Any, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        canonical_json(value)


def test_arrays_and_kinds_that_cannot_be_stored_are_refused_before_writing(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(TypeError, match="dtype object"):
        store.put("features", KEY, {"x": np.array([None])})
    with pytest.raises(ValueError, match="lower-case"):
        store.put("../outside", KEY, arrays())
    assert files(tmp_path) == []


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_crash_in_the_middle_of_a_put_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    store = Store(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(module.os, step, crash)
        with pytest.raises(KeyboardInterrupt):
            store.put("features", KEY, arrays())
    assert files(tmp_path) == []
    assert store.get("features", KEY) is None


def _die_before_rename(root: Path) -> None:
    module.os.replace = lambda *_: os._exit(9)
    Store(root).put("features", KEY, arrays())


def test_a_killed_writer_leaves_no_entry_and_prune_sweeps_its_file(tmp_path: Path) -> None:
    writer = multiprocessing.get_context("spawn").Process(
        target=_die_before_rename, args=(tmp_path,)
    )
    writer.start()
    writer.join(60)
    assert writer.exitcode == 9
    store = Store(tmp_path)
    assert store.get("features", KEY) is None
    (leftover,) = files(tmp_path)
    store.prune(1 << 30)
    assert leftover.exists(), "a young temporary file may belong to a living writer"
    old = time.time() - 2 * 3600
    os.utime(leftover, (old, old))
    store.prune(1 << 30)
    assert files(tmp_path) == []


def _cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def _flip(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


@pytest.mark.parametrize("damage", [_cut, _flip, lambda _: b"", lambda _: b"text" * 9])
def test_a_broken_file_is_a_miss_and_is_removed_with_a_warning(
    tmp_path: Path, damage: Any, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store(tmp_path)
    store.put("features", KEY, {"x": np.arange(100, dtype=np.float32)})
    path = store.path("features", KEY)
    path.write_bytes(damage(path.read_bytes()))
    with caplog.at_level(logging.WARNING):
        assert store.get("features", KEY) is None
    assert "removing the broken cache file" in caplog.text
    assert not path.exists()
    assert store.put("features", KEY, arrays())
    assert store.get("features", KEY) is not None


def test_a_file_copied_onto_another_key_is_not_believed(tmp_path: Path) -> None:
    store, other = Store(tmp_path), {**KEY, "layer": 6}
    store.put("features", KEY, arrays())
    store.put("features", other, arrays())
    store.path("features", other).write_bytes(store.path("features", KEY).read_bytes())
    assert store.get("features", other) is None
    assert store.get("features", KEY) is not None


def test_a_store_that_cannot_be_written_is_logged_and_costs_no_work(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    store = Store(blocked)
    with caplog.at_level(logging.WARNING):
        assert not store.put("features", KEY, arrays())
        assert store.get("features", KEY) is None
    assert "cannot cache" in caplog.text


def test_writers_and_readers_at_once_see_whole_entries_only(tmp_path: Path) -> None:
    expected = np.arange(20_000, dtype=np.float32)
    together, wrong = threading.Barrier(6), []

    def work() -> None:
        store = Store(tmp_path)
        together.wait()
        for _ in range(10):
            store.put("features", KEY, {"x": expected})
            found = store.get("features", KEY)
            if found is None or not np.array_equal(found[0]["x"], expected):
                wrong.append(found)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert files(tmp_path) == [Store(tmp_path).path("features", KEY)]


def test_prune_removes_the_least_recently_used_first(tmp_path: Path) -> None:
    store = Store(tmp_path)
    keys = [{"n": number} for number in range(4)]
    for number, key in enumerate(keys):
        store.put("features", key, {"x": np.zeros(1000, np.float32)})
        os.utime(store.path("features", key), (number + 1, number + 1))
    one = store.size() // 4
    assert store.get("features", keys[0]) is not None
    assert store.prune(2 * one) == 2 * one
    assert store.size() == 2 * one
    left = [number for number, key in enumerate(keys) if store.path("features", key).exists()]
    assert left == [0, 3]


def test_a_store_keeps_itself_near_its_largest_size(tmp_path: Path) -> None:
    store = Store(tmp_path, max_bytes=50_000)
    for number in range(40):
        store.put("features", {"n": number}, {"x": np.zeros(1000, np.float32)})
    assert store.size() <= 50_000 * 17 / 16 + 5000
    assert store.get("features", {"n": 39}) is not None


def test_the_root_follows_the_environment_and_else_the_checkout(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("EMERGE3D_CACHE", str(tmp_path / "elsewhere"))
    assert Store().root == tmp_path / "elsewhere"
    monkeypatch.delenv("EMERGE3D_CACHE")
    checkout = tmp_path / "checkout"
    (checkout / "cache").mkdir(parents=True)
    (checkout / "pyproject.toml").touch()
    monkeypatch.setattr(module, "__file__", str(checkout / "explorer" / "store.py"))
    assert default_root() == checkout.resolve() / "cache" / "store"
    monkeypatch.setattr(module, "__file__", str(tmp_path / "site-packages/explorer/store.py"))
    monkeypatch.setenv("HOME", str(tmp_path))
    for unset in ("", "relative/cache"):
        monkeypatch.setenv("XDG_CACHE_HOME", unset)
        assert default_root() == tmp_path / ".cache" / "emerge3d"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert default_root() == tmp_path / "xdg" / "emerge3d"
