"""Modules from outside: how they are found, and what one that fails leaves behind."""

from __future__ import annotations

import importlib
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from explorer import plugins, references
from explorer.backbones import registry
from explorer.backbones.base import Hashes
from explorer.data import dataset
from explorer.errors import BackboneError, DatasetError, PluginError, ReferenceError3D
from explorer.look.cache import features_key, latents_key

pytestmark = pytest.mark.usefixtures("no_plugins_yet")

CARD = """
import dataclasses
from explorer.backbones import registry
CARD = dataclasses.replace(registry.card("rgb"), id={id!r}, source=None)
@registry.register(CARD)
def load(card, target):
    raise NotImplementedError
"""
REFERENCE = """
from explorer.references import register
@register({id!r}, "Mine")
def reconstruct(clip, context):
    return None
"""
READER = """
from explorer.data.dataset import Dataset, DatasetCard, register
@register(DatasetCard({id!r}, "Mine", "none", "", "everything", "none"))
class Mine(Dataset):
    finds = classmethod(lambda cls, root: True)
    listing = open = None
"""
KINDS = {"backbone": CARD, "reference": REFERENCE, "dataset": READER}


def write(path: Path, *parts: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(parts))
    return path


def install(folder: Path, module: str, *parts: str, version: str = "1.2") -> Path:
    """A package `lab-models` with one module, as an installer leaves it."""
    path = write(folder / f"{module}.py", *parts)
    information = folder / f"lab_models-{version}.dist-info"
    write(
        information / "METADATA", f"Metadata-Version: 2.1\nName: lab-models\nVersion: {version}\n"
    )
    write(information / "entry_points.txt", f"[emerge3d.plugins]\nlab = {module}\n")
    return path


def ids() -> dict[str, list[str]]:
    return {
        "backbone": [card.id for card in registry.cards()],
        "reference": list(references.names()),
        "dataset": [card.id for card in dataset.cards()],
    }


def test_without_any_nothing_is_found() -> None:
    assert plugins.load() == ()
    assert plugins.of("backbone", "rgb") is None
    assert plugins.missing() == ""


def test_an_installed_package_gives_one_of_each_behind_the_shipped_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = install(tmp_path, "lab_all", *(text.format(id="a-mine") for text in KINDS.values()))
    monkeypatch.syspath_prepend(tmp_path)
    for kind, found in ids().items():
        assert found[-1] == "a-mine", kind
    (plugin,) = plugins.load()
    assert (plugin.name, plugin.distribution, plugin.version) == ("lab", "lab-models", "1.2")
    assert plugin.file == path
    assert plugin.registered == dict.fromkeys(KINDS, ("a-mine",))
    assert plugin.error is None


@pytest.mark.parametrize("kind", KINDS)
def test_each_registry_finds_a_file_that_the_variable_names(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "my model.py", KINDS[kind].format(id="mine"))
    monkeypatch.setenv("EMERGE3D_PLUGINS", str(path))
    assert ids()[kind][-1] == "mine"
    (plugin,) = plugins.load()
    assert plugin.file == path
    assert plugin.distribution is None
    assert not list(tmp_path.glob("__pycache__"))


