"""What a probe was trained on, and that what it is tested on was not among it.

A card names its training split by hash; the split's file lies beside the probes, at
`splits/<sha256>.json` of their folder.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from explorer.data.splits import TRAIN, Split, SplitScene, check_apart, read_split, write_split
from explorer.errors import SplitError
from explorer.probe.checkpoint import ProbeCard

FOLDER = "splits"


def keep_split(root: Path, split: Split) -> Path:
    """Put the file of a split where those who read the cards of its probes will look.

    Args:
        root: folder with one folder of probes for each backbone.
        split: that probes in there are trained on.
    """
    path = root / FOLDER / f"{split.sha256}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_split(path, split)
    return path


def training_split(card: ProbeCard) -> Split | None:
    """The split that a probe was trained on; None where its card names none, or its file is gone.

    Raises:
        SplitError: the file is broken, or of another split than the card says.
    """
    named = card.split
    if named is None:
        return None
    path = card.weights.parent.parent / FOLDER / f"{named['sha256']}.json"
    if not path.is_file():
        return None
    found = read_split(path)
    if found.sha256 != named["sha256"]:
        raise SplitError(f"{path} holds another split than its name says: restore it")
    return found


def check_held_out(cards: Iterable[ProbeCard], scenes: Sequence[SplitScene]) -> list[str]:
    """That no probe was trained on scenes, places or recordings that it is to be tested on.

    Args:
        cards: of the probes.
        scenes: that they are to be tested on.

    Returns:
        One warning for each probe whose split cannot be found; probes whose cards name no split
        were trained on rendered scenes, whose sides are apart by their seeds.

    Raises:
        SplitError: a probe was trained on some of it, or the file of its split is broken.
    """
    warnings = []
    for card in cards:
        named = card.split
        if named is None:
            continue
        split = training_split(card)
        if split is None:
            warnings.append(
                f"{card.weights.stem} of {card.backbone} was trained on the split {named['name']} "
                f"({named['sha256'][:12]}), whose file is not beside it: nobody can say whether it "
                "has seen these scenes"
            )
            continue
        trained = split.sides.get(TRAIN, ())
        names = (f"the training of {card.weights.stem} of {card.backbone}", "this test")
        check_apart(trained, scenes, names=names)
    return warnings
