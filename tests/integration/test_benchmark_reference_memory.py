"""The script behind the figures of a reference's memory."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from explorer.references import _vggt_run

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "reference_memory.py"
# What a machine for measurements may lack; the script needs none of it.
ABSENT = (
    *("cv2", "av", "gradio", "rerun", "plotly", "psutil", "roma", "jaxtyping", "transformers"),
    *("diffusers", "accelerate", "huggingface_hub", "tyro", "PIL", "scipy", "pycolmap"),
)


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("reference_memory", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["reference_memory"] = module
    spec.loader.exec_module(module)
    return module


def test_a_tiny_pass_is_counted_with_four_packages_installed(tmp_path: Path) -> None:
    out = tmp_path / "rows.json"
    code = (
        f"import sys, runpy; sys.modules.update(dict.fromkeys({ABSENT})); "
        f"sys.argv = ['reference_memory', '--tiny', '--json', {str(out)!r}]; "
        f"sys.path.insert(0, {str(SCRIPT.parents[1])!r}); "
        f"runpy.run_path({str(SCRIPT)!r}, run_name='__main__')"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=200
    ).stdout
    (row,) = json.loads(out.read_text())["rows"]
    assert row["frames"] == 3
    assert 0 < row["weights"] < row["counted"] < 1e8
    assert row["fits"]
    if not torch.cuda.is_available():
        assert row["measured"] is None
        assert "counted from shapes" in printed


def test_storages_count_from_their_first_tensor_to_their_last(script: ModuleType) -> None:
    with script.Alive() as alive:
        first = torch.zeros(1000)
        assert alive.bytes == 4000
        second = first + 1
        view = second[10:]
        assert alive.bytes == alive.peak == 8000
        del first, second
        assert alive.bytes == 4000  # the view holds the second one
        third = view.half()
        assert alive.bytes == 4000 + 2 * 990
        del view, third
    assert alive.bytes == 0
    assert alive.peak == 8000


def test_weights_and_frames_are_counted_as_they_are(script: ModuleType) -> None:
    with torch.device("meta"):
        parameters = sum(each.numel() for each in script.VGGT(script.TINY).parameters())
    weights, few = script.counted(script.TINY, 2, script.TINY_SIZE)
    assert weights == pytest.approx(4 * parameters, rel=1e-3)
    again, many = script.counted(script.TINY, 8, script.TINY_SIZE)
    assert again == weights
    # the four taps alone, in float32
    taps = 4 * 6 * (2 * 4 + 5) * 2 * script.TINY.dim * 4
    assert many - few > taps


@pytest.mark.parametrize("frames", [1, 8])
def test_what_a_reference_asks_for_covers_what_is_counted(frames: int, script: ModuleType) -> None:
    weights, peak = script.counted(script.TINY, frames, script.TINY_SIZE)
    asked = _vggt_run._activations(script.TINY, frames, script.TINY_SIZE)
    assert peak - weights < asked
