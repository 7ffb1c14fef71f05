"""A content-addressed cache of arrays: latents, features, reconstructions.

The key is everything that determines the arrays; equal keys mean equal arrays, so an entry never
changes. A file becomes visible only when it is whole (temporary name, fsync, rename), so that any
number of threads and processes can read and write one store. A broken file counts as absent.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import struct
import threading
import time
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from explorer._atomic import SUFFIX, replace_file

log = logging.getLogger(__name__)

_HEADER = "emerge3d"  # our entry among a safetensors file's metadata
_KIND = re.compile(r"[a-z0-9][a-z0-9_-]*")
_STALE = 3600.0  # seconds after which a temporary file must belong to a dead writer

Arrays = dict[str, np.ndarray]


def default_root() -> Path:
    """Where the cache lives: $EMERGE3D_CACHE, else cache/store of a checkout, else `emerge3d` in
    $XDG_CACHE_HOME or ~/.cache.
    """
    configured = os.environ.get("EMERGE3D_CACHE")
    if configured:
        return Path(configured).expanduser()
    checkout = Path(__file__).resolve().parents[1]
    if (checkout / "pyproject.toml").is_file() and (checkout / "cache").is_dir():
        return checkout / "cache" / "store"
    named = Path(os.environ.get("XDG_CACHE_HOME", ""))
    # The XDG base directory specification: a relative path counts as unset.
    return (named if named.is_absolute() else Path.home() / ".cache") / "emerge3d"


def canonical_json(value: Any) -> str:
    """The one JSON text of a value: sorted keys, no spaces; numpy scalars count as numbers.

    Raises:
        TypeError: something JSON cannot hold, or a dictionary key that is not a string.
        ValueError: a number that is not finite.
    """
    return json.dumps(_plain(value), sort_keys=True, separators=(",", ":"), allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        # json.dumps would turn 1 and "1" into the same key without a word.
        if not all(isinstance(name, str) for name in value):
            raise TypeError(f"keys must be strings; got {list(value)}")
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    return value


class Store:
    """Arrays on disk, found by what determines them.

    Args:
        root: folder of the store; made when first needed. None: `default_root()`.
        max_bytes: the store drops its least recently used entries to stay near this size.
    """

    def __init__(self, root: Path | str | None = None, *, max_bytes: int = 8 << 30) -> None:
        self.root = Path(root) if root is not None else default_root()
        self.max_bytes = max_bytes
        self._written: int | None = None  # bytes since the last prune; None before the first
        self._lock = threading.Lock()

    def digest(self, kind: str, key: Mapping[str, Any]) -> str:
        """sha256 of the canonical JSON of kind and key. Raises TypeError or ValueError."""
        if not _KIND.fullmatch(kind):
            raise ValueError(f"kind {kind!r}: use lower-case letters, digits, - and _")
        return hashlib.sha256(canonical_json({"kind": kind, "key": key}).encode()).hexdigest()

    def path(self, kind: str, key: Mapping[str, Any]) -> Path:
        """The file that holds, or would hold, this entry."""
        digest = self.digest(kind, key)
        return self.root / kind / digest[:2] / f"{digest}.safetensors"

    def get(self, kind: str, key: Mapping[str, Any]) -> tuple[Arrays, dict[str, Any]] | None:
        """(arrays, meta) as they were put, or None. A broken file is removed with a warning."""
        path = self.path(kind, key)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            log.warning("cannot read %s (%s): treated as absent", path, error)
            return None
        try:
            found = _unpack(data, self.digest(kind, key))
        except Exception as error:  # any failure to parse means the same: this file is broken
            log.warning("removing the broken cache file %s (%s)", path, error)
            _remove(path)
            return None
        try:
            os.utime(path)  # mtime is the time of last use; many systems do not keep atime
        except OSError:
            pass  # pruned by another process, or a read-only store: the data is in hand
        return found

    def put(
        self,
        kind: str,
        key: Mapping[str, Any],
        arrays: Mapping[str, np.ndarray],
        meta: Mapping[str, Any] | None = None,
    ) -> bool:
        """Keep arrays under a key; True when they are on disk.

        A full or read-only disk costs the cache, not the work: it is logged and False returned.

        Raises:
            TypeError, ValueError: a key, meta or dtype that cannot be stored.
        """
        path = self.path(kind, key)
        data = _pack(self.digest(kind, key), arrays, {} if meta is None else meta)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(path, data)
        except OSError as error:
            log.warning("cannot cache %s in %s: %s", kind, self.root, error)
            return False
        with self._lock:
            self._written = None if self._written is None else self._written + len(data)
            due = self._written is None or self._written > self.max_bytes // 16
            if due:
                self._written = 0
        if due:
            self.prune(self.max_bytes)
        return True

    def size(self) -> int:
        """Bytes of all entries."""
        return sum(size for _, size, _ in self._entries())

    def prune(self, max_bytes: int) -> int:
        """Remove the least recently used entries until at most `max_bytes` are left.

        Also removes temporary files that a killed writer left behind. Returns the bytes removed.
        """
        for leftover in self.root.glob(f"*/*/*{SUFFIX}"):
            try:
                if time.time() - leftover.stat().st_mtime > _STALE:
                    _remove(leftover)
            except OSError:
                continue  # its writer has just renamed it
        entries = sorted(self._entries(), key=lambda entry: (entry[0], entry[2]))
        excess = sum(size for _, size, _ in entries) - max_bytes
        removed = 0
        for _, size, path in entries:
            if removed >= excess:
                break
            _remove(path)
            removed += size
        return removed

    def _entries(self) -> list[tuple[int, int, Path]]:
        entries = []
        for path in self.root.glob("*/*/*.safetensors"):
            try:
                status = path.stat()
            except OSError:
                continue  # removed by another process since the listing
            entries.append((status.st_mtime_ns, status.st_size, path))
        return entries


def _checksum(array: np.ndarray) -> int:
    return zlib.crc32(array.tobytes())


def _pack(digest: str, arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> bytes:
    from safetensors.numpy import save

    owned = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    for name, array in owned.items():
        if array.dtype.kind not in "fiub" or array.dtype.byteorder == ">":
            raise TypeError(f"array {name!r} has dtype {array.dtype}, which cannot be stored")
    header = {
        "digest": digest,
        "meta": dict(meta),
        "crc32": {name: _checksum(array) for name, array in owned.items()},
    }
    return bytes(save(owned, metadata={_HEADER: canonical_json(header)}))


def _unpack(data: bytes, digest: str) -> tuple[Arrays, dict[str, Any]]:
    from safetensors.numpy import load

    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(json.loads(data[8 : 8 + length])["__metadata__"][_HEADER])
    if header["digest"] != digest:
        raise ValueError("it belongs to another key")
    arrays = {name: np.array(array) for name, array in load(data).items()}
    if {name: _checksum(array) for name, array in arrays.items()} != header["crc32"]:
        raise ValueError("its checksum is wrong")
    meta: dict[str, Any] = header["meta"]
    return arrays, meta


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        log.warning("cannot remove %s: %s", path, error)
