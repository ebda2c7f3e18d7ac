"""
`bizlog doctor`: what has to hold before a sink can deliver, checked step by step.

The sink itself brings the steps (`checks()`, `advice(reason)`) and runs them with its
own configuration, so what is proved here is what a service does. The last step sends
one event, of the type `bizlog.doctor`, through the sink as delivery would.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import shutil
import sys
import textwrap
import time
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

import msgspec
import orjson

from bizlog import __version__
from bizlog._wording import describe_error
from bizlog.cli.errors import CommandError
from bizlog.cli.tables import printable
from bizlog.exceptions import ConfigurationError, SinkError
from bizlog.sinks import BaseSink, Batch, Record, load_sink_class, make_sink
from bizlog.stamps import next_id, next_stamp

if TYPE_CHECKING:
    from collections.abc import (
        AsyncIterator,
        Awaitable,
        Callable,
        Iterable,
        Iterator,
        Sequence,
    )

State: TypeAlias = Literal["ok", "failed", "not done", "left out"]

DEFAULT_SECONDS = 10.0
EVENT_TYPE = "bizlog.doctor"

# A step ends by itself after the time it is given; one that does not is cut after this.
GRACE_SECONDS = 5.0

# Where the text begins that belongs to a step, and how wide it is at least.
INDENT = 32
NARROWEST = 40

DESCRIPTION = """\
Check step by step whether events can reach a sink, with the sink's own settings, and
explain what fails: its likely causes, and what to do about each.

  eventhub://NAMESPACE.servicebus.windows.net/HUB
      configuration, DNS, TCP, TLS, token, hub, and one event
  kafka://HOST:PORT/TOPIC
      configuration, DNS, TCP, TLS, token, topic, and one event
  any other sink URL
      configuration, and one event

The event has the type bizlog.doctor: whoever reads the destination will see it. What
comes after a step that failed is not done. No secret is shown.
"""
EPILOG = """\
examples:
  bizlog doctor eventhub://shop.servicebus.windows.net/orders
  bizlog doctor 'eventhub://shop.servicebus.windows.net/orders?transport=websocket'
  bizlog doctor kafka://localhost:9092/events --no-send --json

exit codes: 0 all is well; 1 a step failed; 2 could not start; 130 ended by Ctrl-C
"""


class Check(Protocol):
    """One step of a sink's."""

    @property
    def name(self) -> str:
        """What is checked."""
        ...

    @property
    def run(self) -> Callable[[float], Awaitable[str]]:
        """Gets its seconds, says what it found; raises where that is not well."""
        ...


class Outcome(msgspec.Struct, frozen=True):
    """
    How a step ended.

    Attributes:
        step: Its name.
        state: Whether all was well.
        seconds: How long it took.
        told: What was found, or why not.
        advice: Likely causes, and what to do about each.
    """

    step: str
    state: State
    seconds: float
    told: str
    advice: tuple[str, ...] = ()


class _Step(msgspec.Struct, frozen=True):
    """A step of the command's own; see `Check`."""

    name: str
    run: Callable[[float], Awaitable[str]]


