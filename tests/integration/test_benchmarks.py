"""The scripts behind the README's figures still run."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import vae_memory

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def look_speed() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "look_speed", REPOSITORY / "benchmarks" / "look_speed.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_warm_looks_are_computed_and_cached_ones_are_not(
    look_speed: ModuleType, tiny: Any, tmp_path: Path
) -> None:
    clips = [tiny.request.path, tiny.request.path]
    rows = look_speed.warm(tiny.request, clips, tmp_path / "speed", 2)
    assert [row["what"].split(":")[0] for row in rows] == [
        "warm, not cached",
        "warm, not cached",
        "warm, cached",
        "click to heatmaps, in the server",
    ]
    first_point, complete = rows[:2]
    assert 0 < first_point["median"] <= complete["median"]
    assert all(0 <= row["median"] <= row["worst"] for row in rows)
    # one to warm up and two measured; the cached looks and the heatmaps compute nothing
    assert tiny.backbone.calls == 3
    assert tiny.backbone.encoder_calls == 3


def test_the_table_names_the_machine(look_speed: ModuleType) -> None:
    machine = {"cpu": "A processor", "cores": 2, "torch_threads": 2, "gpu": None}
    text = look_speed.table(
        {
            "cell": "tiny, layer 1, sigma 0.3",
            "machine": machine,
            "torch": "2",
            "rows": [look_speed.row("a look", [1.0, 3.0, 2.0])],
        }
    )
    assert "| a look | 2.00 | 3.00 |" in text
    assert text.endswith("tiny, layer 1, sigma 0.3; A processor, 2 cores, torch 2, 2 threads.")


def test_the_memory_of_each_number_of_slots_is_counted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["vae_memory", "--tiny"])
    vae_memory.main()
    rows = capsys.readouterr().out.splitlines()[2:]
    assert [row.split(" | ")[0] for row in rows] == ["| 1", "| 2", "| 3"]
    counts = [[float(cell.split()[0]) for cell in row.split(" | ")[1:]] for row in rows]
    assert counts == sorted(counts)
