"""Finding published weights on this machine, and fetching them when asked. Needs no torch."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from explorer.errors import BackboneError

if TYPE_CHECKING:
    from explorer.backbones._options import Source
    from explorer.backbones.base import BackboneCard

VARIABLE = "EMERGE3D_WEIGHTS"
_WHOLE = 64 * 2**20
_BLOCK = 2**18
_BLOCKS = 64


def find_weights(
    card: BackboneCard,
    weights: Path | None = None,
    *,
    lacks: Callable[[Path], str] = lambda folder: "",
) -> Path:
    """The folder with a model's files: the given one, $EMERGE3D_WEIGHTS/ID, or the hub's cache.

    Nothing is fetched.

    Args:
        card: of the model.
        weights: its folder; None looks where it usually is.
        lacks: says what a folder lacks; asked of the hub's cache, where a download may have been
            interrupted.

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
    cached, shared = _cached(card.source), card.source.shared
    if cached is not None and (shared is None or _cached(shared) is not None):
        reason = lacks(cached)
        if not reason:
            return cached
        raise BackboneError(
            f"the download of {card.id} is not whole: `emerge3d backbones {card.id} --download` "
            f"fetches what is missing ({reason})"
        )
    if card.source.by_address:
        fetch = _by_hand(card)
    elif card.source.gated:
        fetch = f"{_access(card.source.repo)}, then `emerge3d backbones {card.id} --download`"
    else:
        fetch = f"run `emerge3d backbones {card.id} --download`"
    raise BackboneError(
        f"the weights of {card.id} are not on this machine ({_repositories(card.source)}, "
        f"{size_text(card.source.download_bytes)}): {fetch}, "
        f"or give a folder that holds them with --weights DIR or {VARIABLE}"
    )


def _access(repo: str) -> str:
    return (
        f"{repo} is gated: accept its licence at https://huggingface.co/{repo}, "
        "then run `hf auth login`"
    )


def _by_hand(card: BackboneCard) -> str:
    """How to get a file that is in no repository."""
    source = card.source
    if source is None:
        return ""
    return (
        f"fetch {source.repo} by hand into the folder {card.id} of the folder that {VARIABLE} names"
    )


def shared_folder(source: Source, folder: Path) -> Path:
    """Where the parts are that a model takes from another repository.

    Its own folder where one of them is there, else that repository in the hub's cache.

    Raises:
        BackboneError: they are in neither.
    """
    shared = source.shared
    if shared is None:
        return folder
    needed = {pattern.partition("/")[0] for pattern in shared.files if "/" in pattern}
    if any((folder / part).is_dir() for part in needed):
        return folder
    cached = _cached(shared)
    if cached is None:
        raise BackboneError(
            f"{folder} lacks {', '.join(sorted(needed))}: put these folders of {shared.repo} "
            f"beside those of {source.repo}, or run `hf download {shared.repo}`"
        )
    return cached


def _repositories(source: Source) -> str:
    return source.repo if source.shared is None else f"{source.repo} and {source.shared.repo}"


def _cached(source: Source) -> Path | None:
    """The folder of a repository in the hub's cache, whole or not."""
    from huggingface_hub import snapshot_download

    if source.by_address:
        return None
    try:
        found = snapshot_download(source.repo, **_wanted(source), local_files_only=True)
    except (OSError, ValueError):  # the hub's LocalEntryNotFoundError is both
        return None
    return Path(found)


def _wanted(source: Source) -> dict[str, Any]:
    """What of a repository is wanted, for the hub's library."""
    at = {} if source.revision is None else {"revision": source.revision}
    return {"allow_patterns": list(source.files), **at}


def download(card: BackboneCard) -> Path:
    """Fetch a model's files into the hub's cache; what is there already is kept.

    Raises:
        BackboneError: no network, offline mode, an unknown or gated repository; with what to do.
    """
    source = card.source
    if source is None:
        raise BackboneError(f"{card.id} comes with the package: there is nothing to download")
    if source.by_address:
        raise BackboneError(f"{card.id} is in no repository: {_by_hand(card)}")
    if source.shared is not None:
        download(replace(card, source=source.shared))
    return fetch(source)


def fetch(source: Source, *, then: str = "give --weights DIR here") -> Path:
    """Fetch the wanted files of a repository on the Hugging Face hub; the folder that has them.

    Args:
        source: the repository, its revision and the patterns of the files.
        then: what to do with a folder DIR that was fetched elsewhere, in words.

    Raises:
        BackboneError: no network, offline mode, an unknown or gated repository; with what to do.
    """
    from huggingface_hub import errors as hub
    from huggingface_hub import is_offline_mode, snapshot_download

    repo = source.repo
    at = "" if source.revision is None else f" --revision {source.revision}"
    by_hand = f"on a machine with access: hf download {repo}{at} --local-dir DIR; then {then}"
    try:
        return Path(snapshot_download(repo, **_wanted(source)))
    except hub.GatedRepoError:
        reason = f"{_access(repo)} and try again"
    except hub.RepositoryNotFoundError:
        reason = f"{repo} is not on the hub, or is private: `hf auth login` may help"
    except (OSError, ValueError) as error:
        cause = " ".join(str(error).split()).split(". ")[0][:200].rstrip(".")
        reason = f"{repo} could not be fetched ({cause}): try again, or {by_hand}"
        if is_offline_mode():
            reason = f"HF_HUB_OFFLINE is set, so nothing is fetched: unset it, or {by_hand}"
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