def test_the_variable_takes_files_and_modules_in_their_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = write(tmp_path / "one" / "model.py", CARD.format(id="one"))
    other = write(tmp_path / "other" / "model.py", CARD.format(id="other"))
    write(tmp_path / "lab_named.py", CARD.format(id="named"))
    monkeypatch.syspath_prepend(tmp_path)
    listed = [str(one), "", "lab_named", str(other), str(one)]
    monkeypatch.setenv("EMERGE3D_PLUGINS", os.pathsep.join(listed))
    assert {"one", "named", "other"} <= set(ids()["backbone"])
    assert [each.registered["backbone"] for each in plugins.load()] == [
        ("one",),
        ("named",),
        ("other",),
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_an_id_that_exists_costs_the_whole_plugin_and_nothing_else(
    kind: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    taken = {"backbone": "rgb", "reference": "exact", "dataset": "tum"}[kind]
    good = (text.format(id="half") for text in KINDS.values())
    path = write(tmp_path / "clash.py", *good, KINDS[kind].format(id=taken))
    fine = write(tmp_path / "fine.py", CARD.format(id="fine"))
    monkeypatch.setenv("EMERGE3D_PLUGINS", os.pathsep.join(map(str, (path, fine))))
    before = ids()
    assert not any("half" in found for found in before.values())
    assert before["backbone"][-1] == "fine"
    assert not plugins.is_foreign(registry._entries["rgb"].loader)
    (plugin, _) = plugins.load()
    assert isinstance(plugin.error, PluginError)
    for part in (str(path), taken, "(clash.py, line ", "is left out"):
        assert part in str(plugin.error)
    warned = [each for each in caplog.records if each.levelno == logging.WARNING]
    assert [each.getMessage() for each in warned] == [str(plugin.error)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import no_such_library", "No module named 'no_such_library' (bad.py, line 1)"),
        ("\n1 / 0", "ZeroDivisionError: division by zero (bad.py, line 2)"),
        ("def f(:", "SyntaxError"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("x = 1", "registers nothing"),
        (None, "there is no such file"),
    ],
)
def test_what_cannot_be_imported_is_named_where_its_id_is_asked_for(
    text: str | None, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "bad.py"
    if text is not None:
        write(path, text)
    monkeypatch.setenv("EMERGE3D_PLUGINS", str(path))
    (plugin,) = plugins.load()
    assert said in str(plugin.error)
    assert str(path) in str(plugin.error)
    with pytest.raises(BackboneError) as backbone:
        registry.card("mine")
    with pytest.raises(ReferenceError3D) as reference:
        references.check("mine")
    with pytest.raises(DatasetError) as named:
        dataset.open_dataset("mine", tmp_path)
    with pytest.raises(DatasetError) as found:
        dataset.open_dataset(None, tmp_path)
    for error in (backbone, reference, named, found):
        assert str(error.value).endswith(f"; {plugin.error}")


def test_a_module_in_the_current_folder_is_not_imported_but_hinted_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "nearby.py", CARD.format(id="nearby"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("")  # as in an interactive session
    monkeypatch.setenv("EMERGE3D_PLUGINS", "nearby")
    (plugin,) = plugins.load()
    assert "name the file, nearby.py" in str(plugin.error)


@pytest.mark.parametrize("entry", ["", "its path"])
def test_neither_metadata_nor_modules_of_the_current_folder_count(
    entry: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, installed = tmp_path / "here", tmp_path / "installed"
    install(here, "lab_one", CARD.format(id="chance"), version="2")
    install(installed, "lab_one", CARD.format(id="mine"), version="1")
    monkeypatch.syspath_prepend(installed)
    # `python -m pytest` is a run of a module, which has the folder's path in front.
    monkeypatch.syspath_prepend(entry and here)
    monkeypatch.chdir(here)
    path = list(sys.path)
    (plugin,) = plugins.load()
    assert (plugin.version, plugin.registered["backbone"]) == ("1", ("mine",))
    assert plugin.file == installed / "lab_one.py"
    assert sys.path == path


def test_a_package_that_is_installed_from_the_current_folder_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, "lab_edited", CARD.format(id="edited"))
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path, str(tmp_path)])
    monkeypatch.chdir(tmp_path)
    (plugin,) = plugins.load()
    assert plugin.registered["backbone"] == ("edited",)


def test_a_package_with_damaged_metadata_hides_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(
        tmp_path / "a" / "broken-1.dist-info" / "entry_points.txt", "[emerge3d.plugins]\nbroken\n"
    )
    install(tmp_path / "b", "lab_beside", CARD.format(id="beside"))
    monkeypatch.syspath_prepend(tmp_path / "b")
    monkeypatch.syspath_prepend(tmp_path / "a")
    assert [each.distribution for each in plugins.load()] == ["lab-models"]


def test_a_plugin_that_was_imported_before_is_still_known_for_what_it_gave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # No question to a registry while it is imported: what is shipped may come later.
    path = write(tmp_path / "lab_early.py", REFERENCE.format(id="early"))
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module("lab_early")
    monkeypatch.setenv("EMERGE3D_PLUGINS", "lab_early")
    found = plugins.of("reference", "early")
    assert found is not None
    assert found.file == path
    assert found.registered["backbone"] == ()


def test_all_registries_import_a_plugin_once_and_its_prints_stay_off_the_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "noisy.py", "print('imported')\n", CARD.format(id="noisy"))
    monkeypatch.setenv("EMERGE3D_PLUGINS", str(path))
    ids()
    ids()
    found = capsys.readouterr()
    assert (found.out, found.err.count("imported")) == ("", 1)


def test_nothing_is_imported_before_a_registry_is_asked_and_torch_not_even_then(
    tmp_path: Path,
) -> None:
    path = write(tmp_path / "slow.py", "print('imported')\n", CARD.format(id="slow"))
    code = (
        "import sys, explorer, explorer.cli\n"
        "from explorer.backbones import registry\n"
        "try: explorer.cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "print('before', file=sys.stderr)\n"
        "print(registry.cards()[-1].id, 'torch' in sys.modules, file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env={**os.environ, "EMERGE3D_PLUGINS": f"{path}{os.pathsep}gone.py"},
    )
    before, imported, warned, last = done.stderr.splitlines()
    assert (before, imported, last) == ("before", "imported", "slow False")
    assert warned.startswith("plugin 'gone.py' of EMERGE3D_PLUGINS")


def keys_of(name: str) -> list[dict[str, object]]:
    card, hashes = registry.card(name), Hashes("w", "e")
    features = features_key(
        {}, card, hashes, layer=0, sigma=0.0, seed=0, device="cpu", dtype="float32"
    )
    return [features, latents_key({}, card, hashes, "cpu")]


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """As another process, after an edit."""
    monkeypatch.setattr(plugins, "_found", [])
    monkeypatch.setattr(plugins, "_begun", False)
    registry._entries.pop("mine")
    for name in [name for name in sys.modules if name.startswith("lab_keys")]:
        del sys.modules[name]
    importlib.invalidate_caches()


def test_stored_features_belong_to_the_text_of_a_file_and_not_to_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for place, text in (("a", "#1"), ("b", "#1"), ("a", "#2")):
        path = write(tmp_path / place / "mine.py", CARD.format(id="mine"), text)
        monkeypatch.setenv("EMERGE3D_PLUGINS", str(path))
        found.append(keys_of("mine"))
        forget(monkeypatch)
    assert found[0] == found[1]
    assert all(one != other for one, other in zip(found[0], found[2], strict=True))
    assert "plugin" not in keys_of("rgb")[0]


def test_stored_features_belong_to_a_packages_version_and_to_all_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for number, (version, text) in enumerate((("1", "A"), ("2", "A"), ("2", "B"))):
        folder = tmp_path / str(number)
        write(folder / "lab_keys" / "__init__.py", "")
        write(folder / "lab_keys" / "deep" / "net.py", f"X = {text!r}")
        install(folder, "lab_keys/plugin", CARD.format(id="mine"), version=version)
        points = folder / f"lab_models-{version}.dist-info" / "entry_points.txt"
        points.write_text("[emerge3d.plugins]\nlab = lab_keys.plugin\n")
        with monkeypatch.context() as patch:
            patch.syspath_prepend(folder)
            found.append(keys_of("mine"))
        forget(monkeypatch)
    assert found[0] != found[1] != found[2]
