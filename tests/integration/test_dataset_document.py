"""docs/datasets.md: its table is the registry's, and its example is a reader that works."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from printed_commands import REPOSITORY, blocks

from explorer.cli import main
from explorer.data import dataset as datasets
from explorer.data.dataset import cards, open_dataset

PAGE = REPOSITORY / "docs" / "datasets.md"
EXAMPLE = next(block.text for block in blocks(PAGE) if "@register" in block.text)
SIZE = (48, 64)


def write_phone(folder: Path, count: int = 6) -> None:
    """A wall two metres away, and a camera that moves sideways by a tenth a frame."""
    lines = []
    for number in range(count):
        for name, image in (
            (f"colour/{number}.jpg", np.full((*SIZE, 3), 40 * number, dtype=np.uint8)),
            (f"depth/{number}.png", np.full((24, 32), 2000, dtype=np.uint16)),
        ):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            assert cv2.imwrite(str(folder / name), image)
        pose = np.eye(4)
        pose[0, 3] = 0.1 * number
        lines.append(" ".join(str(float(each)) for each in (50, 50, 31.5, 23.5, *pose.ravel())))
    (folder / "cameras.txt").write_text("\n".join(lines) + "\n")


@pytest.fixture
def phone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The page's reader, registered for one test."""
    cards()
    monkeypatch.setattr(datasets, "_readers", dict(datasets._readers))
    exec(compile(EXAMPLE, "docs/datasets.md", "exec"), {"__name__": "phone"})


def test_the_table_has_every_reader_of_a_foreign_layout() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", PAGE.read_text(), re.MULTILINE)
    assert len(rows) == len(set(rows))
    assert set(rows) == {card.id for card in cards()}


def test_the_example_takes_under_60_lines() -> None:
    assert len(EXAMPLE.splitlines()) < 60


def test_the_example_reads_what_it_says(phone: None, tmp_path: Path) -> None:
    write_phone(tmp_path / "flat3-monday")
    write_phone(tmp_path / "flat3-friday")
    dataset = open_dataset(None, tmp_path)
    assert dataset.card.id == "phone"
    assert [(each.name, each.place) for each in dataset.entries] == [
        ("flat3-friday", "flat3"),
        ("flat3-monday", "flat3"),
    ]
    scene = dataset.scene("flat3-monday")
    clip = scene.clip(start=1, stride=2, count=2, size=(24, 48))
    found = scene.reconstruction(clip)
    unit = found.provenance["unit"]
    assert found.valid.all()
    np.testing.assert_allclose(found.depth * unit, 2, rtol=1e-6)
    np.testing.assert_allclose(found.cameras.centers[1] * unit, [0.2, 0, 0], atol=1e-9)
    # 64 columns become 48, of the 32 rows in the middle
    np.testing.assert_allclose(
        found.cameras.intrinsics[0], [[37.5, 0, 24], [0, 37.5, 12], [0, 0, 1]]
    )


def test_a_look_at_the_example_has_metrics(
    phone: None, tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_phone(tmp_path / "scans" / "flat3-monday")
    words = [str(tmp_path / "scans"), "--backbone", "tiny", "--count", "5", "--json"]
    assert main(["look", *words]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["point_error"] > 0
    assert found["provenance"]["reference"]["dataset"] == "phone"
