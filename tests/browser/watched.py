"""What a process reaches for beyond this machine, written to its standard error.

A look-up of a name counts, and so does an attempt that fails: a machine without a network has to
notice it too. Connections that no Python code opens, and those of other processes, are not seen.
"""

from __future__ import annotations

import ipaddress
import sys
from typing import Any

WATCHED = "what leaves this machine is written here"
LEAVES = "leaves this machine:"


def watch() -> None:
    """From now on, for as long as the process lives."""

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        host: Any = None
        if event in ("socket.connect", "socket.sendto"):
            address = arguments[1]  # of the internet a tuple, of this machine the name of a file
            host = address[0] if isinstance(address, tuple) else None
        elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
            host = arguments[0]
        if host is not None and not _here(host):
            print(LEAVES, event, host, file=sys.stderr, flush=True)

    sys.addaudithook(hook)
    print(WATCHED, file=sys.stderr, flush=True)


def _here(host: Any) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host in ("", "localhost")
