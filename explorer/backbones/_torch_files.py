"""Weights in single files: torch's own formats, tensors only, and safetensors.

A torch file is a pickle, and a pickle may run any program when it is read. `weights_only=True`
reads tensors and plain containers and nothing else; a file that needs more is refused here, and
torch's advice to try again without that protection is never passed on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from explorer.errors import BackboneError

ZIP = b"PK\x03\x04"
LEGACY = bytes.fromhex("80028a0a6cfc9c46f9206aa85019")
"""How files of torch.save begin: since torch 1.6, and before."""
PICKLE = b"\x80"
SAFE_TORCH = (2, 6)
"""Older releases could be made to run code in spite of weights_only=True (CVE-2025-32434)."""
NAMED = 5


def read_state(
    path: Path, *, keys: Sequence[str] = (), prefixes: Sequence[str] = ()
) -> dict[str, torch.Tensor]:
    """The tensors of one file, on the CPU; where the format allows it, mapped rather than read.

    Args:
        path: a file of safetensors (by its ending) or of torch.save (`.pth`, `.pt`, `.pth.tar`,
            `.bin`, ...).
        keys: entries of a torch file under which the tensors may lie, the first one present
            wins. Without `keys`, or where the file holds nothing but tensors, the file itself.
        prefixes: taken off the front of each name that has them, one after the other.

    Raises:
        BackboneError: the file is missing, damaged, holds other Python objects than tensors and
            plain containers, has no such entry, or two names become one.
    """
    content, reason = _try_read(path)
    if reason:
        # raised here, the traceback holds no frame with half of the tensors
        raise BackboneError(reason)
    state = _tensors_under(content, keys, path)
    stripped = {_without(name, prefixes): value for name, value in state.items()}
    if len(stripped) < len(state):
        raise BackboneError(
            f"{path}: names collide without {' and '.join(map(repr, prefixes))}: "
            "it is not a checkpoint of this model"
        )
    return stripped


def load_strictly(model: nn.Module, state: Mapping[str, torch.Tensor], *, source: Path) -> None:
    """Put a state into a model of exactly these names and shapes; otherwise change nothing.

    A model on the meta device takes the tensors over as they are, dtype included; another model
    copies their values.

    Args:
        model: of the right configuration.
        state: from `read_state`, less what the model leaves out on purpose.
        source: the file that errors name.

    Raises:
        BackboneError: a name is missing, unexpected, or has another shape; counts and the first
            five of each are given.
    """
    wanted = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    shapes = [
        f"{name} {tuple(value.shape)} instead of {wanted[name]}"
        for name, value in state.items()
        if name in wanted and tuple(value.shape) != wanted[name]
    ]
    problems = [
        _listed("missing", (name for name in wanted if name not in state)),
        _listed("unexpected", (name for name in state if name not in wanted)),
        _listed("of another shape", shapes),
    ]
    if any(problems):
        raise BackboneError(
            f"{source} does not fit {type(model).__name__}: {'; '.join(filter(None, problems))}. "
            "Get the weights that this backbone's card names"
        )
    assign = any(value.is_meta for value in model.state_dict().values())
    model.load_state_dict(dict(state), strict=True, assign=assign)


def _try_read(path: Path) -> tuple[Any, str]:
    """(content, "") or (None, what is wrong and what to do)."""
    try:
        with path.open("rb") as file:
            head = file.read(len(LEGACY))
    except OSError as error:
        return None, f"{path} cannot be read ({error.strerror}): check the path and its permissions"
    if path.suffix == ".safetensors":
        return _attempt(lambda: load_file(path), path)
    if not head.startswith((ZIP, LEGACY)):
        if head.startswith(PICKLE) and not LEGACY.startswith(head):
            return None, _refusal(path, "a bare pickle")
        return None, _damage(path, "it does not begin like a file of torch.save")
    release = tuple(int(part) for part in re.findall(r"\d+", torch.__version__)[:2])
    if release < SAFE_TORCH:
        return None, (
            f"torch {torch.__version__} cannot read {path.name} safely (CVE-2025-32434): update "
            "torch to 2.6 or later, or use safetensors"
        )
    mapped = head.startswith(ZIP)
    return _attempt(
        lambda: torch.load(path, map_location="cpu", weights_only=True, mmap=mapped), path
    )


def _attempt(read: Callable[[], Any], path: Path) -> tuple[Any, str]:
    try:
        return read(), ""
    except Exception as error:  # torch and safetensors raise a dozen kinds for a broken file
        text = str(error)
        kind = type(error).__name__
    culprit = re.search(r"GLOBAL (\S+)", text)
    if culprit:
        return None, _refusal(path, culprit[1])
    # the first sentence; of a refused pickle, torch's advice follows
    reason = "not readable as tensors" if kind == "UnpicklingError" else text.split(". ")[0]
    reason = " ".join(reason.split())[:200] or kind
    if kind == "MemoryError" or "allocate memory" in text:
        return None, f"{path} does not fit in memory ({reason}): free some, or use safetensors"
    return None, _damage(path, reason)


def _refusal(path: Path, culprit: str) -> str:
    return (
        f"{path} was refused: it holds Python objects besides tensors ({culprit}), and reading "
        "those can run any program. Get the weights as safetensors, or convert the file on a "
        "machine where you may trust it"
    )


def _damage(path: Path, reason: str) -> str:
    return f"{path} is damaged or not a file of weights ({reason}): download it again"


def _tensors_under(content: Any, keys: Sequence[str], path: Path) -> dict[str, torch.Tensor]:
    state = content
    if isinstance(content, Mapping):
        present = [key for key in keys if isinstance(content.get(key), Mapping)]
        state = content[present[0]] if present else content
    if not isinstance(state, Mapping) or not all(
        isinstance(value, torch.Tensor) for value in state.values()
    ):
        found = list(map(str, content)) if isinstance(content, Mapping) else type(content).__name__
        wanted = " or ".join(map(repr, keys)) or "the top level"
        raise BackboneError(
            f"{path}: no tensors under {wanted}, the file has {_short(found)}: it is not a "
            "checkpoint of this model"
        )
    return {str(name): value for name, value in state.items()}


def _short(found: list[str] | str) -> str:
    if isinstance(found, str):
        return f"a {found}"
    return ", ".join(map(repr, found[:NAMED])) + (", ..." if len(found) > NAMED else "")


def _without(name: str, prefixes: Sequence[str]) -> str:
    for prefix in prefixes:
        name = name.removeprefix(prefix)
    return name


def _listed(what: str, names: Iterable[str]) -> str:
    """'7 missing: a, b, c, d, e, ...' or '' when there are none."""
    every = list(names)
    if not every:
        return ""
    return f"{len(every)} {what}: {', '.join(every[:NAMED])}{', ...' if len(every) > NAMED else ''}"
