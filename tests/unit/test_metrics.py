"""The counters behind the metrics, and the collector that adds them up."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
from contextlib import contextmanager

import prometheus_client
import pytest
from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from bizlog import BusinessTelemetryClient, metrics
from bizlog.delivery.dead_letters import DeadLetterFolder
from bizlog.delivery.journal import MemoryJournal
from bizlog.delivery.lane import Lane
from bizlog.delivery.policy import Batcher, judge
from bizlog.exceptions import BatchTooLargeError, PermanentSinkError
from bizlog.ledger import (
    DURATION_SECONDS,
    LABEL_VALUES,
    OTHER,
    Durations,
    Figures,
    Labels,
    SinkFigures,
    SinkLedger,
    Tallies,
)
from bizlog.metrics import DROP_REASONS, KNOWN_FAILURES, enrol
from bizlog.sinks import BaseSink, Record, Rejection, Route, SendResult
from bizlog.testing import FaultySink, ManualClock, MemorySink

SEED = {
    "business_telemetry_events_received_total": {"source", "event_type"},
    "business_telemetry_events_sent_total": {"sink_type"},
    "business_telemetry_events_failed_total": {"sink_type", "error_type"},
    "business_telemetry_buffer_size": {"sink_type"},
    "business_telemetry_flush_duration_seconds": {"sink_type"},
}
OURS = {
    "bizlog_ledger_events": {"sink", "state", "reason"},
    "bizlog_oldest_pending_seconds": {"sink"},
    "bizlog_separation_crossings_total": set(),
    "bizlog_separation_stopped_total": set(),
}


class StaticClient:
    """A client whose figures are given."""

    def __init__(self, *sinks, received=None):
        self._figures = Figures(received or {}, list(sinks))

    def figures(self):
        return self._figures


def sink_figures(sink="memory", sink_type=None, calls=None, **options):
    """Make the figures of one sink; what is not given is 0."""
    states = {"offered", "delivered", "rejected", "dead_lettered", "pending"}
    given = {state: options.pop(state, 0) for state in states}
    return SinkFigures(
        sink=sink,
        sink_type=sink_type or sink,
        ledger=SinkLedger(dropped=options.pop("dropped", {}), **given),
        dead_lettered=options.pop("by_error", {}),
        calls=calls or (0,) * (len(DURATION_SECONDS) + 1),
        seconds=options.pop("seconds", 0.0),
        oldest_pending=options.pop("oldest_pending", 0.0),
    )


@pytest.fixture
def registry():
    """A registry of its own."""
    return CollectorRegistry()


@pytest.fixture
def show(registry):
    """Show clients in the registry, and keep them: it does not."""
    kept = []

    def show_them(*clients, registry=registry):
        kept.extend(clients)
        for client in clients:
            enrol(client, registry)

    return show_them


@pytest.fixture
def reported(monkeypatch):
    """What bizlog says about itself: pairs of topic and message."""
    lines = []
    monkeypatch.setattr(metrics.diagnostics, "report", lambda *line: lines.append(line))
    return lines


def scrape(registry):
    """Read all samples as Prometheus does: name -> labels -> number."""
    found = {}
    for family in text_string_to_metric_families(generate_latest(registry).decode()):
        for sample in family.samples:
            key = tuple(sorted(sample.labels.items()))
            assert key not in found.setdefault(sample.name, {}), "a series twice"
            found[sample.name][key] = sample.value
    return found


def value(registry, name, **labels):
    """Read one sample; None where there is no such series."""
    return scrape(registry).get(name, {}).get(tuple(sorted(labels.items())))


def race(*calls):
    """Run all calls at the same time, switching threads as often as can be."""
    barrier = threading.Barrier(len(calls))
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)

    def run(call):
        barrier.wait()
        call()

    threads = [threading.Thread(target=run, args=(call,)) for call in calls]
    try:
        for thread in threads:
            thread.start()
    finally:
        for thread in threads:
            thread.join()
        sys.setswitchinterval(before)


# Labels and tallies


def test_a_tally_is_the_same_each_time():
    """The emit path may keep a tally: source and type always lead to the same one."""
    tallies = Tallies()
    tally = tallies.of("shop", "order.placed")
    tally.events += 2

    assert tallies.of("shop", "order.placed") is tally
    assert tallies.of("shop", "order.failed") is not tally
    assert tallies.snapshot() == {("shop", "order.placed"): 2}


def test_a_tally_has_room_for_its_number_only():
    """Nothing else can be set: one plain attribute, which `+=` changes in one step."""
    tally = Tallies().of("a", "b")

    assert tally.__slots__ == ("events",)
    with pytest.raises(AttributeError):
        tally.source = "a"


def test_each_label_of_a_tally_is_capped_by_itself():
    """200 sources and 200 types are kept; all further ones share `other`."""
    tallies = Tallies()
    for number in range(1_000):
        tallies.of(f"s{number}", "order.placed").events += 1
        tallies.of("shop", f"t{number}").events += 1

    counted = tallies.snapshot()
    assert len({source for source, _ in counted}) == LABEL_VALUES + 1
    assert len({event_type for _, event_type in counted}) == LABEL_VALUES + 1
    assert sum(counted.values()) == 2_000
    assert tallies.of("s1", "order.placed").events == 1
    assert tallies.of("s999", "order.placed").events == 801


def test_racing_threads_get_one_tally_and_lose_no_event():
    """Whoever is first makes the tally; nothing is counted where nobody reads."""
    tallies = Tallies()

    def count():
        for number in range(3_000):
            tallies.of("shop", f"t{number % 300}").events += 1

    race(*[count] * 8)

    assert sum(tallies.snapshot().values()) == 24_000


def test_racing_threads_stay_within_the_cap_and_waste_no_place():
    """Exactly as many values are kept as there are places, whoever brings them."""
    labels = Labels(limit=100)
    kept = set()

    def bring():
        kept.update(labels.admit(str(number)) for number in range(100))

    race(*[bring] * 8)
    for number in range(100):
        kept.add(labels.admit(str(number)))  # a place may have been given back late
    kept.update(labels.admit(f"more {number}") for number in range(100))

    assert len(kept - {OTHER}) == 100


def test_a_thread_that_comes_second_gives_its_place_back():
    """Two threads that bring a value at the same moment use one place together."""
    labels = Labels(limit=2)
    labels.admit("a")
    assert labels._keep("a") == "a"  # what a thread does that did not see it yet

    assert [labels.admit("b"), labels.admit("c")] == ["b", OTHER]


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("", ""),
        ("grün", "grün"),
        ("\ud83d\ude00", "\U0001f600"),
        ("a\ud800", "a\ufffd"),
        ("x" * 10_000, "x" * 200),
        (None, "NoneType"),
        (b"bytes", "bytes"),
    ],
)
def test_labels_are_text_that_can_be_written(given, shown):
    """No lone surrogate, no endless text, nothing but text reaches a scrape."""
    shown_as = Labels().admit(given)

    assert shown_as == shown
    assert shown_as.encode().decode() == shown


def test_a_subclass_of_text_is_its_text():
    """An enumeration of sources counts under its values, as a plain str."""

    class Source(str):
        __slots__ = ()

        def __hash__(self):
            raise RuntimeError("no")

    shown = Labels().admit(Source("shop"))

    assert type(shown) is str
    assert shown == "shop"


def test_the_same_value_takes_one_place():
    """Asking again, also for the empty text, uses up no place."""
    labels = Labels(limit=2)
    for _ in range(5):
        labels.admit("")

    assert [labels.admit("a"), labels.admit("b"), labels.admit("")] == ["a", OTHER, ""]


def test_other_is_no_place():
    """A value that is called `other` goes where the further ones go, for nothing."""
    labels = Labels(limit=1)

    assert [labels.admit(OTHER), labels.admit("a")] == [OTHER, "a"]


# Durations


def test_a_duration_counts_in_the_bucket_that_holds_it():
    """A bucket holds what took at most its bound; the last one all that took longer."""
    durations = Durations()
    for seconds in (0.0, DURATION_SECONDS[0], DURATION_SECONDS[1], 1e9):
        durations.add(seconds)

    first, second, *_, last = durations.snapshot()
    assert (first, second, last) == (2, 1, 1)
    assert sum(durations.snapshot()) == 4
    assert durations.seconds == sum((DURATION_SECONDS[0], DURATION_SECONDS[1], 1e9))


def test_the_bounds_of_the_buckets_rise():
    """Prometheus takes buckets in order only."""
    assert list(DURATION_SECONDS) == sorted(set(DURATION_SECONDS))


# What a lane counts


class Gate(MemorySink):
    """Holds each batch until it is opened."""

    def __init__(self):
        super().__init__()
        self.entered = asyncio.Event()
        self.opened = asyncio.Event()

    async def deliver(self, batch):
        self.entered.set()
        await self.opened.wait()
        self.opened.clear()
        return await super().deliver(batch)

    async def next_batch(self):
        await self.entered.wait()
        self.entered.clear()


@pytest.fixture
def clock():
    """Monotonic seconds that pass only when told."""
    return ManualClock(100.0)


@pytest.fixture
def drive(tmp_path, clock):
    """Run a scenario with a lane that sends every event by itself."""

    @contextmanager
    def task_of(lane):
        task = asyncio.create_task(lane.run())
        yield
        task.cancel()

    def drive_it(sink, scenario, route=None, folder=None):
        async def main():
            journal = MemoryJournal()
            lane = Lane(
                name="sink",
                route=route or Route(sink),
                journal=journal,
                batcher=Batcher(1, 1 << 20, 0.0),
                sink_timeout=30.0,
                dead_letters=DeadLetterFolder(folder or tmp_path / "dead", "p"),
                on_progress=lambda: None,
                clock=clock,
            )

            def add(events=1):
                run = [Record(b"{}", "", "order.placed", "", 1)] * events
                journal.append(run)
                lane.notify(events, 2 * events)

            with task_of(lane):
                await scenario(lane, add)

        asyncio.run(main())

    return drive_it


async def until(condition):
    """Let the loop run until something holds; the test's time-out bounds it."""
    while not condition():  # noqa: ASYNC110  # a lane announces nothing
        await asyncio.sleep(0)


