"""
The `bizlog` command: one module for each subcommand, plain errors, no tracebacks.

Exit codes: 0 all went well; 1 the work was done but not everything was in order (the
output says what); 2 the command could not start; 130 ended by Ctrl-C.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING, cast

from bizlog import __version__
from bizlog.cli import (
    dead_letters,
    demo,
    dev,
    doctor,
    gaps,
    journal,
    replay,
    status,
    tail,
)
from bizlog.cli.errors import CommandError
from bizlog.exceptions import BizlogError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["main"]

FAILED = 1
CANNOT_START = 2
INTERRUPTED = 130

COMMANDS = (demo, status, journal, dead_letters, replay, gaps, tail, doctor, dev)

EPILOG = """\
new here? see events flow, then look at them:
  bizlog demo                       a small pet shop, made up, for five seconds
  cat demo-events/*/*/*.jsonl | head -n 2

in operation:
  bizlog status ./journal           what waits, and the ledgers
  bizlog dead-letters ls            what could not be delivered, and why
  bizlog replay ./bizlog-events --from 2h --sink file:./again
  bizlog gaps ./bizlog-events       which events are missing or doubled
  bizlog tail kafka://localhost:9092/events
  bizlog doctor eventhub://NAMESPACE.servicebus.windows.net/HUB
                                    whether events can get there, and why not

without the cloud:
  bizlog dev eventhubs              an Event Hubs on this machine

in a service of your own:
  import bizlog
  log = bizlog.get_logger()
  log.info("product.viewed", product_id="1", product_price=9.99)
"""


def main(argv: Sequence[str] | None = None) -> int:
    """
    Run one command.

    Args:
        argv: The words after `bizlog`; by default those of the process.

    Returns:
        The exit code.
    """
    try:
        return _run(_parser(), argv)
    except (CommandError, BizlogError) as error:
        print(f"bizlog: error: {error}", file=sys.stderr)
        return CANNOT_START
    except KeyboardInterrupt:
        print("bizlog: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader (`| head`) has gone. Python would complain once more at exit when
        # it flushes; its documentation gives this cure.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED


def _run(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> int:
    try:
        arguments = parser.parse_args(argv)
    except SystemExit as ending:  # argparse has said all there is to say
        return int(ending.code or 0)
    run = cast("Callable[[argparse.Namespace], int] | None", arguments.run)
    if run is None:
        parser.print_help(sys.stderr)
        return CANNOT_START
    return run(arguments)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bizlog",
        description="Business telemetry: emit events, see them, account for each one.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"bizlog {__version__}")
    parser.set_defaults(run=None)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for command in COMMANDS:
        command.add_to(commands)
    return parser
