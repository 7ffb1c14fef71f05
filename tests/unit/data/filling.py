"""How a store is filled with the tiny dataset, and what is then in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prepared_samples import FRAMES, SIZE

from explorer.data.dataset import open_dataset
from explorer.data.prepared.make import prepare
from explorer.data.prepared.manifest import Settings
from explorer.data.prepared.shards import open_shards

OPTIONS = ["--reference", "tiny-dense", "--frames", str(FRAMES), "--size", *map(str, SIZE)]


def settings(reference: str = "tiny-dense", **changes: Any) -> Settings:
    return Settings("tiny", reference, **{"frames": FRAMES, "size": SIZE, **changes})


def fill(folder: Path, out: Path, wanted: Settings | None = None, **options: Any) -> Any:
    return prepare(open_dataset("tiny", folder), out, wanted or settings(), **options)


def hashes(out: Path) -> dict[str, str]:
    return {entry["scene"]: entry["sha256"] for each in open_shards(out) for entry in each.clips}
