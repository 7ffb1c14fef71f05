from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from explorer.data.splits import Split, SplitScene, make_split
from explorer.errors import ProbeError, SplitError
from explorer.probe.checkpoint import ProbeCard, read_card, save_probe
from explorer.probe.model import Probe, ProbeConfig
from explorer.probe.training_split import check_held_out, keep_split, training_split


def scenes(*names: str) -> list[SplitScene]:
    return [SplitScene(name, f"place of {name}", f"content of {name}") for name in names]


@pytest.fixture
def split() -> Split:
    return make_split(scenes(*(f"s{i}" for i in range(30))), name="co3d")


def trained(root: Path, data: dict) -> ProbeCard:
    torch.manual_seed(0)
    return save_probe(
        Probe(ProbeConfig.compact(8)),
        root,
        backbone="toy-wan",
        backbone_hash="b" * 64,
        layer=5,
        sigma=0.3,
        data=data,
        steps=1,
        seconds=1.0,
        metrics={},
    )


def test_a_card_names_the_split_and_its_file_is_found_beside_it(
    tmp_path: Path, split: Split
) -> None:
    trained(tmp_path, {"split": split.reference})
    keep_split(tmp_path, split)
    card = read_card(tmp_path / "toy-wan" / "L05_S0.30.json")
    assert card.split == {"name": "co3d", "sha256": split.sha256}
    assert training_split(card) == split


@pytest.mark.parametrize("data", [{}, {"split": "train", "world": "procedural"}])
def test_cards_without_a_split_file_stay_valid(tmp_path: Path, data: dict) -> None:
    trained(tmp_path, data)
    card = read_card(tmp_path / "toy-wan" / "L05_S0.30.json")
    assert card.split is None
    assert training_split(card) is None
    assert check_held_out([card], scenes("s1")) == []


@pytest.mark.parametrize("named", [3, {"name": "x"}, {"name": "x", "sha256": "../../etc/passwd"}])
def test_a_card_that_names_no_proper_split_is_refused(tmp_path: Path, named: object) -> None:
    path = trained(tmp_path, {"split": {"name": "x", "sha256": "0" * 64}}).weights
    path = path.with_suffix(".json")
    values = json.loads(path.read_text())
    values["data"]["split"] = named
    path.write_text(json.dumps(values))
    with pytest.raises(ProbeError, match="is not a probe card"):
        read_card(path)


def test_a_test_on_what_was_trained_on_is_refused(tmp_path: Path, split: Split) -> None:
    card = trained(tmp_path, {"split": split.reference})
    keep_split(tmp_path, split)
    assert check_held_out([card], split.sides["test"]) == []
    seen = split.sides["train"][0]
    message = "the training of L05_S0.30 of toy-wan and this test share "
    with pytest.raises(SplitError, match=f"{message}scenes"):
        check_held_out([card], [*split.sides["test"], seen])
    with pytest.raises(SplitError, match=f"{message}places"):
        check_held_out([card], [SplitScene("new", seen.place, "new content")])
    with pytest.raises(SplitError, match=f"{message}recordings"):
        check_held_out([card], [SplitScene("new", "new place", seen.identity)])


def test_without_the_split_file_the_test_is_warned_of(tmp_path: Path, split: Split) -> None:
    card = trained(tmp_path, {"split": split.reference})
    (warning,) = check_held_out([card], scenes("s1"))
    assert f"split co3d ({split.sha256[:12]}), whose file is not beside it" in warning


def test_a_split_file_under_a_wrong_name_is_refused(tmp_path: Path, split: Split) -> None:
    card = trained(tmp_path, {"split": {"name": "co3d", "sha256": "0" * 64}})
    path = keep_split(tmp_path, split)
    path.rename(path.with_name("0" * 64 + ".json"))
    with pytest.raises(SplitError, match="another split than its name says"):
        check_held_out([card], scenes("s1"))
