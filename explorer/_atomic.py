"""Files that are the old one or the new one at any time, also when the power fails.

New content goes to a temporary file `.<name>.<random>.tmp` in the same folder, reaches the disk,
and takes the place of the old file in one step. A killed writer leaves its temporary file, nothing
else.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

SUFFIX = ".tmp"
MODE = 0o644
"""Permissions of new files, less those that the umask takes away."""


def replace_file(path: Path, content: bytes) -> None:
    """Write a whole file.

    Raises:
        OSError: the folder is missing, full or read-only; the old file is still there.
    """
    with replacing(path) as temporary:
        temporary.write_bytes(content)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """An empty temporary file to write by its name; it becomes `path` when the block ends.

    After an exception in the block, the temporary file is gone and `path` as before.

    Raises:
        OSError: the folder is missing, full or read-only; the old file is still there.
    """
    temporary = begin(path)
    try:
        mode = temporary.stat().st_mode
        yield temporary
        # A writer such as safetensors makes the file anew, for its owner alone.
        os.chmod(temporary, stat.S_IMODE(mode))
        finish(temporary, path)
    except BaseException:
        discard(temporary)
        raise


def begin(path: Path) -> Path:
    """Make the empty temporary file for a writer that outlives a block.

    The writer ends with `finish` or `discard`.
    """
    # Shortened, because the name of `path` may already be as long as names can be.
    name = f".{path.name[:32]}.{os.getpid()}-{secrets.token_hex(4)}{SUFFIX}"
    temporary = path.with_name(name)
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, MODE))
    return temporary


def finish(temporary: Path, path: Path) -> None:
    """Bring what was written to the disk, and put it in the place of `path`."""
    with temporary.open("rb+") as file:
        os.fsync(file.fileno())
    os.replace(temporary, path)
    if os.name == "posix":
        # Without this the rename itself may be lost when the power fails.
        with suppress(OSError):  # some network drives cannot; the file is in its place all the same
            _sync_folder(path.parent)


def discard(temporary: Path) -> None:
    """Leave nothing behind; quiet, so that it hides no error on whose account it is called."""
    with suppress(OSError):
        temporary.unlink(missing_ok=True)


def lock(file: IO[Any]) -> bool:
    """Whether an open file is this process's own until it closes it or dies.

    Where there are no such locks, one writer is the user's care.
    """
    try:
        import fcntl
    except ImportError:  # not a POSIX system
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