def test_the_oldest_event_is_the_first_that_is_not_settled(drive, clock):
    """It is pending until the sink has answered; then the next batch's is the oldest."""
    gate = Gate()
    gate.max_events = 2

    async def scenario(lane, add):
        assert lane.oldest_at is None
        add(2)
        await gate.next_batch()
        clock.advance(5)
        add(1)
        assert lane.oldest_at == 100.0
        gate.opened.set()
        await gate.next_batch()
        assert lane.oldest_at == 105.0
        gate.opened.set()
        await until(lambda: not lane.pending)
        assert lane.oldest_at is None

    drive(gate, scenario)


def test_a_batch_that_takes_half_a_run_leaves_its_age(drive, clock):
    """Events that arrived together are as old as each other, whatever is sent first."""
    gate = Gate()
    gate.max_events = 2

    async def scenario(lane, add):
        add(3)
        await gate.next_batch()
        clock.advance(5)
        gate.opened.set()
        await gate.next_batch()
        assert (lane.pending, lane.oldest_at) == (1, 100.0)

    drive(gate, scenario)


def test_events_that_are_given_up_are_not_the_oldest(drive, clock):
    """The age is that of the oldest event which still has a chance."""
    gate = Gate()

    async def scenario(lane, add):
        add(1)
        await gate.next_batch()
        clock.advance(1)
        add(2)
        clock.advance(1)
        add(3)
        lane.give_up(2)
        assert lane.oldest_at == 100.0  # on its way
        gate.opened.set()
        await gate.next_batch()
        assert (lane.pending, lane.oldest_at) == (3, 102.0)

    drive(gate, scenario)


