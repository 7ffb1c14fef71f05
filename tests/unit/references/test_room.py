"""The one network that stays loaded, and what makes room for it."""

from __future__ import annotations

import weakref
from collections.abc import Iterator

import pytest
import torch
from torch import nn

from explorer.backbones import _memory, loaded
from explorer.backbones._options import Target
from explorer.errors import ReferenceError3D
from explorer.references import _room
from explorer.references._turn import turn

FIRST, SECOND = ("first", "cpu"), ("second", "cpu")


@pytest.fixture(autouse=True)
def empty() -> Iterator[None]:
    _room._kept.clear()
    yield
    _room._kept.clear()


def test_a_network_is_loaded_once_and_gone_before_another_is_loaded() -> None:
    first = _room.network(FIRST, lambda: nn.Linear(1, 1))
    assert _room.network(FIRST, lambda: nn.Linear(1, 1)) is first
    alive = weakref.ref(first)
    del first
    seen: list[object] = []

    def load() -> nn.Module:
        seen.append(alive())
        return nn.Linear(1, 1)

    _room.network(SECOND, load)
    assert seen == [None]


def test_what_cannot_be_loaded_leaves_nothing() -> None:
    def broken() -> nn.Module:
        raise ReferenceError3D("broken")

    with pytest.raises(ReferenceError3D, match="broken"):
        _room.network(FIRST, broken)
    assert not _room.is_loaded(FIRST)


def test_a_network_at_rest_gives_way_to_a_backbone_on_its_device_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loaded, "models", {})
    alive = weakref.ref(_room.network(FIRST, lambda: nn.Linear(1, 1)))
    assert not loaded._forget_published(Target(device="cpu"))
    assert not any(let_go("cuda") for let_go in loaded.holders)
    with turn(lambda: False):
        assert not loaded.forget_idle(Target(device="cpu"))
    assert alive() is not None
    assert loaded.forget_idle(Target(device="cpu"))
    assert alive() is None
    assert not loaded.forget_idle(Target(device="cpu"))


def test_backbones_that_are_not_at_work_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    resting = ["a", "b"]
    monkeypatch.setattr(loaded, "forget_idle", lambda target: bool(resting and resting.pop()))
    monkeypatch.setattr(_memory, "free", lambda device: 0 if len(resting) > 1 else 100)
    _room.make_room(100, "cpu", "3 frames")
    assert resting == ["a"]
    with pytest.raises(ReferenceError3D, match="3 frames need about .* take fewer frames"):
        _room.make_room(101, "cpu", "3 frames")
    assert resting == []


@pytest.mark.parametrize(
    "shortage",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
        MemoryError(),
    ],
    ids=["GPU", "CPU", "Python"],
)
def test_too_little_memory_is_said_and_nothing_of_the_pass_is_held(shortage: Exception) -> None:
    held: list[weakref.ref[torch.Tensor]] = []

    def work() -> None:
        activations = torch.zeros(3)
        held.append(weakref.ref(activations))
        raise shortage

    with (
        pytest.raises(ReferenceError3D, match="3 frames do not fit into the memory of cuda"),
        _room.or_too_little("cuda", "3 frames"),
    ):
        work()
    assert held[0]() is None


def test_another_failure_is_left_as_it_is() -> None:
    with pytest.raises(RuntimeError, match="sizes differ"), _room.or_too_little("cpu", "1 frame"):
        raise RuntimeError("sizes differ")
