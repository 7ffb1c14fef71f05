"""Every registered backbone; published ones as tiny random weights, found like real ones."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest
from asking import IDS, ask, small, some_clip

from explorer.backbones import loaded, registry
from explorer.backbones.base import Backbone
from explorer.features import Features


@pytest.fixture(scope="session")
def tiny_folders(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """A folder of weights for every published model that is asked about, named by its id."""
    root = tmp_path_factory.mktemp("weights")
    own = [each for each in request.session.items if Path(__file__).parent in each.path.parents]
    params = [getattr(each, "callspec", None) for each in own]
    asked = {value for each in params if each is not None for value in each.params.values()}
    for card in registry.cards():
        # A test of no backbone in particular is about all of them.
        if card.source is not None and (card.id in asked or None in params):
            registry.write_tiny(card.id, root / card.id)
    # Experts that change places collect garbage: a second each time with every library in it.
    gc.freeze()
    yield root
    gc.unfreeze()


@pytest.fixture(scope="session")
def models() -> dict[str, Backbone]:
    """Those loaded so far: the files of this folder share them."""
    return {}


@pytest.fixture(scope="module", autouse=True)
def tiny_weights(tiny_folders: Path) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EMERGE3D_WEIGHTS", str(tiny_folders))
        yield
    loaded.unload()


@pytest.fixture(scope="module", params=IDS)
def full(request: pytest.FixtureRequest, models: dict[str, Backbone]) -> Backbone:
    """One backbone at its own size."""
    name = request.param
    if name not in models:
        models[name] = registry.load(name, device="cpu")
    return models[name]


@pytest.fixture(scope="module")
def backbone(full: Backbone) -> Backbone:
    """The same for a smaller picture."""
    return small(full)


@pytest.fixture(scope="module")
def usual(backbone: Backbone) -> Features:
    """Its features of a short clip, with seed 1: what other passes are compared with."""
    return ask(backbone, some_clip(backbone), seed=1)