def test_giving_up_makes_the_rest_the_oldest(drive, clock):
    """Where nothing is on its way, the next event that is kept is the oldest at once."""

    async def scenario(lane, add):
        add(1)
        clock.advance(1)
        add(1)
        lane.give_up(1)
        assert (lane.pending, lane.oldest_at) == (1, 101.0)

    drive(MemorySink(), scenario)


def test_nothing_is_old_after_the_deadline(drive):
    """What was abandoned is settled: it lies in the dead letters, type `shutdown`."""
    gate = Gate()

    async def scenario(lane, add):
        add(3)
        await gate.next_batch()
        lane.abandon([], "too late")
        assert lane.oldest_at is None
        assert lane.refused.snapshot() == {("shutdown",): 3}
        assert lane.dead_lettered == 3

    drive(gate, scenario)


def test_each_batch_handed_over_is_one_duration(drive, clock):
    """The histogram counts calls of `deliver`, also those that fail, and their time."""

    class Slow(FaultySink):
        async def deliver(self, batch):
            clock.advance(2.0)
            return await super().deliver(batch)

    async def scenario(lane, add):
        for sent in range(1, 5):
            add(1)
            await until(lambda sent=sent: lane.delivered + lane.dead_lettered == sent)
        assert sum(lane.durations.snapshot()) == 4
        assert lane.durations.seconds == 8.0
        assert lane.durations.snapshot()[DURATION_SECONDS.index(2.5)] == 4

    drive(Slow(fail_calls=2, error=PermanentSinkError("no")), scenario)


