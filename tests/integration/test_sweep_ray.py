"""A sweep over a cluster, with a stand-in for Ray."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sweeping import ask, quick, rows_in, run, without_clock

from explorer.backbones import registry
from explorer.backbones._options import Target
from explorer.backbones.base import never
from explorer.errors import Cancelled, SweepError
from explorer.store import Store
from explorer.sweep import Failed, sweep
from explorer.sweep.ray import spread
from explorer.sweep.units import Unit


class FakeRay:
    """Workers of one process: a task runs when its result is fetched, the last one first."""

    class exceptions:  # noqa: N801 (ray's own name)
        class RayError(Exception):
            pass

    def __init__(self, dies: str = "") -> None:
        self.dies = dies
        self.cancelled: list[Any] = []
        self.options: dict[str, Any] = {}

    def init(self, address: str, **options: Any) -> None:
        if address == "nowhere":
            raise ConnectionError("nobody answers")

    def remote(self, **options: Any) -> Any:
        self.options = options
        # a task is what it does, and the clip that it is about
        return lambda work: SimpleNamespace(
            remote=lambda request, unit, root: (partial(work, request, unit, root), unit.clip)
        )

    def wait(self, tasks: list[Any], *, num_returns: int, timeout: float) -> Any:
        return tasks[-1:], tasks[:-1]

    def get(self, task: Any) -> Any:
        work, clip = task
        if self.dies and clip.endswith(self.dies):
            raise self.exceptions.RayError("out of memory")
        return work()

    def cancel(self, task: Any, *, force: bool) -> None:
        self.cancelled.append(task[1])


def test_workers_of_a_cluster_write_the_same_lines(
    tiny: Any, pair: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeRay()
    monkeypatch.setitem(sys.modules, "ray", fake)
    alone, shared = tmp_path / "alone.jsonl", tmp_path / "shared.jsonl"
    run(tiny, ask(*pair), alone)
    found = run(tiny, ask(*pair), shared, ray="auto")
    assert found[0].rows[0]["clip"] == pair[1], "the last one first"
    by_clip = sorted(without_clock(rows_in(shared)), key=lambda row: pair.index(row["clip"]))
    assert by_clip == without_clock(rows_in(alone))
    assert alone.read_bytes().splitlines()[0] == shared.read_bytes().splitlines()[0]
    assert found[-1].summary["cells"] == run(tiny, ask(*pair), alone)[-1].summary["cells"]
    assert fake.options["num_gpus"] == 0


def test_a_worker_takes_the_gpu_that_the_cluster_gives_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake, asked = FakeRay(), []
    monkeypatch.setattr(registry, "resolve_device", lambda device: device)
    monkeypatch.setattr(fake, "get", lambda task: asked.append(task[0].args[0].target) or [])
    request = ask("a.mp4", target=Target(device="cuda:1"))
    units = [Unit("a.mp4", "tiny", {})]
    assert not list(spread(fake, request, units, store=Store(tmp_path), should_stop=never))
    assert [target.device for target in asked] == ["cuda"]
    assert fake.options["num_gpus"] == 1


def test_a_worker_that_dies_is_the_failure_of_its_clip(
    tiny: Any, pair: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "a.jsonl"
    monkeypatch.setitem(sys.modules, "ray", FakeRay(dies="clip.mp4"))
    found = run(tiny, quick(*pair), out, ray="auto")
    assert found[-2] == Failed(pair[0], "tiny", "RayError: out of memory")
    assert len(rows_in(out)) == 2
    monkeypatch.setitem(sys.modules, "ray", FakeRay())
    run(tiny, quick(*pair), out, ray="auto")
    assert len(rows_in(out)) == 4


def test_a_stopped_sweep_gives_up_the_work_of_a_cluster(
    tiny: Any, pair: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeRay()
    monkeypatch.setitem(sys.modules, "ray", fake)
    with pytest.raises(Cancelled):
        run(tiny, quick(*pair), tmp_path / "a.jsonl", ray="auto", should_stop=lambda: True)
    assert fake.cancelled == list(pair)
    stopped = sweep(quick(*pair), tmp_path / "a.jsonl", store=tiny.store, ray="auto")
    next(stopped)
    stopped.close()
    assert fake.cancelled == [*pair, pair[0]]


def test_without_ray_or_a_cluster_nothing_is_begun(
    tiny: Any, pair: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SweepError, match="pip install ray"):
        run(tiny, quick(*pair), tmp_path / "a.jsonl", ray="auto")
    monkeypatch.setitem(sys.modules, "ray", FakeRay())
    with pytest.raises(SweepError, match="no Ray cluster at 'nowhere': nobody answers"):
        run(tiny, quick(*pair), tmp_path / "a.jsonl", ray="nowhere")
    assert not (tmp_path / "a.jsonl").exists()
