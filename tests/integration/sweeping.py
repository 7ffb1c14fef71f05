"""How sweeps of small videos are asked for and read."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from explorer.backbones._options import Target
from explorer.sweep import SweepRequest, sweep

SIGMAS = (0.3, 0.5)


def ask(*sources: str, **changes: Any) -> SweepRequest:
    asked = SweepRequest(
        sources, ("tiny",), sigmas=SIGMAS, stride=1, count=5, target=Target(device="cpu")
    )
    return replace(asked, **changes)


def quick(*sources: str, **changes: Any) -> SweepRequest:
    """Cells without a probe, whose lines are made in no time."""
    return ask(*sources, **{"layers": "0", "proxies": False, **changes})


def run(tiny: Any, request: SweepRequest, out: Path, **options: Any) -> list[Any]:
    return list(sweep(request, out, store=tiny.store, **options))


def rows_in(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.read_text().splitlines()[1:]]


def without_clock(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    unlike = ("seconds", "peak_memory_bytes", "cached")
    return [{name: row[name] for name in row if name not in unlike} for row in rows]
