"""One network at a time: two of them, or two passes of one, may not fit beside each other."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from explorer.backbones.base import stop_check

_lock = threading.Lock()


@contextmanager
def turn(should_stop: Callable[[], bool]) -> Iterator[None]:
    """Wait until no other reference computes with a network.

    Raises:
        Cancelled: `should_stop` became true before.
    """
    while not _lock.acquire(timeout=0.05):
        stop_check(should_stop)
    try:
        stop_check(should_stop)
        yield
    finally:
        _lock.release()


@contextmanager
def idle() -> Iterator[bool]:
    """Whether no reference computes with a network; none begins to while that is so."""
    nobody = _lock.acquire(blocking=False)
    try:
        yield nobody
    finally:
        if nobody:
            _lock.release()
