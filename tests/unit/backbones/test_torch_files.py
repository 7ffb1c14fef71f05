from __future__ import annotations

import argparse
import gc
import os
import pickle
import weakref
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from explorer.backbones import _torch_files
from explorer.backbones._torch_files import load_strictly, read_state
from explorer.errors import BackboneError

STATE = {"weight": torch.arange(6.0).view(2, 3), "bias": torch.ones(2)}


class RunsAProgram:
    """Touches a file as soon as it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.trace),)


def assert_same(state: dict[str, torch.Tensor]) -> None:
    assert state.keys() == STATE.keys()
    assert all(torch.equal(state[name], value) for name, value in STATE.items())


@pytest.mark.parametrize("name", ["a.pth", "a.pt", "a.pth.tar", "a.bin"])
@pytest.mark.parametrize("zipped", [True, False])
def test_files_of_both_torch_formats_are_read(tmp_path: Path, name: str, zipped: bool) -> None:
    torch.save(STATE, tmp_path / name, _use_new_zipfile_serialization=zipped)
    assert_same(read_state(tmp_path / name))


def test_safetensors_are_read(tmp_path: Path) -> None:
    state = {f"module.{name}": value for name, value in STATE.items()}
    save_file(state, tmp_path / "a.safetensors")
    assert_same(read_state(tmp_path / "a.safetensors", keys=["model"], prefixes=["module."]))


def test_tensors_lie_under_the_first_key_present_and_lose_their_prefixes(tmp_path: Path) -> None:
    inner = {f"module.backbone.{name}": value for name, value in STATE.items()}
    file = {"epoch": 3, "opt": {"lr": 0.1}, "target": {"x": torch.zeros(1)}, "encoder": inner}
    torch.save(file, tmp_path / "a.pth.tar")
    prefixes = ["module.", "backbone."]
    path = tmp_path / "a.pth.tar"
    assert_same(read_state(path, keys=["encoder", "target"], prefixes=prefixes))
    assert read_state(path, keys=["model", "target"]).keys() == {"x"}


def test_a_file_of_nothing_but_tensors_needs_no_key(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "a.pth")
    assert_same(read_state(tmp_path / "a.pth", keys=["encoder"]))


def test_an_absent_key_is_named_with_what_the_file_has(tmp_path: Path) -> None:
    torch.save({"model": STATE, "epoch": 3}, tmp_path / "a.pth")
    with pytest.raises(BackboneError, match=r"under 'encoder'.*has 'model', 'epoch'"):
        read_state(tmp_path / "a.pth", keys=["encoder"])
    torch.save([STATE], tmp_path / "a.pth")
    with pytest.raises(BackboneError, match=r"under the top level.*has a list"):
        read_state(tmp_path / "a.pth")


def test_names_that_become_one_without_prefixes_are_refused(tmp_path: Path) -> None:
    torch.save({"module.a": torch.zeros(1), "a": torch.ones(1)}, tmp_path / "a.pth")
    with pytest.raises(BackboneError, match=r"collide without 'module\.'"):
        read_state(tmp_path / "a.pth", prefixes=["module."])


@pytest.mark.parametrize("kind", ["zip", "legacy", "bare"])
def test_a_malicious_pickle_is_refused_and_never_run(tmp_path: Path, kind: str) -> None:
    trace, path = tmp_path / "trace", tmp_path / "evil.pth"
    content = {**STATE, "x": RunsAProgram(trace)}
    if kind == "bare":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=kind == "zip")
    with pytest.raises(BackboneError, match=r"refused.*can run any program") as error:
        read_state(path)
    assert not trace.exists()
    assert "weights_only" not in str(error.value)
    # the file is what it claims to be: read without protection, it does run the program
    if kind == "bare":
        pickle.loads(path.read_bytes())  # noqa: S301
    else:
        torch.load(path, weights_only=False)
    assert trace.exists()


def test_a_harmless_object_is_refused_by_its_name(tmp_path: Path) -> None:
    torch.save({"model": STATE, "args": argparse.Namespace(lr=1)}, tmp_path / "a.pth")
    with pytest.raises(BackboneError, match=r"besides tensors \(argparse\.Namespace\)"):
        read_state(tmp_path / "a.pth", keys=["model"])


@pytest.mark.parametrize("name", ["zip.pth", "legacy.pth", "a.safetensors"])
def test_a_truncated_file_is_refused_wherever_it_ends(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name == "a.safetensors":
        save_file(STATE, path)
    else:
        torch.save(STATE, path, _use_new_zipfile_serialization=name == "zip.pth")
    content = path.read_bytes()
    for length in (0, 1, 10, 100, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(BackboneError, match=r"damaged or not.*download it again") as error:
            read_state(path)
        assert "weights_only" not in str(error.value)


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "page.pth").write_text("<html>not found</html>")
    with zipfile.ZipFile(tmp_path / "archive.pth", "w") as archive:
        archive.writestr("a.txt", "text")
    for name in ("page.pth", "archive.pth"):
        with pytest.raises(BackboneError, match="damaged or not a file of weights"):
            read_state(tmp_path / name)
    with pytest.raises(BackboneError, match=r"absent\.pth cannot be read"):
        read_state(tmp_path / "absent.pth")
    with pytest.raises(BackboneError, match="cannot be read"):
        read_state(tmp_path)


def test_a_torch_with_a_hole_in_its_protection_reads_no_pickles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(STATE, tmp_path / "a.pth")
    save_file(STATE, tmp_path / "a.safetensors")
    monkeypatch.setattr(_torch_files.torch, "__version__", "2.5.1+cpu")
    with pytest.raises(BackboneError, match=r"update torch to 2\.6"):
        read_state(tmp_path / "a.pth")
    assert_same(read_state(tmp_path / "a.safetensors"))


def test_torch_is_asked_for_tensors_only_and_maps_what_can_be_mapped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, object]] = []
    load = torch.load

    def spy(path: Path, **options: object) -> object:
        asked.append(options)
        return load(path, **options)

    monkeypatch.setattr(_torch_files.torch, "load", spy)
    for zipped in (True, False):
        torch.save(STATE, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
        read_state(tmp_path / "a.pth")
    common = {"map_location": "cpu", "weights_only": True}
    assert asked == [{**common, "mmap": True}, {**common, "mmap": False}]


def test_a_lack_of_memory_is_not_called_a_damaged_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried ...")

    torch.save(STATE, tmp_path / "a.pth")
    monkeypatch.setattr(_torch_files.torch, "load", full)
    with pytest.raises(BackboneError, match="does not fit in memory"):
        read_state(tmp_path / "a.pth")


def test_a_failed_read_leaves_no_tensors_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[weakref.ref[torch.Tensor]] = []

    def broken(*args: object, **kwargs: object) -> None:
        tensor = torch.zeros(4)
        made.append(weakref.ref(tensor))
        raise RuntimeError("the end of the file is missing")

    torch.save(STATE, tmp_path / "a.pth")
    monkeypatch.setattr(_torch_files.torch, "load", broken)
    with pytest.raises(BackboneError, match="the end of the file is missing") as error:
        read_state(tmp_path / "a.pth")
    gc.collect()
    assert made[0]() is None
    assert error.value.__context__ is None


def test_a_fitting_state_is_copied_or_taken_over() -> None:
    copied = nn.Linear(3, 2)
    load_strictly(copied, {k: v.half() for k, v in STATE.items()}, source=Path("a.pth"))
    assert copied.weight.dtype == torch.float32
    assert_same(copied.state_dict())
    with torch.device("meta"):
        taken = nn.Linear(3, 2)
    load_strictly(taken, STATE, source=Path("a.pth"))
    assert taken.weight.data_ptr() == STATE["weight"].data_ptr()


def test_wrong_names_are_counted_and_the_first_five_of_each_are_given() -> None:
    model = nn.Sequential(*(nn.Linear(1, 1) for _ in range(4)))
    before = [value.clone() for value in model.state_dict().values()]
    state = {f"other.{i}": torch.zeros(1) for i in range(3)}
    state["0.weight"] = torch.zeros(2, 2)
    with pytest.raises(BackboneError) as error:
        load_strictly(model, state, source=Path("a.pth"))
    text = str(error.value)
    assert "a.pth does not fit Sequential" in text
    assert "7 missing: 0.bias, 1.weight, 1.bias, 2.weight, 2.bias, ...;" in text
    assert "3 unexpected: other.0, other.1, other.2;" in text
    assert "1 of another shape: 0.weight (2, 2) instead of (1, 1)." in text
    after = model.state_dict().values()
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
