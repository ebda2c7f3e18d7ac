"""
Several sinks as one: fan-out, and routing by event type or by what an event says.

The engine asks for `routes()` and gives each member a lane of its own, so a slow or
dead member holds up no other. Driven by hand the composite sends each member what
belongs to it, all at the same time, and merges the answers; an event that one member
wants again then goes to all of them again.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from bizlog.exceptions import (
    ConfigurationError,
    PermanentSinkError,
    RetryableSinkError,
)
from bizlog.sinks import BaseSink, Batch, Rejection, Route, SendResult, make_sink

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from bizlog.sinks import Record, SeedSink


class CompositeSink(BaseSink):
    """
    Stand for several sinks; has no URL, list several sinks instead.

    `CompositeSink("console:", Route(FileSink("./orders"), "order.*"))` prints every
    event and stores the orders. An event that belongs to no member is accepted.

    Args:
        members: Sinks, sink URLs or tables, which take every event, and routes, which
            take what they match. A sink may stand here once.

    Raises:
        ConfigurationError: There is no member, one of them is no sink, or one sink
            stands here twice.
        MissingExtraError: The packages of a member are not installed.
    """

    def __init__(
        self, *members: BaseSink | SeedSink | str | Mapping[str, Any] | Route
    ) -> None:
        if not members:
            raise ConfigurationError("CompositeSink needs at least one member")
        self._routes = tuple(_as_route(member) for member in members)
        self._lanes = [lane for route in self._routes for lane in route.expand()]
        self._sinks = [lane.sink for lane in self._lanes]
        _check_unique(self._sinks)
        self.max_events = min(sink.max_events for sink in self._sinks)
        self.max_bytes = min(sink.max_bytes for sink in self._sinks)

    def routes(self) -> Sequence[Route]:
        """
        Name the sinks this one stands for.

        Returns:
            One route for each member, in order.
        """
        return self._routes

    async def start(self) -> None:
        """Start every member; if one fails, stop the others and raise its error."""
        started: list[BaseSink] = []
        try:
            for sink in self._sinks:
                await sink.start()
                started.append(sink)
        except BaseException:
            for sink in reversed(started):
                with suppress(Exception):
                    await sink.stop()
            raise

    async def stop(self) -> None:
        """Stop every member, then raise what failed."""
        await self._all("stop")

    async def flush(self) -> None:
        """Flush every member, then raise what failed."""
        await self._all("flush")

    async def _all(self, method: str) -> None:
        calls = (getattr(sink, method)() for sink in self._sinks)
        answers = await asyncio.gather(*calls, return_exceptions=True)
        failures = [
            (sink, answer)
            for sink, answer in zip(self._sinks, answers, strict=True)
            if isinstance(answer, BaseException)
        ]
        if len(failures) == 1:
            raise failures[0][1]
        if failures:
            raise RetryableSinkError(
                "; ".join(_blame(sink, error) for sink, error in failures)
            )

    async def deliver(self, batch: Batch) -> SendResult:
        """
        Send each member the events that belong to it.

        Args:
            batch: The events; no more than the smallest member takes.

        Returns:
            The events that some member wants again, and those that some member
            refused and none wants again.

        Raises:
            RetryableSinkError: Members failed, and every event has to be sent again.
        """
        failures: list[str] = []
        offers = (_offer(lane, batch, failures) for lane in self._lanes)
        merged = _merged(await asyncio.gather(*offers))
        if failures and len(merged.retry) == len(batch.records):
            raise RetryableSinkError("; ".join(failures), merged.retry_after)
        return merged


def _as_route(member: object) -> Route:
    return member if isinstance(member, Route) else Route(make_sink(member))


def _check_unique(sinks: Sequence[BaseSink]) -> None:
    if len({id(sink) for sink in sinks}) < len(sinks):
        raise ConfigurationError(
            "a sink stands twice in a CompositeSink: join its routes into one, such as "
            "Route(sink, ['order.*', 'product.*'])"
        )


def _blame(sink: BaseSink, error: BaseException) -> str:
    return f"{sink.name}: {type(error).__name__}: {error}"


async def _offer(lane: Route, batch: Batch, failures: list[str]) -> SendResult:
    """Ask one member; the answer counts positions in the whole batch."""
    chosen, rejected = _selected(lane, batch.records)
    if not chosen:
        return SendResult(rejected=tuple(rejected))
    part = [batch.records[index] for index in chosen]
    everything = range(len(part))
    try:
        answer = await lane.sink.deliver(
            Batch(batch.journal_id, batch.first, batch.last, part)
        )
    except PermanentSinkError as error:
        answer = SendResult(tuple(Rejection(at, str(error)) for at in everything))
    except Exception as error:  # noqa: BLE001 - what it does not name may pass
        failures.append(_blame(lane.sink, error))
        pause = error.retry_after if isinstance(error, RetryableSinkError) else None
        answer = SendResult(retry=tuple(everything), retry_after=pause)
    rejected += (
        Rejection(chosen[one.index], f"{lane.sink.name}: {one.reason}", one.path)
        for one in answer.rejected
    )
    retry = tuple(chosen[at] for at in answer.retry)
    return SendResult(tuple(rejected), retry, answer.retry_after)


def _selected(
    lane: Route, records: Sequence[Record]
) -> tuple[list[int], list[Rejection]]:
    """Choose by the route; an event at which its predicate raises is rejected."""
    chosen: list[int] = []
    rejected: list[Rejection] = []
    for index, record in enumerate(records):
        try:
            if lane.matches(record):
                chosen.append(index)
        except Exception as error:  # noqa: BLE001 - the predicate is the user's
            reason = f"{lane.sink.name}: its route failed with {type(error).__name__}"
            rejected.append(Rejection(index, reason))
    return chosen, rejected


def _merged(answers: Iterable[SendResult]) -> SendResult:
    """Join answers: who wants an event again outweighs who refuses it."""
    retry: set[int] = set()
    rejected: dict[int, Rejection] = {}
    pauses: list[float] = []
    for answer in answers:
        retry.update(answer.retry)
        pauses += [] if answer.retry_after is None else [answer.retry_after]
        for rejection in answer.rejected:
            rejected.setdefault(rejection.index, rejection)
    refused = tuple(rejected[at] for at in sorted(rejected.keys() - retry))
    return SendResult(refused, tuple(sorted(retry)), max(pauses, default=None))
