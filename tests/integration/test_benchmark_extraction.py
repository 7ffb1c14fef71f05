"""The script behind the figures of extraction runs, and says what it measured."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "extraction.py"
# What a machine for measurements has; whatever these need is there too.
PRESENT = ("torch", "diffusers", "numpy", "safetensors", "einops")


def absent() -> list[str]:
    """Top-level modules that are installed here and would not be there."""
    there, waiting = set(), [name.lower() for name in PRESENT]
    while waiting:
        name = waiting.pop()
        if name in there:
            continue
        there.add(name)
        try:
            needs = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        waiting += [
            re.split(r"[^\w.-]", need)[0].lower() for need in needs if "extra ==" not in need
        ]
    there = {name.replace("_", "-") for name in there}
    return sorted(
        module
        for module, owners in metadata.packages_distributions().items()
        if not any(owner.lower().replace("_", "-") in there for owner in owners)
        and module not in ("explorer", "app", "benchmarks")
    )


@pytest.fixture(scope="module")
def extraction() -> ModuleType:
    spec = importlib.util.spec_from_file_location("extraction", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["extraction"] = module
    spec.loader.exec_module(module)
    return module


def test_every_row_is_measured_on_a_machine_with_torch_and_diffusers_alone(tmp_path: Path) -> None:
    out = tmp_path / "figures.json"
    lacking = absent()
    assert {"transformers", "cv2", "av", "gradio", "jaxtyping", "scipy", "tyro"} <= set(lacking)
    code = (
        f"import runpy, sys; sys.modules.update(dict.fromkeys({lacking!r})); "
        f"sys.argv = ['extraction', '--tiny', '--repeats', '1', '--json', {str(out)!r}]; "
        f"sys.path[:0] = {[str(SCRIPT.parent), str(SCRIPT.parents[1])]!r}; "
        f"runpy.run_path({str(SCRIPT)!r}, run_name='__main__')"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=200
    ).stdout
    rows = json.loads(out.read_text())["rows"]
    assert [len(rows[name]) for name in ("wan2.1-1.3b", "wan2.1-14b")] == [15, 2]
    cell, layers, slots = 4 * 6 * 24 * 2, 4, 3
    found = {row["what"].split(":")[0]: row["feature_bytes"] for row in rows["wan2.1-1.3b"]}
    assert found["first cell"] == found["a further sigma"] == slots * cell
    assert found["all layers at one sigma, in host memory"] == layers * slots * cell
    assert found["VAE, then 4 sigmas x all layers"] == 4 * layers * slots * cell
    assert all(row["median"] > 0 for name in rows for row in rows[name])
    assert all(
        row["reserved_bytes"] == row["peak_bytes"] == 0 for name in rows for row in rows[name]
    )
    assert printed.count("| peak GiB | held GiB |") == 2
    assert {line.count("|") for line in printed.splitlines() if line.startswith("|")} == {7}
    assert printed.count("(tiny stand-in)") == 2


def test_the_released_cell_and_ours_are_one_computation(
    extraction: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting = extraction.Setting(torch.device("cpu"), repeats=1, tiny=True, compiled=False)
    name = "wan2.1-1.3b"
    card = setting.card(name)
    clip = setting.clip(card)
    vae = setting.vae("float32")
    transformer = setting.transformer(name, "float32")
    prompt = extraction.make_prompt(transformer, setting.device)
    generator = torch.Generator().manual_seed(0)
    noise: Any = lambda like: torch.randn(like.shape, generator=generator)  # noqa: E731
    monkeypatch.setattr(torch, "randn_like", noise)
    theirs = extraction.released_cell(vae, transformer, prompt, clip, 2)
    backbone = extraction._wan.WanBackbone(
        card,
        vae,
        transformer,
        weights_hash="",
        encoder_hash="",
        trained=False,
        schedule=extraction.SCHEDULE,
        prompt=prompt,
    )
    ours = backbone.extract(clip, layers=[2], sigma=extraction.SIGMA)[2].values
    np.testing.assert_array_equal(theirs[0].reshape(ours.shape), ours)


def test_the_shapes_are_those_of_the_published_models(extraction: ModuleType) -> None:
    import diffusers

    from explorer.backbones import registry

    library: Any = diffusers
    with torch.device("meta"):
        vae = library.AutoencoderKLWan()
        for name, config in extraction.TRANSFORMERS.items():
            parts = (vae, library.WanTransformer3DModel(**config))
            counted = sum(weights.numel() for part in parts for weights in part.parameters())
            assert registry.card(name).parameters == counted


def test_the_released_procedure_runs_with_the_convolutions_that_torch_chooses_by_default(
    extraction: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []

    def cell(*_: Any) -> np.ndarray:
        seen.append(torch.backends.cudnn.allow_tf32)
        return np.zeros(1)

    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    monkeypatch.setattr(extraction, "released_cell", cell)
    setting = extraction.Setting(torch.device("cpu"), repeats=1, tiny=True, compiled=False)
    extraction.released(setting, "wan2.1-1.3b")
    assert seen == [True, True]
    assert not torch.backends.cudnn.allow_tf32
