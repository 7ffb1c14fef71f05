"""A page of its own for each test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from app import metrics_panel
from app.handlers import Handlers, running
from app.state import Session, Source
from explorer.clip import VideoInfo
from explorer.look import Stage
from explorer.store import Store


@pytest.fixture
def page(tmp_path: Path) -> Handlers:
    return Handlers(Store(tmp_path / "store"), tmp_path / "downloads")


@pytest.fixture
def session(tmp_path: Path) -> Session:
    info = VideoInfo(5, 24.0, 0.2, (18, 32))
    (tmp_path / "clip.mp4").write_bytes(b"only its existence matters here")
    return Session(Source(tmp_path / "clip.mp4", "clip", info, shipped=True))


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., Iterator[Stage]]], None]:
    def use(fake: Callable[..., Iterator[Stage]]) -> None:
        monkeypatch.setattr(running, "look", lambda request, **kwargs: fake(request, **kwargs))

    return use


@pytest.fixture
def no_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The metrics panel finds no probe of any cell."""
    monkeypatch.setattr(metrics_panel, "find_probe", lambda *cell: None)
    monkeypatch.setattr(metrics_panel, "list_probes", lambda backbone: [])
