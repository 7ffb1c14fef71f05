"""The command line: `emerge3d app | look | sweep | prepare | train | eval | export | ...`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import tyro

from explorer.commands.app import App
from explorer.commands.backbones import Backbones
from explorer.commands.doctor import Doctor
from explorer.commands.eval import Eval
from explorer.commands.export import Export
from explorer.commands.look import Look
from explorer.commands.prepare import Prepare
from explorer.commands.references import References
from explorer.commands.sweep import Sweep
from explorer.commands.train import Train
from explorer.commands.view import View
from explorer.errors import EmergeError

BAD_INPUT = 2  # also what tyro exits with when the options themselves are wrong
INTERRUPTED = 130
NOT_READ = 141  # what a shell says of a command whose reader, `head` for example, had enough

Command = (
    App | Look | Sweep | Prepare | Train | Eval | Export | View | Backbones | References | Doctor
)


def parse(argv: Sequence[str] | None = None) -> Command:
    """The subcommand with its options; wrong ones and `--help` end the process, as argparse does.

    Raises:
        SystemExit: status 2 for wrong options, 0 for `--help`.
    """
    command: Command = tyro.cli(
        Command,
        prog="emerge3d",
        description="Where 3D emerges inside video foundation models.",
        args=argv,
        config=(tyro.conf.OmitSubcommandPrefixes, tyro.conf.FlagCreatePairsOff),
    )
    return command


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand; a user's mistake becomes one line on stderr and exit status 2."""
    try:
        status = parse(argv).run()
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        # Python flushes stdout again at its end, into something that takes it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return NOT_READ
    except EmergeError as error:
        print(f"emerge3d: {error}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        return INTERRUPTED


if __name__ == "__main__":
    raise SystemExit(main())
