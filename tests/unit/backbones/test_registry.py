from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from explorer.backbones import _memory, loaded, registry
from explorer.backbones._options import Target
from explorer.backbones.base import Backbone, BackboneCard
from explorer.errors import BackboneError


def test_cards_need_neither_torch_nor_diffusers() -> None:
    code = (
        "import sys; from explorer.backbones import registry; "
        "print([card.id for card in registry.cards()]); "
        "print(sorted({'torch', 'diffusers', 'cv2'} & set(sys.modules)))"
    )
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    ).stdout.splitlines()
    assert "toy-wan" in output[0]
    assert output[1] == "[]"


def test_an_unknown_backbone_is_answered_with_those_that_exist() -> None:
    with pytest.raises(BackboneError, match=r"no backbone 'wann'.*toy-wan"):
        registry.card("wann")


def test_ids_are_unique() -> None:
    with pytest.raises(ValueError, match="two backbones are called toy-wan"):
        registry.register(registry.card("toy-wan"))(lambda card, device, dtype: object())  # type: ignore[arg-type,return-value]


@pytest.mark.parametrize("changes", [{"dtype": "fp8"}, {"vae_dtype": "fp8"}])
@pytest.mark.parametrize("name", ["rgb", "wan2.1-1.3b"])
def test_a_precision_that_there_is_not_is_refused(
    name: str, changes: dict[str, str], tmp_path: Path
) -> None:
    target = Target(weights=tmp_path if name != "rgb" else None, **changes)  # type: ignore[arg-type]
    with pytest.raises(BackboneError, match="'fp8' is unknown: choose float32, bfloat16, float16"):
        registry.load(name, target=target)


def test_what_comes_with_the_package_has_no_card_of_other_weights(tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match="takes no other weights"):
        registry.card("toy-wan", weights=tmp_path)


@pytest.fixture
def fresh() -> Iterator[None]:
    loaded.unload("rgb")
    yield
    loaded.unload("rgb")


@pytest.mark.usefixtures("fresh")
def test_a_model_is_loaded_once_until_it_is_unloaded() -> None:
    first = registry.load("rgb", device="cpu")
    assert registry.load("rgb", device="cpu") is first
    loaded.unload("rgb")
    assert registry.load("rgb", device="cpu") is not first


@pytest.mark.usefixtures("fresh")
def test_a_failed_load_is_not_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    good = registry._entries["rgb"]

    def fail(card: BackboneCard, target: Target) -> Backbone:
        raise BackboneError("the weights are missing")

    monkeypatch.setitem(registry._entries, "rgb", replace(good, loader=fail))
    with pytest.raises(BackboneError, match="missing"):
        registry.load("rgb", device="cpu")
    monkeypatch.setitem(registry._entries, "rgb", good)
    assert registry.load("rgb", device="cpu").card.id == "rgb"


@pytest.mark.usefixtures("fresh")
def test_a_slow_load_holds_up_nobody_else_and_is_done_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    good = registry._entries["rgb"]
    begun, go_on = threading.Event(), threading.Event()
    made = []

    def slow(card: BackboneCard, target: Target) -> Backbone:
        begun.set()
        assert go_on.wait(30)
        made.append(good.loader(card, target))
        return made[-1]

    monkeypatch.setattr(loaded, "models", {})
    monkeypatch.setitem(registry._entries, "rgb", replace(good, loader=slow))
    monkeypatch.setitem(registry._entries, "other", good)
    got: list[Backbone] = []
    callers = [
        threading.Thread(target=lambda: got.append(registry.load("rgb", device="cpu")))
        for _ in range(3)
    ]
    others: list[object] = []
    aside = threading.Thread(
        target=lambda: others.extend([registry.hashes("rgb"), registry.load("other", device="cpu")])
    )
    try:
        for caller in callers:
            caller.start()
        assert begun.wait(30)
        aside.start()
        aside.join(30)
        assert len(others) == 2
        assert not got
    finally:
        go_on.set()
    for caller in callers:
        caller.join(30)
    assert len(made) == 1
    assert [model is made[0] for model in got] == [True] * 3


def test_a_noise_level_is_named_without_loading_a_model_or_torch() -> None:
    code = (
        "import sys; from explorer.backbones import registry; "
        "found = registry.noise_level('toy-wan', 0.3); "
        "print(found.timestep, found.official_index, registry.noise_level('rgb', 0.3).timestep); "
        "from explorer.backbones import loaded\n"
        "print(loaded.models, sorted({'torch', 'diffusers', 'cv2'} & set(sys.modules)))"
    )
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    ).stdout.splitlines()
    timestep, _ = registry.load("rgb", device="cpu").timestep(0.3)
    assert output[0].split()[0] == "300.0"
    assert 0 < int(output[0].split()[1]) < 999
    assert float(output[0].split()[2]) == timestep == 0.0
    assert output[1] == "{} []"


