"""What is asked of a sweep, and which cells that makes of each backbone."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from explorer import plugins, references
from explorer.backbones import registry
from explorer.backbones._options import Target
from explorer.backbones.base import BackboneCard
from explorer.errors import SweepError
from explorer.features import resolve_layers
from explorer.look.cache import device_type
from explorer.look.stages import LookRequest
from explorer.look.steps import NO_REFERENCE, WHO_KNOWS
from explorer.window import suggested_window

if TYPE_CHECKING:
    from explorer.clip import VideoInfo
    from explorer.source import Source

MOVABLE = ("device", "offload", "weights")
"""Of a target's fields, those that a sweep may be resumed with other values of: each line names the
hash of the weights."""


@dataclass(frozen=True)
class SweepRequest:
    """Clips x backbones x layers x noise levels x seeds.

    Attributes:
        sources: what `explorer.source.open_sources` takes; of a dataset, all scenes.
        backbones: registry ids.
        layers: "all", or numbers and ranges, see `explorer.features.resolve_layers`.
        sigmas: fractions of noise in [0, 1]; a backbone without noise has 0 alone.
        seeds: of the noise; a backbone without noise takes the first.
        side: of a dataset's split; only the scenes on it.
        clips: so many scenes of each dataset, the first.
        reference: as in `LookRequest`.
        start, stride, count: window of source frames; what is None is suggested for each clip.
        target: device, precision and weights.
        probe: folder of own probes; None takes the shipped ones.
        proxies: also compute the training-free proxies.
        keep: put features, predictions and comparisons into the store, where looks find them. A
            layer of a large model is 100 MB a clip.
    """

    sources: tuple[str, ...]
    backbones: tuple[str, ...]
    layers: str = "all"
    sigmas: tuple[float, ...] = (0.1, 0.3, 0.5)
    seeds: tuple[int, ...] = (0,)
    side: str | None = None
    clips: int | None = None
    reference: str = WHO_KNOWS
    start: int | None = None
    stride: int | None = None
    count: int | None = None
    target: Target = field(default_factory=Target)
    probe: Path | None = None
    proxies: bool = True
    keep: bool = False

    def look(
        self, backbone: str, source: Source, info: VideoInfo, card: BackboneCard
    ) -> LookRequest:
        """The look whose steps measure one clip with one backbone, at its own cell."""
        layer, sigma = card.default_cell
        window = suggested_window(
            info, card, start=self.start, stride=self.stride, count=self.count
        )
        return LookRequest(
            path=source.path,
            backbone=backbone,
            layer=layer,
            sigma=sigma,
            reference=self.reference,
            probe=self.probe,
            **vars(window),
            **vars(self.target),
        )

    def options(self) -> dict[str, Any]:
        """Everything that the numbers depend on, ready for JSON."""
        found = {
            name: value
            for name, value in vars(self).items()
            if name not in ("target", "keep", "probe")
        }
        target = {name: value for name, value in vars(self.target).items() if name not in MOVABLE}
        if not target["compile"]:  # files from before there was a choice go on
            del target["compile"]
        return {
            **{
                key: list(value) if isinstance(value, tuple) else value
                for key, value in found.items()
            },
            "probe": None if self.probe is None else str(self.probe),
            **target,
            "plugins": self._plugins(),
            "device": device_type(registry.resolve_device(self.target.device)),
        }

    def _plugins(self) -> list[str]:
        """What comes from outside, each with what changes with its text."""
        asked: list[tuple[plugins.Kind, str]] = [("reference", self.reference)]
        asked += [("backbone", name) for name in self.backbones]
        made = [(name, plugins.of(kind, name)) for kind, name in asked]
        return [f"{name} {each.sha256 or each.version}" for name, each in made if each is not None]


@dataclass(frozen=True)
class Axes:
    """The cells of one backbone.

    Attributes:
        card: of the weights that are here.
        layers: 0-based, in order.
        passes: (sigma, seed) of each pass of the backbone over a clip.
    """

    card: BackboneCard
    layers: tuple[int, ...]
    passes: tuple[tuple[float, int], ...]

    @property
    def sigmas(self) -> tuple[float, ...]:
        """Noise levels, each once."""
        return tuple(dict.fromkeys(sigma for sigma, _ in self.passes))

    @property
    def seeds(self) -> tuple[int, ...]:
        """Seeds, each once."""
        return tuple(dict.fromkeys(seed for _, seed in self.passes))


def axes_of(request: SweepRequest) -> dict[str, Axes]:
    """The cells of each backbone, by its id.

    Raises:
        SweepError: something is missing or outside its range.
        BackboneError: a backbone, its weights, a layer or the device is not there.
        ReferenceError3D: the reference cannot be used.
    """
    for name in ("sources", "backbones", "sigmas", "seeds"):
        if not getattr(request, name):
            raise SweepError(f"a sweep needs {name}: give at least one")
    if request.clips is not None and request.clips < 1:
        raise SweepError(f"{request.clips} clips: give 1 or more")
    wrong = [sigma for sigma in request.sigmas if not 0.0 <= sigma <= 1.0]
    if wrong:
        raise SweepError(f"sigma {wrong[0]:g} is not in [0, 1]: it is the fraction of noise")
    if request.reference not in (NO_REFERENCE, WHO_KNOWS):
        references.check(request.reference)
    registry.resolve_device(request.target.device)
    found = {}
    for name in dict.fromkeys(request.backbones):
        card = registry.fitting_card(name, request.target)
        seeds = tuple(dict.fromkeys(request.seeds))
        passes = tuple((sigma, seed) for sigma in sorted(set(request.sigmas)) for seed in seeds)
        found[name] = Axes(
            card,
            tuple(resolve_layers(request.layers, card.layers)),
            passes if card.uses_sigma else ((0.0, seeds[0]),),
        )
    return found
