"""What one run found (`Look`), and the looks that stay in memory for clicks and exports."""

from __future__ import annotations

import dataclasses
import threading
from collections import OrderedDict
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from explorer.look import (
    Compared,
    Decoded,
    FeaturesReady,
    Finished,
    Judged,
    Predicted,
    Referenced,
)

if TYPE_CHECKING:
    from explorer.clip import Clip
    from explorer.features import Features
    from explorer.look import LookRequest, Stage
    from explorer.reconstruction import Reconstruction
    from explorer.references.agreement import Agreement
    from explorer.report import Report

KEPT_BYTES = 256 * 2**20
"""Memory of the looks that no open page shows any more; a 17-frame look takes about 11 MB."""


@dataclass
class Look:
    """What one run found; grows stage by stage, read-only once the run has ended."""

    id: str
    request: LookRequest
    stages: list[Stage] = field(default_factory=list)
    clip: Clip | None = None
    features: Features | None = None
    prediction: Reconstruction | None = None
    reason: str | None = None
    reference: Reconstruction | None = None
    note: str | None = None
    agreement: Agreement | None = None
    judge_note: str | None = None
    report: Report | None = None
    correspondence: dict[str, Any] | None = None
    summary: dict[str, Any] | None = None

    def remember(self, stage: Stage) -> None:
        """Add what a stage brought.

        `reference` has all frames, because any can be picked, but no points: a true match follows
        from depth and cameras, and the points would be over half of a look's memory.
        """
        match stage:
            case Decoded():
                self.clip = stage.clip
            case FeaturesReady():
                self.features = stage.features
            case Predicted():
                self.prediction, self.reason = stage.reconstruction, stage.reason
            case Referenced():
                full = stage.full or stage.reconstruction
                self.reference, self.note = _without_points(full), stage.note
                stage = replace(stage, full=None)
            case Judged():
                self.agreement, self.judge_note = stage.agreement, stage.note
            case Compared():
                self.report, self.correspondence = stage.report, stage.correspondence
            case Finished():
                self.summary = stage.summary
        self.stages.append(stage)

    @property
    def nbytes(self) -> int:
        """Memory of its arrays; arrays that share memory count once."""
        return sum({id(array): array.nbytes for array in _arrays(self)}.values())


class Looks:
    """The looks of all pages, by unguessable id.

    Args:
        budget: bytes that they may take together. What an open page shows stays beyond it.
    """

    def __init__(self, budget: int = KEPT_BYTES) -> None:
        self._budget = budget
        self._looks: OrderedDict[str, Look] = OrderedDict()
        self._lock = threading.Lock()

    def put(self, look: Look, *, shown: Collection[str | None] = ()) -> None:
        """Keep a look, as the newest; the oldest leave while there are too many bytes.

        Args:
            look: the new one, which stays.
            shown: ids of the looks that open pages show, which stay too.
        """
        with self._lock:
            self._looks[look.id] = look
            self._looks.move_to_end(look.id)
            sizes = {name: kept.nbytes for name, kept in self._looks.items()}
            total = sum(sizes.values())
            for name, size in sizes.items():
                if total > self._budget and name != look.id and name not in shown:
                    del self._looks[name]
                    total -= size

    def get(self, look_id: str | None) -> Look | None:
        """A kept look, or None once it had to leave."""
        with self._lock:
            if look_id is None or look_id not in self._looks:
                return None
            self._looks.move_to_end(look_id)
            return self._looks[look_id]

    def drop(self, look_id: str | None) -> None:
        """Forget a look, if it is still there."""
        with self._lock:
            self._looks.pop(look_id or "", None)


def _without_points(found: Reconstruction | None) -> Reconstruction | None:
    if found is None:
        return None
    nowhere = np.broadcast_to(np.float32(np.nan), found.points.shape)  # takes four bytes
    return replace(found, points=nowhere)


def _arrays(value: Any) -> Iterator[np.ndarray]:
    """The arrays in a value made of dataclasses, lists and dictionaries; views as their owners."""
    if isinstance(value, np.ndarray):
        while isinstance(value.base, np.ndarray):
            value = value.base
        yield value
    elif dataclasses.is_dataclass(value):
        for each in dataclasses.fields(value):
            yield from _arrays(getattr(value, each.name))
    elif isinstance(value, dict):
        for item in value.values():
            yield from _arrays(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _arrays(item)
