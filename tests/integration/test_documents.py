"""What README and docs print: every command is one that the project takes, every output its own."""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import pytest
from printed_commands import (
    DOCUMENTS,
    REPOSITORY,
    blocks,
    command_lines,
    inline,
    module_of,
    names,
    words,
)

from explorer.cli import main, parse

README = REPOSITORY / "README.md"
OWN = sorted(
    {
        line
        for document in DOCUMENTS
        for line in command_lines(document)
        if words(line)[:1] == ["emerge3d"]
    }
)
SCRIPTS = sorted(
    {line for document in DOCUMENTS for line in command_lines(document) if module_of(line)}
)
LOOKS = [
    block.text
    for block in blocks(README)
    if block.language == "" and re.match(r"\$ (EMERGE3D_PLUGINS=\S+ )?emerge3d look", block.text)
]
UNLIKE = ("seconds", "peak memory")  # differ from run to run


class Parsed(Exception):
    """The parser is done; nothing after it is wanted."""


def test_the_documents_print_commands_of_every_kind() -> None:
    assert {words(line)[1] for line in OWN} == {
        *("app", "look", "sweep", "prepare", "train", "view", "backbones", "references", "eval"),
        "export",
    }
    assert len(SCRIPTS) >= 6
    assert len(LOOKS) == 2