def test_a_batch_that_no_event_is_left_in_is_no_flush(drive):
    """What the route leaves out entirely is not handed over."""
    sink = MemorySink()

    async def scenario(lane, add):
        add(2)
        await until(lambda: lane.not_routed == 2)
        assert sum(lane.durations.snapshot()) == 0

    drive(sink, scenario, route=Route(sink, "cart.*"))


def test_a_sink_that_does_not_start_gets_no_batch(drive):
    """A failed start is no flush; one that fails for good gives its events up."""

    async def scenario(lane, add):
        add(1)
        await until(lambda: lane.dead_lettered == 1)
        assert sum(lane.durations.snapshot()) == 0
        assert lane.refused.snapshot() == {("PermanentSinkError",): 1}

    drive(FaultySink(fail_start=1, error=PermanentSinkError("no")), scenario)


def test_refused_events_are_told_apart_by_their_error(drive):
    """A rejection and each class of error have their own number."""

    class Moody(BaseSink):
        answers = None

        async def deliver(self, batch):
            if isinstance(self.answers, Exception):
                raise self.answers
            return self.answers

    sink = Moody()

    async def scenario(lane, add):
        for sent, answer in [
            (1, SendResult(rejected=(Rejection(0, "secret value"),))),
            (3, PermanentSinkError("secret value")),
            (5, BatchTooLargeError("secret value")),
        ]:
            sink.answers = answer
            add(2)
            await until(lambda sent=sent: lane.dead_lettered == sent)
        assert lane.refused.snapshot() == {
            ("rejected",): 1,
            ("PermanentSinkError",): 2,
            ("BatchTooLargeError",): 2,
        }

    drive(sink, scenario)


def test_a_route_that_raises_has_a_type_of_its_own(drive):
    """The fault is the predicate's, not the sink's."""
    sink = MemorySink()

    async def scenario(lane, add):
        add(2)
        await until(lambda: lane.dead_lettered == 2)
        assert lane.refused.snapshot() == {("route",): 2}

    drive(sink, scenario, route=Route(sink, when=lambda event: 1 / 0))


def test_events_that_cannot_be_buried_are_no_dead_letters(drive, tmp_path):
    """They are dropped{dead_letters_failed} and counted there only."""
    blocked = tmp_path / "file"
    blocked.touch()

    async def scenario(lane, add):
        add(2)
        await until(lambda: lane.dropped.snapshot() == {"dead_letters_failed": 2})
        assert lane.refused.snapshot() == {}

    sink = FaultySink(fail_calls=None, error=PermanentSinkError("no"))
    drive(sink, scenario, folder=blocked)


def test_types_of_errors_are_capped():
    """A sink that raises a new class each time has 201 types at most."""
    refused = Tallies(("error_type",))
    for number in range(1_000):
        error = type(f'Error{number}"\n', (Exception,), {})("no")
        refused.of(judge(1, error).error_type).events += 1

    counted = refused.snapshot()
    assert len(counted) == LABEL_VALUES + 1
    assert counted[OTHER,] == 800


# The collector