def test_a_backbone_without_a_schedule_names_no_noise_level(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    entry = replace(registry._entries["toy-wan"], schedule=None)
    monkeypatch.setitem(registry._entries, "toy-wan", entry)
    assert registry.noise_level("toy-wan", 0.3) is None
    with pytest.raises(BackboneError, match="no backbone"):
        registry.noise_level("wann", 0.3)


def test_device_auto_takes_what_is_there() -> None:
    import torch

    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert registry.resolve_device("auto") == expected
    assert registry.resolve_device("cpu") == "cpu"


@pytest.mark.parametrize("device", ["banana", "cuda:99"])
def test_a_device_that_is_not_there_is_refused(device: str) -> None:
    with pytest.raises(BackboneError, match="cannot be used .*: choose cpu or auto"):
        registry.resolve_device(device)


def test_missing_assets_are_answered_with_the_way_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("EMERGE3D_ASSETS", str(tmp_path))
    entry = registry._entries["toy-wan"]
    with pytest.raises(BackboneError, match=r"weights are missing.*EMERGE3D_ASSETS"):
        entry.loader(entry.card, Target())


def test_hashes_are_known_without_torch() -> None:
    code = (
        "import sys; from explorer.backbones import registry; "
        "found = {card.id: registry.hashes(card.id) for card in registry.here()}; "
        "print(all(len(each.weights) == 64 for each in found.values())); "
        "print(sorted({'torch', 'diffusers', 'cv2'} & set(sys.modules)))"
    )
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    ).stdout.splitlines()
    assert output == ["True", "[]"]


def test_a_backbone_without_light_hashes_is_loaded_to_know_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    entry = replace(registry._entries["rgb"], hashes=None)
    monkeypatch.setitem(registry._entries, "rgb", entry)
    monkeypatch.setattr(loaded, "models", {})
    assert registry.hashes("rgb").weights == registry.load("rgb", device="cpu").weights_hash
    assert [key[0] for key in loaded.models] == ["rgb"]


def test_a_loaded_model_answers_for_its_own_weights(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    model = registry.load("rgb", device="cpu")
    monkeypatch.setitem(loaded.models, ("toy-wan", Target()), model)
    monkeypatch.setenv("EMERGE3D_ASSETS", str(tmp_path))  # files may have changed since the load
    assert registry.hashes("toy-wan").weights == model.weights_hash


@pytest.mark.parametrize("name", ["toy-wan", "random", "latent"])
def test_light_hashes_follow_the_files(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import shutil

    from explorer.backbones import toy_wan

    source = toy_wan.model_folder()
    shutil.copytree(source, tmp_path / "models" / "toy-wan")
    monkeypatch.setattr(loaded, "models", {})
    before = registry.hashes(name)
    monkeypatch.setenv("EMERGE3D_ASSETS", str(tmp_path))
    assert registry.hashes(name) == before
    with (tmp_path / "models/toy-wan/vae/config.json").open("a") as file:
        file.write("\n")
    after = registry.hashes(name)
    assert after.weights != before.weights
    assert after.encoder != before.encoder


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Two published models, of which this machine holds one at a time."""
    names = ["wan2.1-1.3b", "dinov2-s"]
    for name in names:
        registry.write_tiny(name, tmp_path / name)
    monkeypatch.setenv("EMERGE3D_WEIGHTS", str(tmp_path))
    monkeypatch.setattr(loaded, "models", {})

    def free(device: str) -> int:
        return 0 if loaded.models else 10**12

    monkeypatch.setattr(_memory, "free", free)
    yield names
    loaded.models.clear()


def held() -> list[str]:
    return [name for name, _ in loaded.models]


def test_a_model_that_is_not_at_work_makes_room_for_another(published: list[str]) -> None:
    first, second = published
    registry.load(first, device="cpu")
    registry.load(second, device="cpu")
    assert held() == [second]


def test_the_memory_of_one_model_is_not_promised_while_another_is_read(
    published: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    looked, begun, go_on = [], threading.Event(), threading.Event()
    check = _memory.check_memory

    def watch(card: BackboneCard, target: Target) -> None:
        looked.append(card.id)
        check(card, target)

    monkeypatch.setattr(_memory, "check_memory", watch)
    first, second = published
    entry = registry._entries[first]

    def slow(card: BackboneCard, target: Target) -> Backbone:
        begun.set()
        assert go_on.wait(30)
        return entry.loader(card, target)

    monkeypatch.setitem(registry._entries, first, replace(entry, loader=slow))
    callers = [
        threading.Thread(target=registry.load, args=(name,), kwargs={"device": "cpu"})
        for name in published
    ]
    try:
        callers[0].start()
        assert begun.wait(30)
        callers[1].start()
        callers[1].join(0.2)
        assert looked == [first]
    finally:
        go_on.set()
    for caller in callers:
        caller.join(30)
    assert held() == [second], "the first was there to be let go"


def test_a_prompt_of_its_own_does_not_keep_a_second_copy_of_the_weights(
    published: list[str], tmp_path: Path
) -> None:
    from explorer.backbones._prompt_files import prompt_file

    name = published[0]
    prompts = tmp_path / name / "prompts"
    (empty,) = prompts.iterdir()
    (prompts / prompt_file("umt5-xxl", "a chair")).write_bytes(empty.read_bytes())
    for prompt in ("", "a chair"):
        registry.load(name, target=Target(prompt=prompt))
    assert [target.prompt for _, target in loaded.models] == ["a chair"]


def test_a_model_at_work_stays_and_the_other_is_refused(published: list[str]) -> None:
    first, second = published
    with (
        registry.load(first, device="cpu").hold(lambda: False),
        pytest.raises(BackboneError, match=f"{second} needs about .* 0 MB are free"),
    ):
        registry.load(second, device="cpu")
    assert held() == [first]


def test_the_order_of_cards_does_not_follow_the_order_of_imports() -> None:
    code = (
        "import explorer.backbones.wan, explorer.backbones.toy_wan, explorer.backbones.svd; "
        "from explorer.backbones import registry; print([c.id for c in registry.cards()])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    ids = [card.id for card in registry.cards()]
    assert found.stdout.strip() == str(ids)
    assert ids[0] == "toy-wan"