@pytest.mark.parametrize("name", sorted({name for each in DOCUMENTS for name in names(each)}))
def test_every_named_subcommand_exists(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        parse([name, "--help"])
    assert end.value.code == 0, capsys.readouterr().err


@pytest.mark.parametrize("line", OWN)
def test_every_printed_emerge3d_command_is_one_that_the_parser_takes(
    line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = words(line)[1:]
    try:
        parse(given)
    except SystemExit as end:
        pytest.fail(f"{line}: {capsys.readouterr()}, status {end.code}")


def test_the_options_beside_each_subcommand_are_its_own(
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = re.findall(r"^\| `emerge3d (\w+)[^`]*` \|(.*)\|$", README.read_text(), re.MULTILINE)
    assert len(rows) == 11
    for name, text in rows:
        with pytest.raises(SystemExit):
            parse([name, "--help"])
        known = set(re.findall(r"--[\w-]+", capsys.readouterr().out))
        printed = set(re.findall(r"--[\w-]+", " ".join(inline(text)).replace("/", " ")))
        assert printed <= known, name


def options_of(module: str, given: list[str] | None, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The options of a script's own parser, once it has taken the given words."""
    known: set[str] = set()
    original = argparse.ArgumentParser.parse_args

    def stop(self: argparse.ArgumentParser, *_: Any) -> None:
        known.update(self._option_string_actions)
        self.allow_abbrev = False  # documents write options in full
        if given is not None:
            original(self, given)
        raise Parsed

    with monkeypatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", stop)
        with pytest.raises(Parsed):
            _import(module).main()
    return known


def _import(module: str) -> Any:
    if not module.startswith("benchmarks."):
        spec = importlib.util.find_spec(module)
        assert spec is not None
        package = spec.submodule_search_locations is not None
        return importlib.import_module(f"{module}.__main__" if package else module)
    path = REPOSITORY / f"{module.replace('.', '/')}.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


@pytest.mark.parametrize("line", SCRIPTS)
def test_every_printed_script_takes_its_printed_options(
    line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = module_of(line)
    assert found is not None
    try:
        options_of(*found, monkeypatch)
    except SystemExit:
        pytest.fail(f"{line}: {capsys.readouterr().err}")


def test_the_options_in_the_laboratorys_table_are_those_of_its_scripts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = (REPOSITORY / "docs" / "toy-laboratory.md").read_text()
    table = text[text.index("| script | options") :].split("\n\n")[0]
    rows = re.findall(r"^\| (all|`\w+`) \| (.*) \|$", table, re.MULTILINE)
    training = ["train_vae", "train_transformer", "train_probes", "train_vggt", "train_jepa"]
    assert [name.strip("`") for name, _ in rows] == ["all", *training, "sample", "ship", "evaluate"]
    for name, cell in rows:
        for script in training if name == "all" else [name.strip("`")]:
            module = f"explorer.{script}" if script == "evaluate" else f"explorer.toy.{script}"
            printed = {word for code in inline(cell) for word in code.split() if word[:2] == "--"}
            assert printed, script
            assert printed <= options_of(module, None, monkeypatch), script


def test_every_printed_make_target_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
    printed = {
        words(line)[1]
        for document in DOCUMENTS
        for line in command_lines(document)
        if words(line)[:1] == ["make"] and len(words(line)) > 1
    }
    assert {"app", "test"} <= printed <= targets


def test_files_that_the_documents_name_exist() -> None:
    named = {
        name
        for document in DOCUMENTS
        for name in inline(document.read_text())
        if re.fullmatch(r"(explorer|app|assets|tests|benchmarks|docs)/[\w./*-]+", name)
    }
    assert len(named) > 5
    for name in named:
        assert list(REPOSITORY.glob(name.rstrip("/"))), name


def test_the_list_of_backbones_is_what_the_command_prints(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("EMERGE3D_WEIGHTS", raising=False)
    monkeypatch.setattr("explorer.backbones._weights._cached", lambda card: None)
    page = REPOSITORY / "docs" / "backbones.md"
    (printed,) = (block.text for block in blocks(page) if "$ emerge3d backbones\n" in block.text)
    assert main(["backbones"]) == 0
    assert capsys.readouterr().out == printed.split("\n", 1)[1]


def test_json_keys_in_the_readme_are_keys_of_a_looks_summary(
    tiny: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    paragraph = next(
        part for part in README.read_text().split("\n\n") if part.startswith("With `--json` ")
    )
    keys = [name for name in inline(paragraph) if not name.startswith("--")]
    assert {"point_error", "pck", "seconds.total", "provenance"} <= set(keys)
    assert main(["look", str(tiny.request.path), "--backbone", "tiny", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    for key in keys:
        value = summary
        for part in key.split("."):
            assert part in value, key
            value = value[part]


def lines_of(table: str) -> dict[str, str]:
    pairs = (line.split("  ", 1) for line in table.strip().splitlines() if line != "...")
    return {name: value.strip() for name, value in pairs}


def printed_by(
    text: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[dict[str, str], dict[str, str]]:
    """(what a block of the README shows, what its command prints here)."""
    command, shown = text.split("\n", 1)
    (folder / "assets").symlink_to(REPOSITORY / "assets")
    monkeypatch.chdir(folder)
    cache = ["--cache", str(folder / "store"), "--device", "cpu"]
    assert main([*words(command.removeprefix("$ "))[1:], *cache]) == 0
    return lines_of(shown), lines_of(capsys.readouterr().out)


def assert_alike(shown: dict[str, str], printed: dict[str, str]) -> None:
    for name, value in shown.items():
        if name in UNLIKE:
            continue
        numbers = re.findall(r"\d+\.\d{4}", value)
        found = re.findall(r"\d+\.\d{4}", printed[name])
        # Another processor rounds otherwise, and now and then another token matches best.
        assert [float(n) for n in found] == pytest.approx([float(n) for n in numbers], rel=0.03)
        assert re.sub(r"\d+\.\d{4}", "#", printed[name]) == re.sub(r"\d+\.\d{4}", "#", value)


def test_the_readmes_look_prints_what_the_readme_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown, printed = printed_by(LOOKS[0], tmp_path, monkeypatch, capsys)
    assert list(shown) == list(printed)
    assert_alike(shown, printed)
    assert (tmp_path / "orbit.rrd").stat().st_size > 10_000


@pytest.mark.usefixtures("no_plugins_yet")
def test_the_readmes_own_backbone_runs_and_prints_what_the_readme_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (code,) = (block.text for block in blocks(README) if block.language == "python")
    (tmp_path / "gradients.py").write_text(code)
    (setting,) = re.findall(r"^\$ EMERGE3D_PLUGINS=(\S+)", LOOKS[1])
    monkeypatch.setenv("EMERGE3D_PLUGINS", setting)
    shown, printed = printed_by(LOOKS[1], tmp_path, monkeypatch, capsys)
    assert set(shown) <= set(printed)
    assert_alike(shown, printed)
