"""How long a person waits: for a look, for a heatmap, for the command line, for the page.

    python benchmarks/look_speed.py [--json FILE]

Prints a Markdown table and writes the same figures as JSON. "Warm" is a process with its models
loaded, "cached" a cell that the store has. Every figure is the median and the worst of `--repeat`
measurements; each warm look is at another shipped clip, so that nothing of it is in the store.
Looks are timed with the recording that the page streams to its viewer, without the network.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from functools import partial
from itertools import cycle
from pathlib import Path
from statistics import median
from typing import Any

from explorer._atomic import replace_file
from explorer._machine import describe_machine
from explorer.assets import assets_root
from explorer.backbones import registry
from explorer.look import FramePredicted, LookRequest, look
from explorer.recording import Recording
from explorer.store import Store

REPOSITORY = Path(__file__).resolve().parents[1]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", default="toy-wan")
    parser.add_argument("--layer", type=int, help="default: the backbone's default cell")
    parser.add_argument("--sigma", type=float)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", type=Path, help="write the figures there")
    arguments = parser.parse_args()
    clips = sorted((assets_root() / "clips").glob("*.mp4"))
    if len(clips) < 2:
        raise SystemExit(f"two or more clips are needed in {assets_root() / 'clips'}")
    layer, sigma = registry.card(arguments.backbone).default_cell
    request = LookRequest(
        path=clips[0],
        backbone=arguments.backbone,
        layer=layer if arguments.layer is None else arguments.layer,
        sigma=sigma if arguments.sigma is None else arguments.sigma,
        device=arguments.device,
    )
    with tempfile.TemporaryDirectory(prefix="look-speed-") as folder:
        root = Path(folder)
        rows = [
            *command_line(request, root / "cold", arguments.repeat),
            *warm(request, clips, root / "warm", arguments.repeat),
            *page(root / "page", arguments.repeat),
        ]
    device = registry.resolve_device(arguments.device)
    import torch

    figures = {
        "cell": f"{request.backbone}, layer {request.layer}, sigma {request.sigma:g}",
        "machine": describe_machine(device),
        "torch": torch.__version__,
        "rows": rows,
    }
    print(table(figures))
    if arguments.json is not None:
        replace_file(arguments.json, (json.dumps(figures, indent=1) + "\n").encode())


def row(name: str, seconds: list[float]) -> dict[str, Any]:
    return {"what": name, "median": round(median(seconds), 3), "worst": round(max(seconds), 3)}


def timed(work: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def warm(request: LookRequest, clips: list[Path], root: Path, repeat: int) -> list[dict[str, Any]]:
    """Looks inside this process, once its models are loaded and have run once."""
    from dataclasses import replace

    store = Store(root)
    streamed(request, store)
    found = []
    others = cycle(clips[1:])
    for number in range(repeat):
        asked = replace(request, path=next(others), seed=1 + number // (len(clips) - 1))
        found.append(streamed(asked, Store(root / f"new-{number}")))
    same = replace(request, path=clips[0])
    cached = [streamed(same, store)[1] for _ in range(repeat)]
    return [
        row("warm, not cached: first point in the stream", [first for first, _ in found]),
        row("warm, not cached: complete look", [complete for _, complete in found]),
        row("warm, cached: complete look", cached),
        row("click to heatmaps, in the server", heatmaps(same, store, repeat)),
    ]


def streamed(request: LookRequest, store: Store) -> tuple[float, float]:
    """Seconds to the first points in the recording's stream, and to the end of the look."""
    begin = time.perf_counter()
    first = None
    recording = Recording("benchmark")
    for stage in look(request, store=store):
        recording.on_stage(stage)
        recording.read()
        if first is None and isinstance(stage, FramePredicted):
            first = time.perf_counter() - begin
    recording.discard()
    if first is None:
        raise SystemExit(f"{request.backbone} has no probe for layer {request.layer}")
    return first, time.perf_counter() - begin


def heatmaps(request: LookRequest, store: Store, repeat: int) -> list[float]:
    """From a picked pixel to the pane's HTML with all frames' pictures."""
    from app import film
    from app.looks import Look
    from app.state import Pick

    found = Look("benchmark", request)
    for stage in look(request, store=store):
        found.remember(stage)
    places = [(0.1 + 0.8 * k / repeat, 0.2 + 0.6 * k / repeat) for k in range(repeat)]
    return [timed(partial(film.show, found, Pick(0, x, y))) for x, y in places]


def command_line(request: LookRequest, root: Path, repeat: int) -> list[dict[str, Any]]:
    """`emerge3d look --json` as a new process each time."""
    words = [sys.executable, "-m", "explorer.cli"]
    asked = [*words, "look", str(request.path), "--backbone", request.backbone, "--layer"]
    asked += [str(request.layer), "--sigma", str(request.sigma), "--device", request.device]

    def run(command: list[str], cache: Path) -> float:
        environment = {**os.environ, "EMERGE3D_CACHE": str(cache)}
        return timed(
            lambda: subprocess.run(
                command, env=environment, cwd=REPOSITORY, check=True, capture_output=True
            )
        )

    once = max(2, repeat // 2)
    cold = [run([*asked, "--json"], root / str(number)) for number in range(once)]
    cached = [run([*asked, "--json"], root / "0") for _ in range(repeat)]
    return [
        row("command line, cold: `emerge3d look`", cold),
        row("command line, cached cell", cached),
        row("command line: `--help`", [run([*words, "--help"], root) for _ in range(repeat)]),
    ]


def page(root: Path, repeat: int) -> list[dict[str, Any]]:
    """From `python -m app` to its page and to loaded models; the first start is not counted."""
    served, ready = [], []
    for _ in range(1 + max(2, repeat // 2)):
        begin = time.perf_counter()
        server = subprocess.Popen(
            [sys.executable, "-u", "-m", "app", "--port", "0"],
            env={**os.environ, "EMERGE3D_CACHE": str(root)},
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        try:
            assert server.stdout is not None
            line = server.stdout.readline()
            if " at http" not in line:
                raise SystemExit(f"the app did not start: {line!r}")
            url = line.rsplit(" ", 1)[-1].strip()
            get(url)
            served.append(time.perf_counter() - begin)
            while not json.loads(get(f"{url}/ready"))["ready"]:
                time.sleep(0.05)
            ready.append(time.perf_counter() - begin)
        finally:
            server.terminate()
            server.wait(timeout=20)
    return [row("start of the app to its page", served[1:]), row("… to loaded models", ready[1:])]


def get(url: str) -> bytes:
    # A proxy of the environment has no business with this machine's own page.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=60) as answer:
        return bytes(answer.read())


def table(figures: dict[str, Any]) -> str:
    machine = figures["machine"]
    place = machine["gpu"] or f"{machine['cpu']}, {machine['cores']} cores"
    lines = ["| what | median, s | worst, s |", "|---|---|---|"]
    lines += [f"| {r['what']} | {r['median']:.2f} | {r['worst']:.2f} |" for r in figures["rows"]]
    threads = f"{machine['torch_threads']} threads"
    return "\n".join(
        [*lines, "", f"{figures['cell']}; {place}, torch {figures['torch']}, {threads}."]
    )


if __name__ == "__main__":
    main()
