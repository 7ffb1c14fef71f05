"""Large files that grow by whole clips and survive a kill at any moment.

A shard is a tar file, so that anybody's tools can open it, with a JSON index beside it. A clip's
bytes are appended and reach the disk first; then the index that names them is replaced. What lies
behind the end that the index states was never finished: it is cut off before the next clip is
written, and nobody reads it.
"""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from explorer._atomic import replace_file
from explorer.errors import DatasetError

FORMAT = "emerge3d-shard-1"
_BLOCK = tarfile.BLOCKSIZE
_END = bytes(2 * _BLOCK)  # how a tar file ends

Table = list[list[int]]
"""[offset, bytes, crc32] of each member, offsets from the end of the record."""


def pack(prefix: str, members: Sequence[tuple[str, bytes]]) -> tuple[bytes, Table]:
    """Files as a piece of a tar file, and where each one's bytes are in it.

    Args:
        prefix: of all names; tools that read shards put what shares it together.
        members: rest of the name, content.
    """
    parts: list[bytes] = []
    table: Table = []
    position = 0
    for name, data in members:
        header = tarfile.TarInfo(f"{prefix}.{name}")  # without a time: same clip, same bytes
        header.size = len(data)
        table.append([position + _BLOCK, len(data), zlib.crc32(data)])
        piece = header.tobuf(format=tarfile.USTAR_FORMAT) + data + bytes(-len(data) % _BLOCK)
        parts.append(piece)
        position += len(piece)
    return b"".join(parts), table


@dataclass(frozen=True)
class Segment:
    """A clip as a piece of a tar file.

    Attributes:
        data: the bytes, first the record as `PREFIX.clip.json`.
        record_bytes, record_crc32: of the record.
    """

    data: bytes
    record_bytes: int
    record_crc32: int

    @classmethod
    def of(
        cls, prefix: str, record: dict[str, Any], payload: dict[str, list[tuple[str, bytes]]]
    ) -> Segment:
        """Pack a clip.

        Args:
            prefix: of its members' names.
            record: what is needed to decode it; gets a "members" table.
            payload: (name, content) of its members by kind.
        """
        packed, table = pack(prefix, [each for members in payload.values() for each in members])
        rows = iter(table)
        members = {kind: [next(rows) for _ in each] for kind, each in payload.items()}
        text = json.dumps({**record, "members": members}, sort_keys=True, allow_nan=False).encode()
        return cls(pack(prefix, [("clip.json", text)])[0] + packed, len(text), zlib.crc32(text))


class Shard:
    """One tar file and its index.

    Args:
        root: folder of the store.
        number: of the shard.

    Raises:
        DatasetError: the index is broken, or the tar file is shorter than it says.
    """

    def __init__(self, root: Path, number: int) -> None:
        self.path = root / f"shard-{number:05d}.tar"
        self.index = self.path.with_suffix(".json")
        self.number = number
        self.bytes = 0
        self.clips: list[dict[str, Any]] = []
        if self.index.is_file():
            self._read_index()

    def _read_index(self) -> None:
        try:
            values = json.loads(self.index.read_text())
            if values["format"] != FORMAT:
                raise ValueError(f"format {values['format']!r}")
            self.bytes, self.clips = int(values["bytes"]), list(values["clips"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DatasetError(
                f"{self.index} is no index of a shard ({error!r}): restore it, or remove it and "
                "prepare its clips again"
            ) from None
        size = self.path.stat().st_size if self.path.is_file() else 0
        if size < self.bytes:
            raise DatasetError(
                f"{self.path} has {size} bytes and its index speaks of {self.bytes}: restore it, "
                f"or remove {self.index.name} and prepare its clips again"
            )

    def has_room(self, segment: Segment, most: int) -> bool:
        """Whether the tar file would have at most so many bytes with one more clip."""
        return self.bytes + len(segment.data) + len(_END) <= most

    def append(self, segment: Segment, entry: dict[str, Any]) -> None:
        """Add a clip: on disk as a whole when this returns, absent after a kill before.

        Args:
            segment: the clip.
            entry: what the index says about it besides where it is.

        Raises:
            OSError: the disk is full or read-only; the shard is as before.
        """
        self._write(segment.data)
        place = {
            "offset": self.bytes,
            "bytes": len(segment.data),
            "record_bytes": segment.record_bytes,
            "record_crc32": segment.record_crc32,
            "sha256": hashlib.sha256(segment.data).hexdigest(),
        }
        clips = [*self.clips, {**entry, **place}]
        end = self.bytes + len(segment.data)
        values = {"format": FORMAT, "bytes": end, "clips": clips}
        replace_file(self.index, (json.dumps(values, indent=1) + "\n").encode())
        self.bytes, self.clips = end, clips

    def _write(self, data: bytes) -> None:
        new = not self.path.exists()
        with self.path.open("wb" if new else "r+b") as file:
            file.truncate(self.bytes)
            file.seek(self.bytes)
            file.write(data)
            file.write(_END)
            file.flush()
            os.fsync(file.fileno())

    def read_record(self, entry: dict[str, Any]) -> dict[str, Any]:
        """The record of a clip.

        Raises:
            DatasetError: its bytes are not those that were written, or cannot be read.
        """
        place = [_BLOCK, entry["record_bytes"], entry["record_crc32"]]
        record: dict[str, Any] = json.loads(self._read(int(entry["offset"]), [place])[0])
        return record

    def read(self, entry: dict[str, Any], members: Table) -> list[bytes]:
        """The content of members of a clip.

        Raises:
            DatasetError: the bytes are not those that were written, or cannot be read.
        """
        text = int(entry["record_bytes"])
        start = int(entry["offset"]) + _BLOCK + text + -text % _BLOCK
        return self._read(start, members)

    def _read(self, start: int, members: Table) -> list[bytes]:
        found = []
        try:
            with self.path.open("rb") as file:
                for offset, size, _ in members:
                    file.seek(start + offset)
                    found.append(file.read(size))
        except OSError as error:
            raise DatasetError(f"{self.path} cannot be read ({error}): restore it") from error
        for data, (_, _, crc32) in zip(found, members, strict=True):
            if zlib.crc32(data) != crc32:
                raise self.damaged()
        return found

    def verify(self, entry: dict[str, Any]) -> None:
        """Read all bytes of a clip.

        Raises:
            DatasetError: they are not those that were written, or cannot be read.
        """
        try:
            with self.path.open("rb") as file:
                file.seek(int(entry["offset"]))
                data = file.read(int(entry["bytes"]))
        except OSError as error:
            raise DatasetError(f"{self.path} cannot be read ({error}): restore it") from error
        if hashlib.sha256(data).hexdigest() != entry["sha256"]:
            raise self.damaged()

    def damaged(self) -> DatasetError:
        """The error of bytes that have changed."""
        return DatasetError(
            f"{self.path} has changed since it was written: restore it, or remove it and "
            f"{self.index.name}, and prepare its clips again"
        )


def open_shards(root: Path) -> list[Shard]:
    """All shards that hold clips, in order; cheap: only indices are read.

    Raises:
        DatasetError: an index is broken, or a tar file shorter than its index says.
    """
    numbers = sorted(int(path.stem.removeprefix("shard-")) for path in root.glob("shard-*.json"))
    return [Shard(root, number) for number in numbers]
