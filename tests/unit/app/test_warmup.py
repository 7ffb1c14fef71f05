"""Loading models behind the served page."""

from __future__ import annotations

import sys
import threading
from types import SimpleNamespace

import pytest

from app import warmup
from app.warmup import WarmUp
from explorer.errors import BackboneError


@pytest.fixture(autouse=True)
def _no_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is tested is the order of things, not the seconds of an import."""
    cuda = SimpleNamespace(is_available=lambda: False)
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    monkeypatch.setitem(sys.modules, "diffusers", SimpleNamespace())


def test_models_are_loaded_once_the_first_page_was_served(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    asked = threading.Event()
    monkeypatch.setattr(warmup.registry, "load", lambda name: order.append(name))
    warm = WarmUp()

    def wait(seconds: float) -> bool:
        asked.set()
        return waiting(60)

    waiting = warm.first_page.wait
    monkeypatch.setattr(warm.first_page, "wait", wait)
    warm.start()
    assert asked.wait(60)
    assert warm.state()["ready"] is False
    order.append("page")
    warm.first_page.set()
    assert warm.ready.wait(60)
    assert order == ["page", "toy-wan"]
    assert (warm.state()["device"], warm.state()["problem"]) == ("CPU", None)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (BackboneError("its files are missing: restore them"), "restore them"),
        (RuntimeError("/srv/secret"), "the server's log says more"),
    ],
)
def test_a_page_can_be_used_though_the_first_model_cannot(
    monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
) -> None:
    def load(name: str) -> None:
        raise error

    monkeypatch.setattr(warmup.registry, "load", load)
    warm = WarmUp()
    warm.first_page.set()
    warm.start()
    assert warm.ready.wait(60)
    problem = str(warm.state()["problem"])
    assert said in problem
    assert "/root" not in problem


def test_a_server_that_ends_while_it_loads_complains_about_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Ctrl-C takes the interpreter away from under an import."""
    begun, ended = threading.Event(), threading.Event()

    def load(name: str) -> None:
        begun.set()
        assert ended.wait(60)
        raise RuntimeError("cannot schedule new futures after shutdown")

    monkeypatch.setattr(warmup.registry, "load", load)
    warm = WarmUp()
    warm.first_page.set()
    caplog.set_level("INFO", logger="app.warmup")
    warm.start()
    assert begun.wait(60)
    warm.end()
    ended.set()
    for thread in threading.enumerate():
        if thread.name == "warm-up":
            thread.join(60)
    assert caplog.records == []
    assert warm.state()["ready"] is False
