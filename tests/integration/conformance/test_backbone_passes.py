"""How every registered backbone runs: where it stops, what it repeats, what two passes share."""

from __future__ import annotations

import json
import subprocess
import sys
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import pytest
from asking import ask, blocks_of, digests, latents_of, make_clip, some_clip

from explorer import plugins
from explorer.backbones.base import Backbone
from explorer.clip import Clip, clip_from_frames
from explorer.errors import BackboneError, Cancelled
from explorer.features import Features

OF_TWO_BLOCKS = {"toy-vggt", "vggt-1b"}
"""Their features are what a block within frames gives, and then what the one across them does."""


def test_kept_outputs_are_only_the_asked_ones_and_equal_the_full_pass(backbone: Backbone) -> None:
    if not blocks_of(backbone):
        pytest.skip("no network")
    clip, last = make_clip(backbone, 1), backbone.card.layers - 1
    given = latents_of(backbone, clip)
    ran: list[int] = []
    handles = [
        block.register_forward_hook(lambda *_, number=number: ran.append(number))
        for number, block in enumerate(backbone.blocks)
    ]
    stopped = ask(backbone, clip, layers=[0], **given)
    assert ran in ([], [0])
    full = backbone.extract(clip, layers=[0, last], sigma=0.3, **given)
    for handle in handles:
        handle.remove()
    assert sorted(full) == sorted({0, last})
    np.testing.assert_array_equal(stopped.values, full[0].values)


