"""
`bizlog dev`: servers for developing without the cloud.

`bizlog dev eventhubs` serves a loopback Event Hubs until it is told to end. It keeps
everything in memory; nothing here is meant for production.
"""

from __future__ import annotations

import argparse
import json
import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from bizlog.cli.arguments import positive_int
from bizlog.cli.errors import CommandError
from bizlog.cli.tables import counted

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator

    from bizlog.dev.eventhubs import LoopbackEventHubs

DEFAULT_HUB = ("events", 4)
DEFAULT_PORT = 5672
DEFAULT_RETAIN_MIB = 512
MAX_PARTITIONS = 2048  # as many as the service has for a hub
MAX_PORT = 65_535
_MIB = 1024 * 1024

DESCRIPTION = """\
Serve an Event Hubs namespace on this machine, for the real SDKs, until Ctrl-C.

It speaks AMQP on 127.0.0.1 alone, takes every token and keeps events in memory: they
are gone when it ends. bizlog/dev/eventhubs/README.md says what else it is not.
"""
EPILOG = """\
examples:
  bizlog dev eventhubs
  bizlog dev eventhubs --hub orders:8 --hub clicks:2 --retain-mib 64
  bizlog dev eventhubs --port 0 --json

exit codes: 0 ended by Ctrl-C or SIGTERM; 2 could not start
"""


def add_to(commands: Any) -> None:
    """Add the command to the parser's."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "dev", help="serve what the cloud serves, on this machine"
    )
    parser.set_defaults(run=None)
    servers = parser.add_subparsers(title="servers", metavar="SERVER", required=True)
    eventhubs = servers.add_parser(
        "eventhubs",
        help="a loopback Event Hubs",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_arguments(eventhubs)
    eventhubs.set_defaults(run=run)


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--hub",
        action="append",
        type=hub_and_partitions,
        metavar="NAME:PARTITIONS",
        help="a hub, may be repeated (default: events:4)",
    )
    parser.add_argument(
        "--port",
        type=port_number,
        default=DEFAULT_PORT,
        help=f"where it listens; 0 takes a free port (default: {DEFAULT_PORT})",
    )
    parser.add_argument(
        "--tls", action="store_true", help="speak TLS, with a self-made certificate"
    )
    parser.add_argument(
        "--retain-mib",
        type=positive_int,
        default=DEFAULT_RETAIN_MIB,
        metavar="N",
        help="how much is kept, in MiB; the oldest events go "
        f"(default: {DEFAULT_RETAIN_MIB})",
    )
    parser.add_argument(
        "--delay-ms",
        type=positive_int,
        metavar="N",
        help="hold each answer to a producer back, as a long way there would",
    )
    parser.add_argument(
        "--json", action="store_true", help="print JSON, one line at start and at end"
    )


def hub_and_partitions(text: str) -> tuple[str, int]:
    """Read a hub: its name and how many partitions it has."""
    name, _, count = text.partition(":")
    if not name or "/" in name or not count.isdigit():
        raise argparse.ArgumentTypeError(f"expected NAME:PARTITIONS, got {text}")
    if not 1 <= int(count) <= MAX_PARTITIONS:
        message = f"a hub has 1 to {MAX_PARTITIONS} partitions, got {count}"
        raise argparse.ArgumentTypeError(message)
    return name, int(count)


def port_number(text: str) -> int:
    """Read a port, or 0 for a free one."""
    port = int(text)
    if not 0 <= port <= MAX_PORT:
        raise argparse.ArgumentTypeError(f"expected 0 to {MAX_PORT}, got {text}")
    return port


def run(arguments: argparse.Namespace) -> int:
    """Serve until a signal comes, then say what was stored."""
    from bizlog.dev.eventhubs import Fault, LoopbackEventHubs  # noqa: PLC0415  # an extra

    names: dict[str, int] = dict(arguments.hub or [DEFAULT_HUB])
    server = LoopbackEventHubs(
        names,
        port=arguments.port,
        tls=arguments.tls,
        retain_bytes=arguments.retain_mib * _MIB,
    )
    if arguments.delay_ms is not None:
        server.inject(Fault.delay(arguments.delay_ms / 1000))
    with _until_told() as told, _started(server):
        _print(arguments.json, _as_json(server), _as_text(server, names))
        told.wait()
    stored = {name: server.count(name) for name in names}
    lines = [f"{name}: {counted(n, 'event')} stored" for name, n in stored.items()]
    _print(arguments.json, {"stored": stored}, lines)
    return 0


@contextmanager
def _started(server: LoopbackEventHubs) -> Generator[None]:
    try:
        server.start()
    except OSError as error:
        raise CommandError(f"port {server.port} cannot be used: {error}") from None
    try:
        yield
    finally:
        server.stop()


@contextmanager
def _until_told() -> Generator[threading.Event]:
    """Catch Ctrl-C and SIGTERM: both mean to end, and neither is an error here."""
    told = threading.Event()

    def tell(_number: int, _frame: object) -> None:
        told.set()

    before = {
        number: signal.signal(number, tell)
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield told
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _print(
    as_json: bool,  # noqa: FBT001  # the flag --json itself
    told: dict[str, Any],
    lines: Iterable[str],
) -> None:
    text = json.dumps(told) if as_json else "\n".join(lines)
    print(text, flush=True)


def _as_json(server: LoopbackEventHubs) -> dict[str, Any]:
    told = {"port": server.port, "connection_string": server.connection_string}
    if server.tls:
        told |= {"endpoint": server.endpoint, "ca_file": str(server.ca_file)}
    return told


def _as_text(server: LoopbackEventHubs, names: dict[str, int]) -> Iterator[str]:
    hubs = ", ".join(f"{name} ({n})" for name, n in names.items())
    yield f"Event Hubs on 127.0.0.1:{server.port}: {hubs}; Ctrl-C ends it"
    yield ""
    yield f"connection string  {server.connection_string}"
    if server.tls:
        yield f"endpoint           {server.endpoint}"
        yield f"certificate        {server.ca_file}"
    yield ""
    yield "for bizlog:"
    yield f"  export BIZLOG_EVENTHUB_CONNECTION_STRING='{server.connection_string}'"
    sinks = ",".join(f"eventhub://localhost:{server.port}/{name}" for name in names)
    yield f"  export BIZLOG_SINKS={sinks}"
