"""
The metrics for Prometheus: the seed's five, two of the ledger, two of the separation.

bizlog counts in plain numbers. A collector reads them when Prometheus asks, and adds up
all clients of its registry. It takes no lock and keeps no client alive: a scrape works
from any thread, while events flow, after a shutdown and in a forked child, and a client
that is gone is shown no more. Each label has at most 200 values and `other`.

This is the one module that imports prometheus_client. The client imports it with the
first configuration, so that `import bizlog` does not pay for it.
"""

from __future__ import annotations

import operator
import weakref
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import prometheus_client
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.registry import Collector

from bizlog import diagnostics, separation
from bizlog.ledger import DURATION_SECONDS, Labels

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import TypeAlias

    from prometheus_client import CollectorRegistry, Metric

    from bizlog.ledger import Figures

    # The values of a metric's labels, and its number; the histogram's are the calls by
    # duration, and the seconds of all.
    _Sample: TypeAlias = tuple[tuple[str, ...], Any]
    _Calls: TypeAlias = tuple[tuple[int, ...], float]

# Shown with 0 from the start: a rate over a series that begins with its first loss does
# not see that loss.
DROP_REASONS = (
    "closed",
    "dead_letters_failed",
    "exhausted",
    "interrupted",
    "journal_damaged",
    "journal_expired",
    "lane_full",
    "processor",
    "queue_full",
    "reentrant",
)
KNOWN_FAILURES = (
    *DROP_REASONS,
    *("deadline", "invalid", "rejected", "retry", "route", "shutdown"),
)

_BOUNDS = (*(str(bound) for bound in DURATION_SECONDS), "+Inf")


class Observed(Protocol):
    """A client, as the metrics see it."""

    def figures(self) -> Figures:
        """Read the counters; from any thread, without waiting or raising."""
        ...


def _received(client: Figures) -> Iterable[_Sample]:
    return client.received.items()


def _sent(client: Figures) -> Iterator[_Sample]:
    return (((sink.sink_type,), sink.ledger.delivered) for sink in client.sinks)


def _failed(client: Figures) -> Iterator[_Sample]:
    for sink in client.sinks:
        for error_type in KNOWN_FAILURES:
            yield (sink.sink_type, error_type), 0
        yield (sink.sink_type, "invalid"), sink.ledger.rejected
        for reason, events in sink.ledger.dropped.items():
            yield (sink.sink_type, reason), events
        for (error_type,), events in sink.dead_lettered.items():
            yield (sink.sink_type, error_type), events


def _buffered(client: Figures) -> Iterator[_Sample]:
    return (((sink.sink_type,), sink.ledger.pending) for sink in client.sinks)


def _flushes(client: Figures) -> Iterator[_Sample]:
    return (((sink.sink_type,), (sink.calls, sink.seconds)) for sink in client.sinks)


def _states(client: Figures) -> Iterator[_Sample]:
    for sink in client.sinks:
        for state in ("offered", "delivered", "rejected", "dead_lettered", "pending"):
            yield (sink.sink, state, ""), getattr(sink.ledger, state)
        for reason in DROP_REASONS:
            yield (sink.sink, "dropped", reason), 0
        for reason, events in sink.ledger.dropped.items():
            yield (sink.sink, "dropped", reason), events


def _ages(client: Figures) -> Iterator[_Sample]:
    return (((sink.sink,), sink.oldest_pending) for sink in client.sinks)


def _crossings(_: Figures) -> Iterator[_Sample]:
    yield (), separation.guard.crossings  # of the process: the same for all clients


def _stopped(_: Figures) -> Iterator[_Sample]:
    yield (), separation.guard.stopped


def _add_calls(one: _Calls, other: _Calls) -> _Calls:
    (calls, seconds), (more_calls, more_seconds) = one, other
    return tuple(map(operator.add, calls, more_calls)), seconds + more_seconds


def _write(family: Any, values: tuple[str, ...], number: Any) -> None:
    family.add_metric(values, number)


def _write_calls(family: Any, values: tuple[str, ...], number: _Calls) -> None:
    calls, seconds = number
    buckets = zip(_BOUNDS, accumulate(calls), strict=True)
    family.add_metric(values, list(buckets), seconds)


class _Metric(NamedTuple):
    """One metric: what it is called, where its numbers come from, how two are one."""

    kind: Any
    name: str
    text: str
    label_names: tuple[str, ...]
    read: Callable[[Figures], Iterable[_Sample]]
    join: Callable[[Any, Any], Any] = operator.add
    write: Callable[[Any, tuple[str, ...], Any], None] = _write

    def family(self) -> Any:
        """Make the family of its samples, empty."""
        return self.kind(self.name, self.text, labels=self.label_names)