def add_to(commands: Any) -> None:
    """Add the command to the parser's."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "doctor",
        help="check step by step whether events can reach a sink",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("sink", metavar="URL", help="the sink, as in the setting sinks")
    parser.add_argument(
        "--no-send", action="store_true", help="leave the test event out"
    )
    parser.add_argument(
        "--timeout",
        type=_seconds,
        default=DEFAULT_SECONDS,
        metavar="N",
        help=f"seconds for each step (default {DEFAULT_SECONDS:g})",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected more than 0 seconds, got {text}")
    return value


def run(arguments: argparse.Namespace) -> int:
    """Run the steps, print each as it ends, and say by the exit code if all is well."""
    _find_class(arguments.sink)
    as_json: bool = arguments.json
    outcomes = asyncio.run(_examine(arguments, None if as_json else _print))
    well = all(outcome.state in {"ok", "left out"} for outcome in outcomes)
    if as_json:
        told = {"well": well, "steps": [msgspec.to_builtins(o) for o in outcomes]}
        print(json.dumps(told, indent=2))
    return 0 if well else 1


def _find_class(url: str) -> None:
    """
    Have the URL's scheme known, and its packages installed, before anything begins.

    Raises:
        CommandError: It is no sink URL, or no sink has this scheme.
        MissingExtraError: The sink's packages are not installed.
    """
    scheme = _SCHEME.match(url)
    if scheme is None:  # it may be a connection string, so it is not shown
        raise CommandError(
            "expected a sink URL such as eventhub://NAMESPACE.servicebus.windows.net/"
            "HUB; a connection string goes into the environment (docs/azure.md)"
        )
    try:
        load_sink_class(scheme[1])
    except ConfigurationError as error:
        raise CommandError(f"sink {scheme[1]!r:.40} {error}") from None


_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*):", re.IGNORECASE)


async def _examine(
    arguments: argparse.Namespace, tell: Callable[[Outcome], None] | None
) -> list[Outcome]:
    outcomes: list[Outcome] = []
    async for outcome in _outcomes(arguments):
        outcomes.append(outcome)
        if tell is not None:
            tell(outcome)
    return outcomes


async def _outcomes(arguments: argparse.Namespace) -> AsyncIterator[Outcome]:
    try:
        sink = make_sink(arguments.sink)
    except ConfigurationError as error:
        yield Outcome("configuration", "failed", 0.0, str(error))
        yield Outcome("all others", "not done", 0.0, "configuration failed")
        return
    try:
        async for outcome in _in_turn(sink, arguments):
            yield outcome
    finally:
        await _stop(sink, arguments.timeout)


async def _in_turn(
    sink: BaseSink, arguments: argparse.Namespace
) -> AsyncIterator[Outcome]:
    failed: str | None = None
    for step in _steps(sink):
        if failed is not None:
            yield Outcome(step.name, "not done", 0.0, f"{failed} failed")
        elif step.name == EVENT_STEP and arguments.no_send:
            yield Outcome(step.name, "left out", 0.0, "--no-send")
        else:
            outcome = await _run(step, sink, arguments.timeout)
            failed = step.name if outcome.state == "failed" else None
            yield outcome


EVENT_STEP = "event"


def _steps(sink: BaseSink) -> Iterator[Check]:
    brought: Callable[[], Iterable[Check]] | None = getattr(sink, "checks", None)
    if brought is None:
        yield _Step("configuration", lambda _: _describe(sink))
    else:
        yield from brought()
    yield _Step(EVENT_STEP, lambda _: _send(sink))


async def _describe(sink: BaseSink) -> str:
    return f"the sink {sink.name!r}"


async def _run(step: Check, sink: BaseSink, seconds: float) -> Outcome:
    began = time.monotonic()

    def ended(state: State, told: str, advice: Sequence[str] = ()) -> Outcome:
        took = round(time.monotonic() - began, 3)
        return Outcome(step.name, state, took, told, tuple(advice))

    try:
        async with asyncio.timeout(seconds + _grace(step)):
            return ended("ok", await step.run(seconds))
    except TimeoutError:
        told = f"no answer within {seconds:g} s"
        return ended("failed", told, _advice_of(sink, None, told) or _PATIENCE)
    except Exception as error:  # noqa: BLE001  # whatever a sink meets
        told = str(error) if isinstance(error, SinkError) else describe_error(error)
        return ended("failed", told, _advice_of(sink, error, told))


_PATIENCE = ("the destination may be slow: try --timeout 30",)


def _grace(step: Check) -> float:
    """Give a sink's step a moment to explain; the event's has nothing to add."""
    return 0.0 if step.name == EVENT_STEP else GRACE_SECONDS


def _advice_of(sink: BaseSink, error: Exception | None, reason: str) -> Sequence[str]:
    found: Sequence[str] = getattr(error, "advice", ())
    ask: Callable[[str], Sequence[str]] | None = getattr(sink, "advice", None)
    return found or (ask(reason) if ask is not None else ())


async def _send(sink: BaseSink) -> str:
    """
    Start the sink and have it take one event, as delivery does.

    Raises:
        SinkError: It did not take it.
    """
    await sink.start()
    record = _test_event()
    result = await sink.deliver(Batch(next_id(), 1, 1, [record]))
    if result.rejected:
        raise SinkError(f"the event was refused: {result.rejected[0].reason}")
    if result.retry:
        raise SinkError(f"the event was not taken: {result.retry_reason}")
    await sink.flush()
    return f"acknowledged: {EVENT_TYPE} {record.event_id}"


def _test_event() -> Record:
    event_id, event_time = next_stamp()
    event = {
        "event_id": event_id,
        "event_type": EVENT_TYPE,
        "event_source": "bizlog-doctor",
        "event_time": event_time,
        "environment": "unknown",
        "service_version": __version__,
        "schema_version": 1,
        "producer_id": next_id(),
        "sequence": 1,
    }
    return Record(orjson.dumps(event), event_id, EVENT_TYPE, event_time, 1)


async def _stop(sink: BaseSink, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await sink.stop()
    except Exception:  # noqa: BLE001, S110  # all is told by then, and the process ends
        pass


_MARKS: dict[State, str] = {
    "ok": "ok",
    "failed": "FAILED",
    "not done": "-",
    "left out": "-",
}


def _print(outcome: Outcome) -> None:
    mark = _MARKS[outcome.state]
    told = outcome.told if mark != "-" else f"{outcome.state}: {outcome.told}"
    took = f"{outcome.seconds:.2f} s" if mark != "-" else ""
    first, *more = _wrapped(told)
    print(f"{mark:6}  {outcome.step:13}  {took:>7}  {first}")
    for line in more:
        print(f"{'':{INDENT}}{line}")
    for advice in outcome.advice:
        first, *more = _wrapped(advice, 2)
        print(f"{'':{INDENT}}* {first}")
        for line in more:
            print(f"{'':{INDENT}}  {line}")
    sys.stdout.flush()  # the next step may take its time


def _wrapped(text: str, indent: int = 0) -> list[str]:
    width = max(NARROWEST, shutil.get_terminal_size().columns - INDENT - indent)
    lines = [printable(line) for line in text.splitlines()]
    return [
        part for line in lines for part in textwrap.wrap(line, width, **_WHOLE_WORDS)
    ] or [""]


_WHOLE_WORDS: Any = {"break_long_words": False, "break_on_hyphens": False}
