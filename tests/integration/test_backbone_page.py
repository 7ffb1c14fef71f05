"""What `emerge3d backbones ID` prints for people."""

from __future__ import annotations

import dataclasses
import re
import shlex

import pytest

from explorer.backbones import _memory, registry
from explorer.backbones._options import Target
from explorer.backbones._weights import size_text
from explorer.cli import main, parse

IDS = [card.id for card in registry.cards()]


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without published weights, with 30 GB free."""
    monkeypatch.delenv("EMERGE3D_WEIGHTS", raising=False)
    monkeypatch.setattr("explorer.backbones._weights._cached", lambda source: None)
    monkeypatch.setattr(_memory, "free", lambda device: 30 * 10**9)
    monkeypatch.setattr(registry, "resolve_device", lambda device: "cuda")


def printed(name: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["backbones", name]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("name", IDS)
def test_every_card_says_what_it_is_what_it_needs_and_how_to_run_it(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    card = registry.card(name)
    text = printed(name, capsys)
    flat = " ".join(text.split())
    rows, columns = card.token_grid
    height, width = card.input_size
    for part in (
        f"{name}: {card.title}",
        card.note,
        card.licence,
        card.official,
        f"{height} x {width} pixels",
        f"{rows} x {columns} of {card.width} channels",
        f"{card.layers}, 0 to {card.layers - 1}",
        f"layer {card.default_cell[0]}",
        ", ".join(card.taps),
    ):
        assert " ".join(part.split()) in flat, part
    assert max(map(len, text.splitlines())) <= 160
    fields = {field.name for field in dataclasses.fields(card) if "_" in field.name}
    assert not fields & set(flat.split()), "names of fields are not for people"


@pytest.mark.parametrize("name", IDS)
def test_the_commands_of_a_card_are_ones_that_the_parser_takes(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = re.findall(r"(?:^|\s)(emerge3d .*)$", printed(name, capsys), re.MULTILINE)
    assert any(line.startswith(f"emerge3d look VIDEO --backbone {name}") for line in lines)
    for line in lines:
        parse(shlex.split(line)[1:])


def test_options_are_listed_with_their_need_and_those_that_fit_are_marked(
    capsys: pytest.CaptureFixture[str],
) -> None:
    card = registry.card("wan2.1-14b")
    lines = printed("wan2.1-14b", capsys).splitlines()
    found = {line.split("  --", 1)[-1]: line for line in lines if "  --dtype" in line}
    need = size_text(_memory.needed(card, Target(device="cuda", dtype="bfloat16")))
    assert found["dtype bfloat16"].split()[:2] == need.split()
    assert "fits" not in found["dtype bfloat16"]
    assert found["dtype bfloat16 --offload  fits here"]
    assert any("30.0 GB  free here (cuda)" in line for line in lines)


def test_gated_and_single_files_say_how_to_get_them(capsys: pytest.CaptureFixture[str]) -> None:
    gated = printed("dinov3-l", capsys)
    for part in ("gated: its licence must be accepted", "hf auth login", "backbones dinov3-l --"):
        assert part in gated
    alone = printed("vjepa1-h", capsys)
    assert "--download" not in alone
    assert re.search(r"curl -L --create-dirs -o \$EMERGE3D_WEIGHTS/vjepa1-h/\S+ https://", alone)


def test_a_noise_table_names_sigma_timestep_and_official_index(
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines = printed("wan2.1-1.3b", capsys).splitlines()
    start = next(n for n, line in enumerate(lines) if line.split()[:2] == ["sigma", "timestep"])
    rows = [line.split() for line in lines[start + 1 : start + 12]]
    assert rows[5] == ["0.500", "499", "751"]
    assert not any("timestep  " in line for line in printed("dinov2-l", capsys).splitlines())