def test_the_metrics_are_the_seeds_and_two_of_ours(registry, show):
    """Exactly these names, each with exactly these labels."""
    calls = (1,) * (len(DURATION_SECONDS) + 1)
    client = StaticClient(
        sink_figures(calls=calls, dropped={"queue_full": 1}), received={("s", "t"): 1}
    )
    show(client)

    labels = {}
    for name, series in scrape(registry).items():
        family = name.removesuffix("_bucket").removesuffix("_count")
        family = family.removesuffix("_sum")
        names = {label for key in series for label, _ in key}
        labels.setdefault(family, set()).update(names - {"le"})
    assert labels == SEED | OURS


def test_numbers_of_several_clients_are_added_up(registry, show):
    """One series for the same labels; durations add up, ages show the oldest."""
    zeros = (0,) * (len(DURATION_SECONDS) - 1)
    one = StaticClient(
        sink_figures(
            calls=(1, 2, *zeros),
            seconds=0.5,
            delivered=3,
            pending=1,
            rejected=1,
            dead_lettered=2,
            dropped={"closed": 4},
            by_error={("OSError",): 2},
            oldest_pending=9.0,
        ),
        received={("s", "t"): 5, ("s", "u"): 1},
    )
    two = StaticClient(
        sink_figures(
            calls=(10, 0, *zeros), seconds=1.5, delivered=30, oldest_pending=4.0
        ),
        received={("s", "t"): 50},
    )
    show(one, two)

    def read(name, **labels):
        return value(registry, name, **labels)

    memory = {"sink_type": "memory"}
    received = "business_telemetry_events_received_total"
    failed = "business_telemetry_events_failed_total"
    flushes = "business_telemetry_flush_duration_seconds"
    assert read(received, source="s", event_type="t") == 55
    assert read(received, source="s", event_type="u") == 1
    assert read("business_telemetry_events_sent_total", **memory) == 33
    assert read("business_telemetry_buffer_size", **memory) == 1
    assert read(failed, error_type="invalid", **memory) == 1
    assert read(failed, error_type="closed", **memory) == 4
    assert read(failed, error_type="OSError", **memory) == 2
    assert read(f"{flushes}_bucket", le=str(DURATION_SECONDS[0]), **memory) == 11
    assert read(f"{flushes}_bucket", le="+Inf", **memory) == 13
    assert read(f"{flushes}_count", **memory) == 13
    assert read(f"{flushes}_sum", **memory) == 2.0
    assert read("bizlog_oldest_pending_seconds", sink="memory") == 9.0
    states = {"sink": "memory", "reason": ""}
    assert read("bizlog_ledger_events", state="delivered", **states) == 33
    dropped = {"sink": "memory", "state": "dropped", "reason": "closed"}
    assert read("bizlog_ledger_events", **dropped) == 4


def test_sinks_of_one_type_share_the_seeds_series_not_the_ledgers(registry, show):
    """`sink_type` is the kind of the sinks, `sink` each one's name."""
    one = sink_figures("file", "file", delivered=1)
    two = sink_figures("file-2", "file", delivered=2)
    show(StaticClient(one, two))

    sent = "business_telemetry_events_sent_total"
    assert value(registry, sent, sink_type="file") == 3
    for sink, delivered in (("file", 1), ("file-2", 2)):
        labels = {"sink": sink, "state": "delivered", "reason": ""}
        assert value(registry, "bizlog_ledger_events", **labels) == delivered


def test_every_kind_of_failure_starts_at_zero(registry, show):
    """An alert on a rate sees the first loss: its series is there beforehand."""
    show(StaticClient(sink_figures()))

    seen = scrape(registry)
    failed = seen["business_telemetry_events_failed_total"]
    assert {dict(key)["error_type"] for key in failed} == set(KNOWN_FAILURES)
    reasons = {dict(key)["reason"] for key in seen["bizlog_ledger_events"]}
    assert reasons == {"", *DROP_REASONS}
    assert {*failed.values(), *seen["bizlog_ledger_events"].values()} == {0.0}


def test_every_reason_to_drop_is_known(tmp_path):
    """What the client, its queue and its lanes can drop for is listed."""
    client = BusinessTelemetryClient(
        source="test", sinks=[MemorySink()], dead_letters=str(tmp_path)
    )
    counts = [client._dropped, client._queue.dropped]
    counts += [lane.dropped for lane in client._lanes]

    reasons = {name for each in counts for name in each._by_reason}
    assert reasons | {"exhausted"} == set(DROP_REASONS)