_METRICS = (
    _Metric(
        CounterMetricFamily,
        "business_telemetry_events_received_total",
        "Events offered to bizlog.",
        ("source", "event_type"),
        _received,
    ),
    _Metric(
        CounterMetricFamily,
        "business_telemetry_events_sent_total",
        "Events that sinks accepted.",
        ("sink_type",),
        _sent,
    ),
    _Metric(
        CounterMetricFamily,
        "business_telemetry_events_failed_total",
        "Events that were rejected, dropped or dead-lettered.",
        ("sink_type", "error_type"),
        _failed,
    ),
    _Metric(
        GaugeMetricFamily,
        "business_telemetry_buffer_size",
        "Events that wait for a sink or are on their way to it.",
        ("sink_type",),
        _buffered,
    ),
    _Metric(
        HistogramMetricFamily,
        "business_telemetry_flush_duration_seconds",
        "Seconds that a sink took for a batch.",
        ("sink_type",),
        _flushes,
        _add_calls,
        _write_calls,
    ),
    _Metric(
        GaugeMetricFamily,
        "bizlog_ledger_events",
        "Where the events of a sink are; those offered are the sum of the others.",
        ("sink", "state", "reason"),
        _states,
    ),
    _Metric(
        GaugeMetricFamily,
        "bizlog_oldest_pending_seconds",
        "Age of the oldest event that a sink has not settled.",
        ("sink",),
        _ages,
        max,
    ),
    _Metric(
        CounterMetricFamily,
        "bizlog_separation_crossings_total",
        "Business events that went into an operational log as well; must stay 0.",
        (),
        _crossings,
        max,
    ),
    _Metric(
        CounterMetricFamily,
        "bizlog_separation_stopped_total",
        "Log records of sinks and of bizlog that would have become events.",
        (),
        _stopped,
        max,
    ),
)


class ClientCollector(Collector):
    """
    Shows the clients of one registry, added up.

    Attributes:
        offered: Whether the registry was asked to take this collector.
    """

    def __init__(self) -> None:
        self.offered = False
        self._clients: list[weakref.ref[Observed]] = []
        self._labels = {
            name: Labels() for metric in _METRICS for name in metric.label_names
        }

    def watch(self, client: Observed) -> None:
        """Show a client for as long as it lives."""
        self._clients.append(weakref.ref(client, self._clients.remove))

    def describe(self) -> list[Metric]:
        """Name the metrics, for the registry's search for doubles."""
        return [metric.family() for metric in _METRICS]

    def collect(self) -> list[Metric]:
        """Read the counters of all clients."""
        alive = [ref() for ref in self._clients.copy()]
        figures = [client.figures() for client in alive if client is not None]
        return [self._filled(metric, figures) for metric in _METRICS]

    def _filled(self, metric: _Metric, clients: Sequence[Figures]) -> Metric:
        family: Metric = metric.family()
        for values, number in self._joined(metric, clients).items():
            metric.write(family, values, number)
        return family

    def _joined(
        self, metric: _Metric, clients: Sequence[Figures]
    ) -> dict[tuple[str, ...], Any]:
        labels = [self._labels[name] for name in metric.label_names]
        joined: dict[tuple[str, ...], Any] = {}
        for client in clients:
            for values, number in metric.read(client):
                key = tuple(map(Labels.admit, labels, values))
                before = joined.get(key)
                joined[key] = number if before is None else metric.join(before, number)
        return joined


_collectors: weakref.WeakKeyDictionary[CollectorRegistry, ClientCollector] = (
    weakref.WeakKeyDictionary()
)


def enrol(client: Observed, registry: CollectorRegistry | None = None) -> None:
    """
    Show a client in a registry.

    Where the registry has metrics of the same names from somebody else, that is
    reported, and nothing is shown.

    Args:
        client: The client; it is not kept alive.
        registry: The registry; None takes prometheus_client's global one.
    """
    registry = prometheus_client.REGISTRY if registry is None else registry
    collector = _collectors.setdefault(registry, ClientCollector())
    collector.watch(client)
    first, collector.offered = not collector.offered, True
    try:
        # Each time: tests and reloaders take foreign collectors out of the registry.
        registry.register(collector)
    except ValueError as error:
        if first:
            diagnostics.report("metrics", f"the metrics are not shown: {error}")