def test_a_stopped_pass_gives_what_its_block_returns_in_a_pass_through_all_of_them(
    backbone: Backbone,
) -> None:
    import torch

    if not blocks_of(backbone):
        pytest.skip("no network")
    if plugins.of("backbone", backbone.card.id):
        pytest.skip("what it makes of a block's output is its own")
    clip, last = make_clip(backbone, 1), backbone.card.layers - 1
    given = latents_of(backbone, clip)
    stopped = ask(backbone, clip, layers=[0], **given).values
    if backbone.card.id in OF_TWO_BLOCKS:
        stopped = stopped[..., stopped.shape[-1] // 2 :]
    returned: list[np.ndarray] = []

    def watch(module: torch.nn.Module, inputs: Any, output: Any) -> None:
        parts = output if isinstance(output, tuple) else (output,)
        returned.extend(part.numpy().astype(np.float16) for part in parts if part is not None)

    with torch.inference_mode():
        handle = backbone.blocks[0].register_forward_hook(watch)
        ask(backbone, clip, layers=[last], **given)
        handle.remove()
    width = stopped.shape[-1]
    everywhere = [
        each if each.shape[-1] == width else np.moveaxis(each, 1, -1) for each in returned
    ]
    # The block returns more: special tokens, those of the prompt, frames that no slot stands for.
    assert any(_tokens(stopped) <= _tokens(each) for each in everywhere)


def _tokens(values: np.ndarray) -> set[bytes]:
    """Their bits, wherever they are."""
    flat = np.ascontiguousarray(values.reshape(-1, values.shape[-1]))
    return {token.tobytes() for token in flat}


def test_one_layer_alone_equals_that_layer_out_of_all(backbone: Backbone) -> None:
    clip, count = some_clip(backbone), backbone.card.layers
    every = backbone.extract(clip, layers=range(count), sigma=0.3)
    assert sorted(every) == list(range(count))
    for layer in sorted({0, count // 2, count - 1}):
        alone = backbone.extract(clip, layers=[layer], sigma=0.3)
        assert list(alone) == [layer]
        np.testing.assert_array_equal(alone[layer].values, every[layer].values)


def test_the_pass_ends_after_the_last_wanted_block(backbone: Backbone) -> None:
    if not blocks_of(backbone):
        assert backbone.card.layers == 1, "`blocks` gives one module for each layer, in their order"
        return
    assert len(backbone.blocks) == backbone.card.layers
    clip = some_clip(backbone)
    given = latents_of(backbone, clip)
    run: list[int] = []
    outputs: list[weakref.ref[Any]] = []

    def watch(number: int, output: Any) -> None:
        run.append(number)
        parts = output if isinstance(output, tuple) else (output,)
        outputs.extend(weakref.ref(part) for part in parts if part is not None)

    handles = [
        block.register_forward_hook(lambda *seen, number=number: watch(number, seen[2]))
        for number, block in enumerate(backbone.blocks)
    ]
    last = min(2, len(backbone.blocks) - 1)
    kept = backbone.extract(clip, layers=[0, last], sigma=0.3, **given)
    for handle in handles:
        handle.remove()
    # The pass may leave from inside the last block, whose own later hooks are skipped with it.
    assert run in (list(range(last)), list(range(last + 1)))
    assert sorted(kept) == sorted({0, last})
    assert not any(output() is not None for output in outputs), "only features may stay"


def test_the_seed_decides_the_noise(backbone: Backbone, usual: Features) -> None:
    clip = some_clip(backbone)
    assert usual.seed == 1
    np.testing.assert_array_equal(ask(backbone, clip, seed=1).values, usual.values)
    differs = bool((ask(backbone, clip, seed=2).values != usual.values).any())
    assert differs == backbone.card.uses_sigma


def test_sigma_zero_has_no_noise(backbone: Backbone, usual: Features) -> None:
    clip = some_clip(backbone)
    clean = ask(backbone, clip, sigma=0.0, seed=1).values
    np.testing.assert_array_equal(ask(backbone, clip, sigma=0.0, seed=2).values, clean)
    assert bool((usual.values != clean).any()) == backbone.card.uses_sigma


def test_sigma_one_forgets_the_clip(backbone: Backbone) -> None:
    if not backbone.card.uses_sigma:
        pytest.skip("sigma has no meaning here")
    clips = [some_clip(backbone, seed=seed) for seed in (0, 1)]
    if backbone.card.first_frame:
        # What is given without noise is not forgotten.
        frames = np.concatenate([clips[0].frames[:1], clips[1].frames[1:]])
        clips[1] = clip_from_frames(frames, name="another, same first frame")
    one, other = (ask(backbone, clip, sigma=1.0).values.astype(np.float64) for clip in clips)
    # Some schedulers' last step keeps a trace of the clip.
    assert np.abs(one - other).mean() < 0.02 * one.std()


def test_the_global_random_state_is_neither_read_nor_changed(backbone: Backbone) -> None:
    import torch

    clip = make_clip(backbone, 1)
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first = ask(backbone, clip).values
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(2)
    np.testing.assert_array_equal(ask(backbone, clip).values, first)


def test_latents_are_reusable_across_noise_or_refused(backbone: Backbone) -> None:
    clip = some_clip(backbone)
    if backbone.encoder_hash is None:
        with pytest.raises(BackboneError, match="has no latents"):
            backbone.encode(clip)
        return
    latents = backbone.encode(clip)
    assert latents.dtype == np.float32
    assert latents.flags["C_CONTIGUOUS"]
    assert len(backbone.encoder_hash) == 64
    encoded = backbone.encoder_calls
    for sigma, seed in [(0.1, 0), (0.5, 3)]:
        reused = ask(backbone, clip, sigma=sigma, seed=seed, latents=latents)
        assert backbone.encoder_calls == encoded
        fresh = ask(backbone, clip, sigma=sigma, seed=seed)
        encoded = backbone.encoder_calls
        np.testing.assert_array_equal(reused.values, fresh.values)


def test_two_passes_at_once_give_what_they_give_one_after_the_other(backbone: Backbone) -> None:
    jobs = [(some_clip(backbone, steps=n, seed=n), n) for n in (1, 2)]
    expected = [ask(backbone, clip, seed=seed).values for clip, seed in jobs]
    start = Barrier(len(jobs))

    def work(job: tuple[Clip, int]) -> np.ndarray:
        start.wait()
        return ask(backbone, job[0], seed=job[1]).values

    with ThreadPoolExecutor(len(jobs)) as pool:
        found = list(pool.map(work, jobs))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_stop_is_heard_in_the_middle_and_leaves_the_next_pass_right(
    backbone: Backbone, usual: Features
) -> None:
    clip, other = some_clip(backbone), some_clip(backbone, steps=2, seed=1)
    questions = 0

    def count() -> bool:
        nonlocal questions
        questions += 1
        return False

    ask(backbone, other, should_stop=count)
    assert questions >= (len(backbone.blocks) or 1)
    for asked in sorted({0, questions // 2, questions - 1}):
        answers = iter([False] * asked + [True])
        with pytest.raises(Cancelled):
            ask(backbone, other, should_stop=lambda answers=answers: next(answers))
        np.testing.assert_array_equal(ask(backbone, clip, seed=1).values, usual.values)


def test_another_process_gives_the_same_features(models: dict[str, Backbone]) -> None:
    import torch

    code = (
        f"import sys, json; sys.path.insert(0, {str(Path(__file__).parent)!r}); "
        f"import torch; torch.set_num_threads({torch.get_num_threads()}); "
        "import asking; print(json.dumps(asking.digests()))"
    )
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=200
    ).stdout
    assert json.loads(output.splitlines()[-1]) == digests(models)
