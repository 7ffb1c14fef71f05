from __future__ import annotations

import hashlib
import json
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from explorer.data.splits import (
    SplitScene,
    check_apart,
    extend_split,
    make_split,
    read_split,
    write_split,
)
from explorer.errors import SplitError


def scene(name: str, place: str | None = None, official: str | None = None) -> SplitScene:
    identity = hashlib.sha256(name.encode()).hexdigest()
    return SplitScene(name, name if place is None else place, identity, official)


def many(count: int, *, each: int = 1) -> list[SplitScene]:
    return [scene(f"clip {i}", f"place {i // each}") for i in range(count)]


def test_the_split_depends_on_the_scenes_and_the_seed_and_not_on_their_order() -> None:
    scenes = many(200)
    split = make_split(scenes, name="co3d")
    random.shuffle(scenes)
    again = make_split(scenes, name="co3d")
    assert again == split
    assert again.sha256 == split.sha256
    other = make_split(scenes, name="co3d", seed=1)
    assert other.sides != split.sides
    assert other.sha256 != split.sha256


def test_about_a_tenth_of_the_places_is_tested() -> None:
    split = make_split(many(4000), name="many")
    assert len(split.sides["test"]) == pytest.approx(400, abs=60)  # three standard deviations


def test_all_scenes_of_a_place_are_on_one_side() -> None:
    split = make_split(many(600, each=3), name="rooms")
    places = {side: {each.place for each in split.sides[side]} for side in ("train", "test")}
    assert places["train"] & places["test"] == set()
    assert min(map(len, places.values())) > 5
    assert sum(map(len, split.sides.values())) == 600


def test_scenes_that_are_added_later_move_no_old_one() -> None:
    scenes = many(300, each=2)
    first = make_split(scenes[:40], name="grows")
    grown = extend_split(first, scenes)
    assert grown == make_split(scenes, name="grows")
    assert all(first.side(each.scene) == grown.side(each.scene) for each in scenes[:40])
    assert len(grown.sides["train"]) + len(grown.sides["test"]) == 300
    assert grown.sha256 != first.sha256


def test_many_scenes_take_no_time() -> None:
    scenes = many(20_000, each=2)
    first = make_split(scenes[:-1], name="large")
    begin = time.perf_counter()
    extend_split(first, scenes[-1:])
    assert time.perf_counter() - begin < 5  # half a minute where each scene looks at all others


def test_official_sides_are_kept_and_the_rest_of_their_place_goes_with_them() -> None:
    free = many(50)
    scenes = [
        *free,
        *(scene(f"t{i}", f"t{i}", "test") for i in range(20)),
        scene("more of t3", "t3"),
        scene("v", "v", "val"),
    ]
    split = make_split(scenes, name="official")
    assert {each.scene for each in split.sides["test"]} >= {f"t{i}" for i in range(20)}
    assert split.side("more of t3") == "test"
    assert split.side("v") == "val"
    without = make_split(scenes, name="official", official=False)
    assert {each.scene for each in without.sides["train"]} & {f"t{i}" for i in range(20)}
    plain = make_split(free, name="free")
    assert all(split.side(each.scene) == plain.side(each.scene) for each in free)


def test_an_official_split_that_shares_a_place_is_refused() -> None:
    scenes = [scene("seq-01", "kitchen", "train"), scene("seq-03", "kitchen", "test")]
    with pytest.raises(SplitError, match=r"place kitchen on two sides \(seq-01: train"):
        make_split(scenes, name="rooms")
    split = make_split(scenes, name="rooms", official=False)
    assert split.side("seq-01") == split.side("seq-03")


def test_an_official_scene_that_would_move_an_old_one_is_refused() -> None:
    old = make_split([scene("a", "p")], name="x", fractions={"train": 1.0, "test": 0.0})
    with pytest.raises(SplitError, match="would move a to another side"):
        extend_split(old, [scene("b", "p", "test")])


def test_one_recording_under_two_names_is_not_on_two_sides() -> None:
    split = make_split(many(40), name="x")
    tested = split.sides["test"][0]
    copy = SplitScene("copy", split.sides["train"][0].place, tested.identity)
    with pytest.raises(SplitError, match="share recordings: .*copy"):
        make_split([*many(40), copy], name="x")


def test_a_name_that_comes_twice_is_refused() -> None:
    with pytest.raises(SplitError, match="names the scene a twice"):
        make_split([scene("a", "p"), scene("a", "q")], name="x")


@pytest.mark.parametrize("fractions", [{"train": 0.5}, {"train": 1.5, "test": -0.5}, {}])
def test_fractions_that_are_no_shares_are_refused(fractions: dict[str, float]) -> None:
    with pytest.raises(SplitError, match="sum to 1"):
        make_split(many(3), name="x", fractions=fractions)


def test_a_written_split_comes_back_with_its_hash(tmp_path: Path) -> None:
    split = make_split(many(30, each=2), name="co3d", seed=3)
    path = tmp_path / "split.json"
    write_split(path, split)
    assert read_split(path) == split
    assert json.loads(path.read_text())["sha256"] == split.sha256
    before = path.read_bytes()
    write_split(path, read_split(path))
    assert path.read_bytes() == before


def change(edit: Callable[[dict], object]) -> Callable[[Path], None]:
    def apply(path: Path) -> None:
        values = json.loads(path.read_text())
        edit(values)
        path.write_text(json.dumps(values))

    return apply


def moved(values: dict) -> None:
    values["sides"]["train"].append(values["sides"]["test"].pop())


def shared(values: dict) -> None:
    values["sides"]["train"].append({**values["sides"]["test"][0], "scene": "again"})


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (change(moved), "was changed since it was written"),
        (change(lambda values: values.update(seed=9)), "was changed since it was written"),
        (change(shared), "test and train share places"),
        (change(lambda values: values.update(format="x")), "is not a split of a dataset"),
        (change(lambda values: values.pop("sha256")), "is not a split of a dataset"),
        (lambda path: path.write_text("[1"), "is not a split of a dataset"),
        (lambda path: path.unlink(), "is not a split of a dataset"),
    ],
)
def test_a_split_that_is_not_as_it_was_written_is_refused(
    tmp_path: Path, spoil: Callable[[Path], None], message: str
) -> None:
    path = tmp_path / "split.json"
    write_split(path, make_split(many(40), name="x"))
    spoil(path)
    with pytest.raises(SplitError, match=message):
        read_split(path)


def test_what_two_sets_share_is_named() -> None:
    check_apart(many(3), [scene("other")])
    with pytest.raises(SplitError, match="train and test share scenes: clip 0 and clip 0, .* 2 m"):
        check_apart(many(5), many(5))
