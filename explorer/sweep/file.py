"""The file of a sweep: a header, then one line of JSON for each clip, cell and seed.

The lines of a pass are appended together and brought to the disk before the next pass begins, so
that a killed sweep loses the pass in hand alone; what it has left of a line is cut off when the
file is opened again.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from explorer._atomic import lock
from explorer.errors import SweepError

FORMAT = "emerge3d-sweep-1"

Row = dict[str, Any]
Key = tuple[str, str, int, float, int]


def key_of(row: Row) -> Key:
    """What tells a line from all others: clip, backbone, layer, sigma, seed."""
    return row["clip"], row["backbone"], row["layer"], row["sigma"], row["seed"]


class SweepFile:
    """An open file of a sweep, to which this process alone writes.

    Args:
        path: made with its folder where it is not there.
        options: of the sweep, ready for JSON.
        about: further entries of a new file's header.

    Attributes:
        rows: every line, by what it measures.

    Raises:
        SweepError: the file is none of a sweep, was begun with other options, is damaged, in use by
            another process, or cannot be written.
    """

    def __init__(self, path: Path, options: dict[str, Any], about: dict[str, Any]) -> None:
        self.path = path
        self.rows: dict[Key, Row] = {}
        self._made_of: dict[tuple[Any, ...], str | None] = {}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Without a buffer, what did not fit on the disk is not tried again at closing.
            self._file = path.open("a+b", buffering=0)
        except OSError as error:
            raise self._unwritable(error) from error
        try:
            self._take()
            # Begun in its place: a file put there could take the place of another process's.
            if not self._file.seek(0, os.SEEK_END):
                self._write(_line({"format": FORMAT, "options": options, **about}))
            self._read(options)
        except BaseException:
            self._file.close()
            raise

    def append(self, rows: Sequence[Row]) -> None:
        """Add the lines of a pass, all of them or none.

        Raises:
            SweepError: they cannot be written, or earlier lines are of another video of this name,
                other weights or another probe; the file is as it was.
        """
        for row in rows:
            self._check_same(row)
        self._write(b"".join(map(_line, rows)))
        for row in rows:
            self._keep(row)

    def close(self) -> None:
        """Give the file up."""
        self._file.close()

    def _take(self) -> None:
        try:
            mine = lock(self._file)
        except OSError as error:
            raise self._unwritable(error) from error
        if not mine:
            raise SweepError(f"another process is writing {self.path}: wait for it or stop it")

    def _write(self, content: bytes) -> None:
        """Put this at the end and bring it to the disk, all of it or nothing."""
        begin = self._file.seek(0, os.SEEK_END)
        try:
            if self._file.write(content) < len(content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(self._file.fileno())
        except OSError as error:
            self._file.truncate(begin)
            raise self._unwritable(error) from error

    def _read(self, options: dict[str, Any]) -> None:
        self._file.seek(0)
        whole, end, _ = self._file.read().rpartition(b"\n")
        header, *lines = whole.split(b"\n")
        try:
            found = json.loads(header)
            begun = found["options"] if found["format"] == FORMAT else None
        except (ValueError, KeyError, TypeError):
            begun = None
        if begun is None:
            raise SweepError(f"{self.path} is not the file of a sweep: choose another --out")
        self._check(begun, json.loads(json.dumps(options)))
        for number, line in enumerate(lines, start=2):
            try:
                self._keep(json.loads(line))
            except (ValueError, KeyError, TypeError) as error:
                raise SweepError(
                    f"line {number} of {self.path} is damaged ({error!r}): remove this line, and "
                    "the same command measures it again"
                ) from error
        self._file.truncate(len(whole) + len(end))

    def _check(self, begun: dict[str, Any], options: dict[str, Any]) -> None:
        for name in {**begun, **options}:
            before, now = begun.get(name), options.get(name)
            if before != now:
                raise SweepError(
                    f"{self.path} was begun with {name} {_said(before)}, not {_said(now)}: give "
                    "the same options to go on with it, or another --out"
                )

    def _keep(self, row: Row) -> None:
        self.rows[key_of(row)] = row
        self._made_of |= {kind: value for kind, value, _ in _ingredients(row)}

    def _check_same(self, row: Row) -> None:
        for kind, now, name in _ingredients(row):
            if self._made_of.get(kind, now) != now:
                raise SweepError(
                    f"{self.path} has lines from before {name} changed: choose another --out"
                )

    def _unwritable(self, error: OSError) -> SweepError:
        return SweepError(
            f"{self.path} cannot be written ({error}): make room, or choose another --out"
        )


def _ingredients(row: Row) -> Iterator[tuple[tuple[Any, ...], str | None, str]]:
    """(for which lines it is the same, its hash, its name) of all that lines are made of."""
    clip, backbone, layer, sigma, _ = key_of(row)
    yield (clip, backbone), row["content_hash"], f"the video {clip}"
    yield (backbone,), row["backbone_hash"], f"the weights of {backbone}"
    yield (
        (backbone, layer, sigma),
        row["probe"],
        f"the probe of {backbone}:{layer}:{sigma:g}",
    )


def _line(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, allow_nan=False) + "\n").encode()


def _said(value: Any) -> str:
    return ", ".join(map(str, value)) or "none" if isinstance(value, list) else str(value)
