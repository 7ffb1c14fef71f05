"""Many looks in one go: clips x backbones x layers x noise levels x seeds, as a stream of results.

    request = SweepRequest(("room-orbit-01", "/data/7scenes"), ("toy-wan",), layers="0-7:2")
    for result in sweep(request, Path("sweep.jsonl"), store=Store()):
        ...

The steps are those of a look. A clip is decoded and encoded once for each backbone, a backbone
makes one pass over it for each noise level and seed with all layers, and the reference is asked
once for all backbones that see the clip alike. Each pass is on the disk before the next begins, and
the same request goes on where the file ends. Clips come one after the other with all their
backbones: where two models do not fit into memory together, one sweep each is faster.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from explorer._look_cache import versions
from explorer._look_steps import Steps
from explorer._machine import describe_machine
from explorer._sweep_file import Row, SweepFile
from explorer._sweep_request import Axes, SweepRequest, axes_of
from explorer._sweep_summary import summarize
from explorer.backbones import registry
from explorer.backbones.base import never, stop_check
from explorer.errors import Cancelled, EmergeError, SweepError
from explorer.source import Listed, Source, open_sources

if TYPE_CHECKING:
    from explorer._look_stages import LookRequest
    from explorer.store import Store

__all__ = ["Failed", "Measured", "Result", "SweepRequest", "Swept", "sweep"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Result:
    """Something that a sweep has found."""


@dataclass(frozen=True)
class Measured(Result):
    """A pass is in the file.

    Attributes:
        rows: its lines, one a layer.
        done: passes in the file by now.
        of: passes that the sweep has.
    """

    rows: list[Row]
    done: int
    of: int


@dataclass(frozen=True)
class Failed(Result):
    """A clip, or a clip with one backbone, that gives no further lines; the same sweep tries again.

    Attributes:
        clip: its name.
        backbone: None where the clip itself cannot be read.
        reason: for people.
    """

    clip: str
    backbone: str | None
    reason: str


@dataclass(frozen=True)
class Swept(Result):
    """The end: means with intervals over clips, see `explorer._sweep_summary.summarize`."""

    summary: dict[str, Any]


def sweep(
    request: SweepRequest,
    out: Path,
    *,
    store: Store,
    should_stop: Callable[[], bool] = never,
) -> Iterator[Result]:
    """Measure every cell on every clip that the file has no line of yet.

    Args:
        request: what to measure.
        out: file of lines; made, or gone on with.
        store: asked for latents, features and slow references before they are computed.
        should_stop: asked within passes.

    Raises:
        EmergeError: the request makes no sense here, or the file is another's or cannot be
            written; before any work.
        Cancelled: `should_stop` became true; the file holds all finished passes.
    """
    begin = time.perf_counter()
    axes = axes_of(request)
    listed, failures = _list(request)
    about = {"versions": versions()}
    file = SweepFile(out, request.options(), about)
    try:
        run = _Run(request, axes, file, store, should_stop, len(listed))
        yield from failures
        for each in listed:
            for result in run.clip(each):
                if isinstance(result, Failed):
                    failures.append(result)
                yield result
        names = [*dict.fromkeys([each.name for each in listed])]
        summary = summarize(names, axes, file.rows)
        summary["failed"] = [vars(failure) for failure in failures]
        summary["options"] = request.options()
        summary["machine"] = describe_machine(registry.resolve_device(request.target.device))
        summary["versions"] = versions()
        summary["seconds"] = round(time.perf_counter() - begin, 2)
        yield Swept(summary)
    finally:
        file.close()


def _list(request: SweepRequest) -> tuple[list[Listed], list[Failed]]:
    found: dict[str, Listed] = {}
    failures = []
    for path in dict.fromkeys(request.sources):
        try:
            each_of = open_sources(path, side=request.side, clips=request.clips)
        except EmergeError as error:
            failures.append(Failed(path, None, str(error)))
            continue
        found |= {each.name: each for each in each_of}
    return list(found.values()), failures


class _Run:
    """What the clips of a sweep have in common."""

    def __init__(
        self,
        request: SweepRequest,
        axes: dict[str, Axes],
        file: SweepFile,
        store: Store,
        should_stop: Callable[[], bool],
        clips: int,
    ) -> None:
        self.request, self.axes, self.file = request, axes, file
        self.store, self.should_stop = store, should_stop
        self.of = clips * sum(len(each.passes) for each in axes.values())
        self.done = 0

    def clip(self, listed: Listed) -> Iterator[Result]:
        """All cells of one clip."""
        known: dict[tuple[Any, ...], Any] = {}
        source = None
        for backbone, axes in self.axes.items():
            missing = {each: self.missing(listed.name, backbone, *each) for each in axes.passes}
            wanted = {each: layers for each, layers in missing.items() if layers}
            self.done += len(missing) - len(wanted)
            if not wanted:
                continue
            try:
                if source is None:
                    source = listed.open()
                    info = source.info()
            except EmergeError as error:
                yield Failed(listed.name, None, str(error))
                return
            look = self.request.look(backbone, source, info, axes.card)
            passes = self.passes(listed.name, source, look, wanted, known)
            while True:
                try:
                    rows = next(passes, None)
                except (Cancelled, SweepError):
                    raise
                except EmergeError as error:
                    yield Failed(listed.name, backbone, str(error))
                    break
                except Exception as error:  # a night's work does not end with one clip
                    log.warning("%s with %s failed", listed.name, backbone, exc_info=error)
                    yield Failed(listed.name, backbone, f"{type(error).__name__}: {error}")
                    break
                if rows is None:
                    break
                self.file.append(rows)
                self.done += 1
                yield Measured(rows, self.done, self.of)

    def missing(self, clip: str, backbone: str, sigma: float, seed: int) -> list[int]:
        """Layers of a pass that the file has no line of."""
        return [
            layer
            for layer in self.axes[backbone].layers
            if (clip, backbone, layer, sigma, seed) not in self.file.rows
        ]

    def passes(
        self,
        clip: str,
        source: Source,
        look: LookRequest,
        wanted: dict[tuple[float, int], list[int]],
        known: dict[tuple[Any, ...], Any],
    ) -> Iterator[list[Row]]:
        """The lines of each wanted pass."""
        from explorer._sweep_pass import measure

        keep = self.request.keep
        steps = Steps(look, self.store, self.should_stop, source=source, keep=keep, known=known)
        steps.decode()
        steps.prepare(self.axes[look.backbone].layers, 0.0)
        self.check_same(clip, look.backbone, steps)
        for (sigma, seed), layers in wanted.items():
            stop_check(self.should_stop)
            yield measure(steps, clip, layers, sigma, seed, proxies=self.request.proxies)
            steps.begin()

    def check_same(self, clip: str, backbone: str, steps: Steps) -> None:
        """Raises SweepError: earlier lines are of another video or of other weights."""
        now = steps.clip.content_hash, steps.hashes.weights
        for row in self.file.rows.values():
            same = row["clip"] == clip and row["backbone"] == backbone
            if same and (row["content_hash"], row["backbone_hash"]) != now:
                what = "the video" if row["content_hash"] != now[0] else f"{backbone}'s weights"
                raise SweepError(
                    f"{self.file.path} has lines of {clip} from before {what} changed: "
                    "choose another --out"
                )
