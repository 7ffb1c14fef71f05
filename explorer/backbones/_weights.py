"""Finding published weights on this machine, and fetching them when asked. Needs no torch."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from explorer.errors import BackboneError

if TYPE_CHECKING:
    from explorer.backbones.base import BackboneCard

VARIABLE = "EMERGE3D_WEIGHTS"
_WHOLE = 64 * 2**20
_BLOCK = 2**18
_BLOCKS = 64


def find_weights(card: BackboneCard, weights: Path | None = None) -> Path:
    """The folder with a model's files: the given one, $EMERGE3D_WEIGHTS/ID, or the hub's cache.

    Nothing is fetched.

    Raises:
        BackboneError: they are not here; the message says how to get them.
    """
    if card.source is None:
        raise BackboneError(f"{card.id} comes with the package and takes no other weights")
    if weights is not None:
        if not weights.is_dir():
            raise BackboneError(f"{weights} is not a folder: give the one that holds {card.id}")
        return weights
    root = os.environ.get(VARIABLE)
    if root and (Path(root) / card.id).is_dir():
        return Path(root) / card.id
    cached = _cached(card)
    if cached is not None:
        return cached
    raise BackboneError(
        f"the weights of {card.id} are not on this machine ({card.source.repo}, "
        f"{size_text(card.source.download_bytes)}): run `emerge3d backbones {card.id} --download`, "
        f"or give a folder that holds them with --weights DIR or {VARIABLE}"
    )


def is_here(card: BackboneCard) -> bool:
    """Whether a backbone can be loaded without fetching anything."""
    if card.source is None:
        return True
    try:
        find_weights(card)
    except BackboneError:
        return False
    return True


def _cached(card: BackboneCard) -> Path | None:
    from huggingface_hub import snapshot_download

    source = card.source
    if source is None:
        return None
    try:
        found = snapshot_download(
            source.repo, allow_patterns=list(source.files), local_files_only=True
        )
    except (OSError, ValueError):  # the hub's LocalEntryNotFoundError is both
        return None
    folder = Path(found)
    whole = all(any(folder.glob(pattern)) for pattern in source.files)
    return folder if whole else None


def download(card: BackboneCard) -> Path:
    """Fetch a model's files into the hub's cache; what is there already is kept.

    Raises:
        BackboneError: no network, offline mode, an unknown or gated repository; with what to do.
    """
    from huggingface_hub import errors as hub
    from huggingface_hub import snapshot_download

    source = card.source
    if source is None:
        raise BackboneError(f"{card.id} comes with the package: there is nothing to download")
    by_hand = (
        f"on a machine with access: hf download {source.repo} --local-dir DIR; "
        "then give --weights DIR here"
    )
    try:
        return Path(snapshot_download(source.repo, allow_patterns=list(source.files)))
    except hub.GatedRepoError:
        reason = (
            f"{source.repo} is gated: accept its licence at https://huggingface.co/{source.repo}, "
            "then run `hf auth login` and try again"
        )
    except hub.RepositoryNotFoundError:
        reason = f"{source.repo} is not on the hub, or is private: `hf auth login` may help"
    except hub.OfflineModeIsEnabled:
        reason = f"HF_HUB_OFFLINE is set, so nothing is fetched: unset it, or {by_hand}"
    except (OSError, ValueError) as error:
        cause = " ".join(str(error).split())[:200]
        reason = f"{source.repo} could not be fetched ({cause}): try again, or {by_hand}"
    raise BackboneError(reason)


def fingerprint(paths: Sequence[Path], root: Path) -> str:
    """sha256 that identifies files of any size within seconds.

    Names, sizes and all bytes of files up to 64 MiB; of larger ones the first and last 256 KiB and
    62 blocks of as much spread evenly between them. Two releases of one model differ there.
    """
    digest = hashlib.sha256()
    for path in sorted(paths):
        size = path.stat().st_size
        digest.update(f"{path.relative_to(root).as_posix()}\0{size}\0".encode())
        with path.open("rb") as file:
            if size <= _WHOLE:
                while block := file.read(1 << 20):
                    digest.update(block)
                continue
            for index in range(_BLOCKS):
                file.seek((size - _BLOCK) * index // (_BLOCKS - 1))
                digest.update(file.read(_BLOCK))
    return digest.hexdigest()


def size_text(count: int) -> str:
    """A number of bytes for people."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
