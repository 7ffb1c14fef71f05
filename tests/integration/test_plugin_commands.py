"""What commands, the page and results say of plugins."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from printed_commands import REPOSITORY, blocks

from app import cell
from explorer import plugins, references
from explorer.backbones import registry
from explorer.cli import main

README = REPOSITORY / "README.md"
(GRADIENTS,) = (block.text for block in blocks(README) if block.language == "python")

OWN = (
    GRADIENTS
    + """
from explorer import references
from explorer.references import exact

@references.register("mine", "Exact, through the store")
def mine(clip, context):
    def made():
        with open(__file__ + ".made", "a") as file:
            file.write("x")
        return exact.reconstruct(clip, context)
    return context.cached(clip, {"mine": 1}, made)
"""
)


@pytest.fixture
def files(
    no_plugins_yet: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Path, Path]:
    """A plugin that works, and one that does not."""
    good, bad = tmp_path / "gradients.py", tmp_path / "broken.py"
    good.write_text(OWN)
    bad.write_text("import no_such_library\n")
    monkeypatch.setenv("EMERGE3D_PLUGINS", f"{bad}{os.pathsep}{good}")
    return good, bad


def test_the_list_goes_on_and_says_on_stderr_what_failed(tmp_path: Path) -> None:
    # A process of its own: pytest takes the log away.
    bad = tmp_path / "broken.py"
    bad.write_text("import no_such_library\n")
    done = subprocess.run(
        [sys.executable, "-m", "explorer.cli", "references"],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "EMERGE3D_PLUGINS": str(bad)},
    )
    assert done.returncode == 0
    assert "colmap" in done.stdout
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"plugin 'broken.py' of EMERGE3D_PLUGINS ({bad}) is left out: ")


def test_the_list_and_the_card_of_backbones_have_a_plugins(
    files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["backbones"]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert rows[1].startswith("toy-wan ")
    assert rows[-1].startswith("gradients ")
    assert main(["backbones", "gradients"]) == 0
    assert "come with the plugin gradients.py" in " ".join(capsys.readouterr().out.split())
    assert main(["backbones", "gradients", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["plugin"]["file"] == "gradients.py"
    assert main(["backbones", "gradient"]) == 2
    assert "No module named 'no_such_library' (broken.py, line 1)" in capsys.readouterr().err


def test_doctor_lists_plugins_and_advises_on_what_failed(
    files: tuple[Path, Path], tiny: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = files
    assert main(["doctor", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    broken, gradients = found["plugins"]
    assert gradients["registered"] == {"backbone": ["gradients"], "reference": ["mine"]}
    assert gradients["sha256"] == hashlib.sha256(good.read_bytes()).hexdigest()
    assert (gradients["file"], gradients["error"]) == (str(good), None)
    assert broken["registered"] == {}
    assert broken["error"] in found["advice"]
    assert main(["doctor"]) == 1
    lines = capsys.readouterr().out.splitlines()
    (listed,) = (line for line in lines if "backbone gradients" in line)
    assert listed.startswith("plugin ")
    assert any(str(bad) in line and "left out" in line for line in lines)


def test_the_page_has_a_line_on_plugins(files: tuple[Path, Path]) -> None:
    line = cell.found_plugins()
    assert "From plugins: gradients, mine (gradients.py)." in line
    assert "no_such_library" in line


@pytest.mark.usefixtures("no_plugins_yet")
def test_the_page_has_no_such_line_without_plugins() -> None:
    assert cell.found_plugins() == ""


def look(tiny: Any, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    words = ["look", str(tiny.request.path), "--backbone", "gradients", "--count", "5", "--json"]
    assert main([*words, "--device", "cpu", "--reference", "mine"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def edit(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another text of the plugin, as the next process finds it."""
    good.write_text(OWN + "# edited\n")
    monkeypatch.setattr(plugins, "_found", [])
    monkeypatch.setattr(plugins, "_begun", False)
    del registry._entries["gradients"]
    del references._references["mine"]


def test_a_sweep_begun_with_another_text_of_a_plugin_is_not_gone_on_with(
    files: tuple[Path, Path],
    tiny: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["sweep", str(tiny.request.path), "--backbone", "gradients", "--layers", "0"]
    words += ["--sigmas", "0.3", "--count", "5", "--device", "cpu", "--no-proxies"]
    words += ["--out", str(tmp_path / "a.jsonl")]
    assert (main(words), main(words)) == (0, 0)
    edit(files[0], monkeypatch)
    assert main(words) == 2
    assert "was begun with plugins gradients " in capsys.readouterr().err


def test_a_look_names_the_plugin_and_finds_only_what_the_same_text_made(
    files: tuple[Path, Path],
    tiny: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    good, _ = files
    found = look(tiny, capsys)
    named = found["provenance"]["backbone"]["plugin"]
    assert named == {
        "name": "gradients.py",
        "file": "gradients.py",
        "distribution": None,
        "version": None,
        "sha256": hashlib.sha256(good.read_bytes()).hexdigest(),
    }
    assert found["provenance"]["reference"]["plugin"] == named
    assert look(tiny, capsys)["cached"]["features"] is True
    made = Path(f"{good}.made")
    assert made.read_text() == "x"

    edit(good, monkeypatch)
    edited = look(tiny, capsys)
    assert edited["cached"]["features"] is False
    assert made.read_text() == "xx"
    assert edited["provenance"]["backbone"]["plugin"]["sha256"] != named["sha256"]
    assert edited["correspondence_error_px"] == found["correspondence_error_px"]


def test_a_look_of_a_shipped_backbone_names_none(
    tiny: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["look", str(tiny.request.path), "--backbone", "tiny", "--json"]) == 0
    assert "plugin" not in json.loads(capsys.readouterr().out)["provenance"]["backbone"]