def test_labels_are_capped_over_all_clients(registry, show):
    """Two clients with 150 sources each show 201 together, and lose no number."""
    for name in "ab":
        show(StaticClient(received={(f"{name}{n}", "t"): 1 for n in range(150)}))

    for _ in range(2):  # the same ones at each scrape
        series = scrape(registry)["business_telemetry_events_received_total"]
        assert len(series) == LABEL_VALUES + 1
        assert sum(series.values()) == 300
        assert series[("event_type", "t"), ("source", OTHER)] == 100


def test_hostile_names_of_sinks_do_not_break_a_scrape(registry, show):
    """Whatever a sink calls itself: text that Prometheus reads, 201 series at most."""
    names = ['a"b\\c\nd', "\ud800", None, *(f"s{number}" for number in range(1_000))]
    show(StaticClient(*(sink_figures(name, delivered=1) for name in names)))

    sent = scrape(registry)["business_telemetry_events_sent_total"]
    assert len(sent) == LABEL_VALUES + 1
    assert sum(sent.values()) == len(names)
    assert (("sink_type", 'a"b\\c\nd'),) in sent


def test_a_client_that_is_gone_is_shown_no_more(registry, show):
    """The collector keeps no client alive."""
    show(StaticClient(received={("stays", "t"): 1}))
    gone = StaticClient(received={("gone", "t"): 1})
    enrol(gone, registry)
    assert len(scrape(registry)["business_telemetry_events_received_total"]) == 2

    del gone
    gc.collect()

    series = scrape(registry)["business_telemetry_events_received_total"]
    assert list(series) == [(("event_type", "t"), ("source", "stays"))]


def test_registries_are_apart(registry, show):
    """A client is shown where it was enrolled, and nowhere else."""
    other = CollectorRegistry()
    show(StaticClient(received={("s", "t"): 1}))
    show(StaticClient(), registry=other)

    assert "business_telemetry_events_received_total" in scrape(registry)
    assert "business_telemetry_events_received_total" not in scrape(other)


def test_a_registry_that_was_emptied_shows_the_next_client(registry, show):
    """Test suites take every collector out of a registry; the next client is back."""
    show(StaticClient(received={("s", "t"): 1}))
    for collector in list(registry._collector_to_names):
        registry.unregister(collector)
    assert not scrape(registry)

    show(StaticClient(received={("s", "t"): 10}))

    labels = {"source": "s", "event_type": "t"}
    assert value(registry, "business_telemetry_events_received_total", **labels) == 11


def test_a_name_that_is_taken_is_reported_once(registry, show, reported):
    """Somebody else's metric of our name: no exception, their metric stays."""
    theirs = Counter("business_telemetry_buffer_size", "theirs", registry=registry)
    show(StaticClient(), StaticClient())

    assert [topic for topic, _ in reported] == ["metrics"]
    assert "not shown" in reported[0][1]
    assert theirs in registry._collector_to_names


def test_many_threads_enrol_into_one_registry(registry, show, reported):
    """Whoever comes first registers the collector; no client is lost, none reported."""
    clients = [StaticClient(received={("s", f"t{n}"): 1}) for n in range(8)]

    race(*[lambda client=client: show(client) for client in clients])

    assert len(scrape(registry)["business_telemetry_events_received_total"]) == 8
    assert not reported


def test_a_part_of_the_metrics_can_be_asked_for(registry, show):
    """`/metrics?name[]=...` finds ours by their names."""
    show(StaticClient(sink_figures(pending=3)))

    part = scrape(registry.restricted_registry(["business_telemetry_buffer_size"]))
    assert part == {"business_telemetry_buffer_size": {(("sink_type", "memory"),): 3}}


def test_without_a_registry_it_is_prometheus_clients_own():
    """`enrol(client)` shows it where `generate_latest()` looks."""
    client = StaticClient(received={("the.default", "t"): 1})
    enrol(client)

    labels = {"source": "the.default", "event_type": "t"}
    name = "business_telemetry_events_received_total"
    assert prometheus_client.REGISTRY.get_sample_value(name, labels) == 1
