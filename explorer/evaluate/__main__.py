"""`python -m explorer.evaluate`: where there is no `emerge3d`, as on a bare GPU machine."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from explorer.errors import EmergeError
from explorer.evaluate import run_command


def main(argv: Sequence[str] | None = None) -> int:
    """The command line of a machine that has no more than the listed packages."""
    parser = argparse.ArgumentParser(
        prog="python -m explorer.evaluate", description="Evaluate probes on held-out scenes."
    )
    parser.add_argument("--clips", type=int, help="default: 500 on a GPU, 16 on a processor")
    parser.add_argument(
        "--cells", help="backbone:layer:sigma,..., or all (default on a GPU), or subset"
    )
    parser.add_argument("--device", default="auto")
    parser.add_argument("--proxies", action="store_true", help="also the training-free proxies")
    parser.add_argument("--part", default="1/1", help="2/4: the second of four parts of the scenes")
    parser.add_argument("--join", type=Path, nargs="+", default=[], help="results of all parts")
    parser.add_argument("--out", type=Path, help="JSON file of the result")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args(argv)
    try:
        run_command(
            clips=options.clips,
            cells=options.cells,
            device=options.device,
            proxies=options.proxies,
            part=options.part,
            joined=options.join,
            out=options.out,
            as_json=options.json,
            show=print,
            note=lambda text: print(text, file=sys.stderr, flush=True),
        )
    except EmergeError as error:
        print(f"evaluate: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
