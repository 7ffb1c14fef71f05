"""The shipped evaluation: what follows from it, and that the documents print its figures."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from printed_commands import DOCUMENTS, REPOSITORY

from explorer.assets import assets_root
from explorer.held_out import default_path, held_out
from explorer.metric_names import LOWER_IS_BETTER, METRIC_NAMES
from explorer.metrics import mean_interval, paired_interval
from explorer.probe.checkpoint import list_probes
from explorer.probe.ridge_files import read_ridge_card

RESULT: dict[str, Any] = json.loads(default_path().read_text())
CELLS = {cell["id"]: cell for cell in RESULT["cells"]}
BASELINES = {each["id"]: each for each in RESULT["baselines"]}
CHOSEN: dict[str, str] = RESULT["chosen"]["cells"]
MEAN = "training mean per pixel"
ROWS = {**CELLS, **BASELINES, "nothing moves (px)": BASELINES["nothing moves"]}
KEYS = {label: key for key, label in METRIC_NAMES.items()}
PIXELS = "correspondence_error_px"


def values(row: str, metric: str = "point_error") -> list[float]:
    found: list[float] = ROWS[row]["per_clip"][metric]
    return found


def test_the_evaluation_is_of_64_held_out_clips_and_of_every_probe_that_is_shipped() -> None:
    assert (RESULT["split"], RESULT["clips"]) == ("test", 64)
    assert len(set(RESULT["seeds"])) == 64
    assert len(held_out() or {}) == len(CELLS) == len(list_probes())


def test_the_first_grid_is_there_and_its_probes_had_the_same_steps_on_the_same_clips() -> None:
    sigmas = (0.1, 0.3, 0.5)
    grid = {("toy-wan", layer, sigma) for layer in (1, 3, 5, 7) for sigma in sigmas}
    grid |= {("random", 5, sigma) for sigma in sigmas} | {("latent", 0, 0.1), ("rgb", 0, 0.0)}
    cards = {(card.backbone, card.layer, card.sigma): card for card in list_probes()}
    assert grid <= set(cards)
    assert len({(card.steps, json.dumps(card.data)) for card in cards.values()}) == 1


def test_the_model_card_says_data_steps_seconds_and_loss_and_the_weights_fit_a_repository() -> None:
    folder = assets_root() / "models" / "toy-wan"
    card = json.loads((folder / "card.json").read_text())
    assert card["trained"] is True
    assert card["data"]["vae"]
    assert card["data"]["transformer"]
    for name in ("steps", "seconds", "loss"):
        assert card[name] > 0, name
    assert card["psnr_db"] >= 30
    assert max(path.stat().st_size for path in folder.rglob("*.safetensors")) <= 15_000_000
    shipped = [path for name in ("clips", "models", "probes") for path in each_file(name)]
    assert sum(path.stat().st_size for path in shipped) < 95_000_000


def each_file(name: str) -> Iterator[Path]:
    """The files of a folder of the assets."""
    return (path for path in (assets_root() / name).rglob("*") if path.is_file())


@pytest.mark.parametrize("row", [*CELLS, *BASELINES])
def test_every_mean_and_interval_follows_from_the_values_of_its_clips(row: str) -> None:
    for metric, stated in ROWS[row]["metrics"].items():
        finite = [value for value in values(row, metric) if value is not None]
        found = mean_interval(finite)
        assert stated["count"] == len(finite)
        for name in ("mean", "low", "high"):
            assert stated[name] == pytest.approx(getattr(found, name), abs=1e-9), (metric, name)


def test_the_trained_models_best_cell_beats_the_untrained_ones_with_a_settled_sign() -> None:
    found = paired_interval(values(CHOSEN["toy-wan"]), values(CHOSEN["random"]))
    assert found.count == 64
    assert found.level == 0.95
    assert found.high < 0


def test_the_trained_models_best_cell_takes_a_quarter_off_the_training_means_error() -> None:
    ours, constant = values(CHOSEN["toy-wan"]), values(MEAN)
    assert sum(ours) <= 0.75 * sum(constant)
    assert paired_interval(ours, constant).high < 0


def test_best_cells_were_chosen_on_validation_clips() -> None:
    by = RESULT["chosen"]["by"]
    assert by.startswith("validation")
    for backbone, chosen in CHOSEN.items():
        scores = {
            name: cell["validation"][by]
            for name, cell in CELLS.items()
            if cell["backbone"] == backbone
        }
        assert scores[chosen] == min(scores.values())


def written(row: str, metric: str) -> str:
    """A figure as the documents write it."""
    found = ROWS[row]["metrics"].get(metric)
    if found is None:
        return "-"
    digits = 1 if metric == PIXELS else 3
    return f"{found['mean']:.{digits}f} [{found['low']:.{digits}f}, {found['high']:.{digits}f}]"


def tables(document: Path) -> Iterator[list[list[str]]]:
    """Cells of every table, line by line, without the rule under the head."""
    for table in re.findall(r"(?:^\|.*\|\n)+", document.read_text(), re.MULTILINE):
        lines = [line.strip("|").split("|") for line in table.splitlines()]
        yield [[cell.strip().replace("`", "") for cell in line] for line in (lines[0], *lines[2:])]


def tables_headed(first: str) -> list[tuple[Path, list[list[str]]]]:
    """The tables whose head starts like that."""
    return [
        (document, table)
        for document in DOCUMENTS
        for table in tables(document)
        if re.match(first, table[0][0])
    ]


def test_the_tables_of_means_are_those_of_the_evaluation() -> None:
    found = tables_headed("backbone:layer:sigma")
    assert [document.name for document, _ in found] == ["README.md", "toy-laboratory.md"]
    for document, (head, *lines) in found:
        for name, *figures in lines:
            expected = [written(name, KEYS[label]) for label in head[1:]]
            assert figures == expected, f"{document.name}: {name}"
    baselines = {MEAN, "nothing moves (px)"}
    (_, (_, *readme)), (_, (_, *laboratory)) = found
    assert {line[0] for line in laboratory} == set(CELLS) | baselines
    assert {line[0] for line in readme} >= {*CHOSEN.values(), *baselines}


def test_the_table_of_differences_is_that_of_the_evaluation() -> None:
    ((document, (head, *lines)),) = tables_headed(r"\S+ minus")
    assert document == REPOSITORY / "README.md"
    ours = head[0].removesuffix(" minus")
    assert ours == CHOSEN["toy-wan"]
    assert {line[0] for line in lines} == {*CHOSEN.values(), MEAN} - {ours}
    for name, *figures in lines:
        for label, figure in zip(head[1:], figures, strict=True):
            assert KEYS[label] in LOWER_IS_BETTER
            mine, other = values(ours, KEYS[label]), values(name, KEYS[label])
            found = paired_interval(mine, other)
            gain = -100 * found.mean / (sum(other) / len(other))
            expected = f"{found.mean:+.3f} [{found.low:+.3f}, {found.high:+.3f}], {gain:.1f} %"
            assert figure == expected, f"{name}, {label}"


def test_the_table_of_ridges_is_that_of_their_cards() -> None:
    ((document, (head, *lines)),) = tables_headed("R² of points / log-depth")
    assert document.name == "toy-laboratory.md"
    written: dict[tuple[str, int, float], str] = {}
    for name, *figures in lines:
        backbone, _, layer = name.partition(" layer ")
        for sigma, figure in zip(head[1:], figures, strict=True):
            if figure:
                written[backbone, int(layer or 0), float(sigma.removeprefix("sigma "))] = figure
    root = assets_root() / "probes"
    cards = [read_ridge_card(path) for path in root.glob("*/ridge_*.json")]
    assert len({json.dumps(card.clips) for card in cards}) == 1
    assert written == {
        (card.backbone, card.layer, card.sigma): " / ".join(
            f"{card.validation_r2[name]:.3f}" for name in ("points", "log_depth")
        )
        for card in cards
    }


def test_every_cell_has_a_ridge_beside_its_probe() -> None:
    for name, cell in CELLS.items():
        assert len(cell["ridge"]["per_clip"]["point_error"]) == 64, name


def test_the_readme_starts_with_the_two_commands_and_a_picture_of_the_app() -> None:
    readme = (REPOSITORY / "README.md").read_text()
    head, commands, rest = readme.split("```", 2)
    assert len(head.split("\n")) <= 6
    lines = [line.split("#")[0].strip() for line in commands.strip().splitlines()]
    assert lines == ["make app", "make test"]
    picture = re.match(r"\s*!\[[^\]]{20,}\]\((docs/images/[\w.-]+)\)", rest)
    assert picture is not None, "a picture with a text for those who cannot see it comes next"
    assert (REPOSITORY / picture[1]).is_file()
