"""Which files hold the weights of one part of a model, and whether all of them are there.

A folder may hold the same weights more than once: in full and in half precision, in one file and in
shards, as safetensors and as torch files. One copy is read. Of those that are whole it is, in this
order of importance: safetensors rather than torch files; full precision, then bfloat16, then
float16; a name that the libraries use; one file rather than shards. Precision is what the file's
name says. An interrupted download lacks shards: an index names them, and so do the numbers in
their own names. Needs no torch.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from explorer.errors import BackboneError

KINDS = ("safetensors", "bin")
PRECISIONS = ("", "bf16", "fp16")
LIBRARIES = ("diffusion_pytorch_model", "model", "pytorch_model")
_NAME = re.compile(
    r"(?P<stem>.+?)"
    r"(?:\.(?P<before>bf16|fp16))?"
    r"(?:-(?P<number>\d{5})-of-(?P<total>\d{5}))?"
    r"(?:\.(?P<behind>bf16|fp16))?"
    r"\.(?P<kind>safetensors|bin)"
)


@dataclass(frozen=True)
class Copy:
    """One copy of a part's weights.

    Attributes:
        files: those that are there, by name.
        missing: names of those that are not.
    """

    files: tuple[Path, ...]
    missing: tuple[str, ...]


def weight_files(part: Path) -> Copy:
    """The copy to read; an incomplete one only where no other is whole.

    Raises:
        BackboneError: an index of shards is broken.
    """
    copies = _copies(part)
    if not copies:
        return Copy((), ("*.safetensors",))
    return min(copies.items(), key=lambda each: (bool(each[1].missing), each[0]))[1]


def listed(names: Sequence[str], most: int = 3) -> str:
    """Names for a message."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if names[most:] else "")


def _copies(part: Path) -> dict[tuple[int, int, int, int], Copy]:
    """Copies by their rank; low is better."""
    listed = {path.name for path in part.glob("*") if path.is_file()}
    sets: dict[tuple[int, int, int, int], set[str]] = defaultdict(set)
    for name in listed | _indexed(part):
        found = _NAME.fullmatch(name)
        if found is None:
            continue
        stem, total = found["stem"], int(found["total"] or 1)
        rank = (
            KINDS.index(found["kind"]),
            PRECISIONS.index(found["before"] or found["behind"] or ""),
            # files of other names make up one copy together
            LIBRARIES.index(stem) if stem in LIBRARIES else len(LIBRARIES),
            total,
        )
        sets[rank].add(name)
        if found["number"]:
            start, end = found.span("number")
            sets[rank] |= {f"{name[:start]}{n:05d}{name[end:]}" for n in range(1, total + 1)}
    return {
        rank: Copy(
            tuple(part / name for name in sorted(names & listed)), tuple(sorted(names - listed))
        )
        for rank, names in sets.items()
    }


def _indexed(part: Path) -> set[str]:
    """Names of the files that indexes list."""
    names: set[str] = set()
    for path in part.glob("*.index*.json"):
        try:
            names |= {str(name) for name in json.loads(path.read_text())["weight_map"].values()}
        except (OSError, ValueError, TypeError, AttributeError, KeyError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise BackboneError(f"{path} is broken ({reason}): fetch it again") from None
    return names
