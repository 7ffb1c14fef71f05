"""`python -m app`: serve the page on this machine."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
from collections.abc import Sequence

LOCAL = ("127.0.0.1", "localhost")


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and serve until interrupted; the exit status."""
    parser = argparse.ArgumentParser(prog="emerge3d app", description="Serve the Emerge3D page.")
    parser.add_argument("--port", type=int, default=7860, help="0 takes a free one")
    parser.add_argument(
        "--host", default="127.0.0.1", help="another address lets other machines connect"
    )
    parser.add_argument(
        "--allowed-host",
        action="append",
        default=[],
        metavar="NAME",
        help="a further host name that the page is asked for under, e.g. of this machine",
    )
    options = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    if options.host not in LOCAL:
        print(
            f"Warning: {options.host} can be reached by other machines, and the page has no "
            "password. An ssh tunnel to 127.0.0.1 is safer.",
            file=sys.stderr,
        )
    from app.server import serve

    # A terminated server removes its temporary folders as an interrupted one does.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        return serve(host=options.host, port=options.port, allowed_hosts=options.allowed_host)
    except KeyboardInterrupt:
        return 0


if __name__ == "__main__":
    raise SystemExit(main())
