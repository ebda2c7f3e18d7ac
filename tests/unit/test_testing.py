"""What users test with: captured events, and how a failure reads."""

from __future__ import annotations

import asyncio
import logging
import logging.config
import threading
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from unittest.mock import ANY

import pytest
import structlog

import bizlog
import bizlog.client
from bizlog.testing import (
    CapturedEvents,
    FaultySink,
    InvalidEvent,
    MemorySink,
    capture_events,
)

# As in a service: made at import, before any test.
log = bizlog.get_logger()


@pytest.fixture(autouse=True)
def fresh_process(monkeypatch, tmp_path):
    """Start without a process-wide client, in an empty folder that must stay empty."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(bizlog.client, "_default", None)
    monkeypatch.delenv("BIZLOG_DISABLED", raising=False)
    yield
    bizlog.shutdown(timeout=5)


def threads():
    """List bizlog's own threads."""
    return [each for each in threading.enumerate() if each.name.startswith("bizlog")]


def run_block(body, **options):
    """Run a function inside a block."""
    with capture_events(**options) as events:
        body(events)


def complaint(events, *args, **expected):
    """Read how `assert_emitted` fails."""
    with pytest.raises(AssertionError) as caught:
        events.assert_emitted(*args, **expected)
    return str(caught.value).splitlines()


# What is captured


def test_events_are_there_at_once(tmp_path):
    """An event is there when the call returns, without a thread, a file or a wait."""
    before = threads()
    with capture_events() as events:
        log.info("order.placed", order_id=42)

        assert events.names == ["order.placed"]
        assert threads() == before

    assert not list(tmp_path.iterdir())


def test_events_are_as_on_the_wire():
    """The dictionaries are what a sink would get, with money to the last digit."""
    sink = MemorySink()
    bizlog.configure(source="shop", sinks=[sink], hash_key="k" * 32)

    def emit():
        with bizlog.session("sess-1", user_id="cat@example.org"):
            log.info(
                "order.placed", order_id=42, order_total=Decimal("19.90"), voucher="X"
            )

    emit()
    bizlog.flush()
    with capture_events() as events:
        emit()
    [sent], [captured] = sink.events, events

    assert captured["order_total"] == Decimal("19.90")
    assert str(captured["order_total"]) == "19.90"
    assert captured["user_id"] != "cat@example.org"
    own = {"event_id", "event_time", "producer_id", "sequence", "order_total"}
    assert {k: v for k, v in captured.items() if k not in own} == {
        k: v for k, v in sent.items() if k not in own
    }
    assert events.records[0].event_id == captured["event_id"]


def test_users_processors_run():
    """A logger's own processors see, change and drop events as in production."""

    def tag(_, __, event_dict):
        if event_dict["event"] == "cart.emptied":
            raise structlog.DropEvent
        return {**event_dict, "tagged": True}

    with capture_events() as events:
        tagging = bizlog.get_logger(processors=[tag])
        tagging.info("cart.filled")
        tagging.info("cart.emptied")
        [account] = bizlog.ledger().sinks.values()

    assert events.names == ["cart.filled"]
    events.assert_emitted("cart.filled", tagged=True)
    assert account.dropped == {"processor": 1}


def test_typed_events_clients_calls_and_handlers_are_captured():
    """All ways that lead through the process-wide client end in the capture."""
    record = logging.makeLogRecord({"msg": "order.returned", "args": {"order_id": 3}})
    with capture_events() as events:
        log.info(bizlog.OrderEvent(event_type="order.placed", order_id="1"))
        bizlog.client.default_client().send_sync("order.updated", order_id="2")
        bizlog.BusinessEventHandler().handle(record)

    assert [event["order_id"] for event in events] == ["1", "2", "3"]


def test_threads_and_loops_are_captured():
    """Events of any thread and any event loop are there, each once."""

    async def emit_on_a_loop(number):
        await asyncio.sleep(0)
        await log.ainfo("order.placed", order_id=number)

    async def emit_several():
        await asyncio.gather(*(emit_on_a_loop(number) for number in range(50, 100)))

    with capture_events() as events:
        with ThreadPoolExecutor(4) as pool:
            for number in range(50):
                pool.submit(log.info, "order.placed", order_id=number)
        asyncio.run(emit_several())
        account = bizlog.ledger().sinks["captured"]

    assert sorted(int(event["order_id"]) for event in events) == list(range(100))
    assert account.delivered == 100


def test_own_clients_are_not_captured():
    """A client that code makes for itself goes on delivering to its sinks."""
    sink = MemorySink()
    with (
        capture_events() as events,
        bizlog.BusinessTelemetryClient(source="own", sinks=[sink]) as client,
    ):
        client.send_sync("order.placed")
        bizlog.get_logger(client=client).info("order.updated")

    assert not events
    assert [event["event_type"] for event in sink.events] == [
        "order.placed",
        "order.updated",
    ]


def test_the_ledger_closes():
    """Every event of the block is delivered to the sink `captured`, rejected or dropped."""
    with capture_events(allow_invalid=True):
        log.info("order.placed")
        log.info("order.placed", order_total="much")
        assert bizlog.flush(timeout=0)
        assert bizlog.shutdown(timeout=0)
        log.info("order.placed")
        ledger = bizlog.ledger()

    assert ledger.closed
    account = ledger.sinks["captured"]
    assert (account.offered, account.delivered, account.rejected) == (3, 1, 1)
    assert account.dropped == {"closed": 1}


def test_flush_settles_with_refused_events(tmp_path):
    """Refused events need no thread and no dead letter for a flush to succeed."""
    before = threads()
    with capture_events(allow_invalid=True):
        for _ in range(3):
            log.info("order.placed", order_total="much")
        assert bizlog.flush(timeout=0)
        assert threads() == before

    assert not list(tmp_path.iterdir())


# What it stands in for


def test_what_was_there_comes_back():
    """After the block the events go where they went before."""
    sink = MemorySink()
    client = bizlog.configure(source="shop", sinks=[sink])
    log.info("order.placed")
    with capture_events() as events:
        log.info("order.updated")
    log.info("order.returned")
    bizlog.flush()

    assert bizlog.client.default_client() is client
    assert events.names == ["order.updated"]
    assert [e["event_type"] for e in sink.events] == ["order.placed", "order.returned"]
    assert client.ledger().closed


def test_nothing_comes_back_to_nothing():
    """Where nothing was configured, nothing is afterwards."""
    with capture_events():
        log.info("order.placed")

    assert bizlog.client._default is None


def test_it_comes_back_after_a_failure():
    """A block that raises leaves everything as it was, too."""
    methods = dict(vars(bizlog.BusinessTelemetryClient))
    with pytest.raises(ZeroDivisionError), capture_events():
        raise ZeroDivisionError

    assert bizlog.client._default is None
    assert dict(vars(bizlog.BusinessTelemetryClient)) == methods


def test_blocks_nest():
    """The innermost block captures; the outer one goes on after it."""
    with capture_events() as outer:
        log.info("order.placed")
        with capture_events() as inner:
            log.info("order.updated")
        log.info("order.returned")

    assert outer.names == ["order.placed", "order.returned"]
    assert inner.names == ["order.updated"]


def test_the_configuration_in_force_shapes_the_events():
    """Source, policies and strictness are the process's; arguments come before them."""
    bizlog.configure(
        source="shop", environment="staging", sinks=["null:"], privacy={"note": "mask"}
    )
    with capture_events(environment="test", strict=True, allow_invalid=True) as events:
        log.info("order.placed", note="private")
        log.info("ordr.placed")

    events.assert_emitted(
        "order.placed", event_source="shop", environment="test", note="***"
    )
    [invalid] = events.invalid
    assert invalid.name == "ordr.placed"


def test_configure_inside_goes_on_capturing(tmp_path):
    """Code that configures bizlog gets its settings; its sinks get nothing."""
    sink = MemorySink()
    with capture_events() as events:
        log.info("order.placed")
        client = bizlog.configure(source="shop", sinks=[sink, "file:./events"])
        assert list(bizlog.ledger().sinks) == ["captured"]
        log.info("order.updated")
        client.send_sync("order.returned")
        assert bizlog.flush()
        assert bizlog.ledger().closed

    events.assert_emitted("order.updated", event_source="shop")
    assert events.names == ["order.placed", "order.updated", "order.returned"]
    assert not sink.calls
    assert not list(tmp_path.iterdir())
    assert bizlog.client._default is None


def test_a_client_configured_inside_ends_with_the_block(tmp_path):
    """Whoever keeps it finds it shut down afterwards: it captures and writes no more."""
    with capture_events() as events:
        client = bizlog.configure(source="shop", sinks=["file:./events"])
    client.send_sync("order.placed")

    assert not events
    assert client.ledger().sinks["captured"].dropped == {"closed": 1}
    assert not list(tmp_path.iterdir())


def test_settings_that_cannot_work_raise_as_always():
    """A wrong `configure()` raises inside a block, too, and the capture goes on."""
    with capture_events() as events:
        with pytest.raises(bizlog.ConfigurationError, match="sinks"):
            bizlog.configure(source="shop", sinks=["nowhere:"])
        log.info("order.placed")

    assert events.names == ["order.placed"]


def test_a_logging_configuration_inside_goes_on_capturing(tmp_path):
    """`dictConfig` with settings of bizlog's sets up a client that captures at once."""
    name = "bizlog-test-business"
    with capture_events() as events:
        logging.config.dictConfig(
            bizlog.logging_config(name, source="shop", sinks=["file:./events"])
        )
        business = logging.getLogger(name)
        business.info("order.placed", extra={"order_id": "1"})
    business.handlers.clear()

    events.assert_emitted("order.placed", event_source="shop", order_id="1")
    assert not list(tmp_path.iterdir())


def test_many_threads_meet_a_new_client():
    """The first events after a `configure()`, from any thread, are each captured once."""
    start = threading.Barrier(4)

    def emit(number):
        start.wait(10)
        for _ in range(25):
            log.info("order.placed", order_id=number)

    with capture_events() as events:
        bizlog.configure(source="shop", sinks=["null:"])
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(emit, range(4)))
        account = bizlog.ledger().sinks["captured"]

    assert len(events) == account.delivered == account.offered == 100


def test_disabled_is_for_the_argument_alone(monkeypatch):
    """`BIZLOG_DISABLED` in a test's environment hides no event; the argument does."""
    monkeypatch.setenv("BIZLOG_DISABLED", "1")
    with capture_events() as events:
        log.info("order.placed")
    with capture_events(disabled=True) as nothing:
        log.info("order.placed")

    assert len(events) == 1
    assert not nothing


@pytest.mark.parametrize(
    "option", [{"sinks": ["null:"]}, {"queue_events": 1}, {"dead_letters": "./here"}]
)
def test_settings_of_delivery_are_refused(option):
    """A setting that would do nothing is an error, and nothing is taken over."""
    with (
        pytest.raises(bizlog.ConfigurationError, match=next(iter(option))),
        capture_events(**option),
    ):
        pass

    assert bizlog.client._default is None


def test_unknown_settings_are_refused():
    """A misspelt setting is reported as `configure` reports it."""
    with (
        pytest.raises(bizlog.ConfigurationError, match="did you mean 'strict'"),
        capture_events(strct=True),
    ):
        pass


# Invalid events


def test_invalid_events_fail_the_block():
    """At its end the block names each invalid event with path and reason."""

    def body(_):
        log.info("order.placed", order_total="much")
        log.info("product.viewed", product_price=True)
        log.info("order.placed", order_id="42")

    with pytest.raises(AssertionError) as caught:
        run_block(body)

    first, *rest = str(caught.value).splitlines()
    assert first.endswith("2")
    assert [line.split(":")[0].strip() for line in rest] == [
        "order.placed $.order_total",
        "product.viewed $.product_price",
    ]


def test_invalid_events_can_be_allowed():
    """With `allow_invalid` they are only listed."""
    with capture_events(allow_invalid=True) as events:
        log.info("order.placed", order_total="much")

    assert events.invalid == [InvalidEvent("order.placed", ANY, "$.order_total")]
    assert events.invalid[0].reason


def test_an_invalid_event_that_was_expected_can_be_taken_out():
    """What a test removes from `invalid` is forgiven."""
    with capture_events() as events:
        log.info("order.placed", order_total="much")
        events.invalid.pop()


def test_invalid_events_hide_no_exception():
    """An exception on its way stays the one; the invalid events are a note on it."""

    def body(_):
        log.info("order.placed", order_total="much")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as caught:
        run_block(body)

    assert "order.placed $.order_total" in caught.value.__notes__[0]


def test_no_note_without_invalid_events():
    """An exception of a block whose events are valid stays as it is."""

    def body(_):
        log.info("order.placed")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as caught:
        run_block(body)

    assert not hasattr(caught.value, "__notes__")


def test_development_raises_and_is_noted():
    """In development the call raises; code that swallows it still fails the block."""

    def body(_):
        with pytest.raises(bizlog.InvalidEventError):
            log.info("order.placed", order_total="much")

    with pytest.raises(AssertionError, match="order_total"):
        run_block(body, development=True)


def test_a_fault_of_a_processor_is_an_invalid_event():
    """A processor that raises loses its event, which a test must not miss."""

    def broken(_, __, event_dict):
        raise KeyError("secret")

    with capture_events(allow_invalid=True) as events:
        bizlog.get_logger(processors=[broken]).info("order.placed")

    [(name, reason, path)] = events.invalid
    assert (name, path) == ("order.placed", None)
    assert "KeyError" in reason and "broken" in reason


def test_a_name_that_is_none_is_told_by_its_type():
    """An event whose name is not even text is listed all the same."""
    with capture_events(allow_invalid=True) as events:
        log.info(7)

    assert events.invalid[0].name == "int"


# Reading


def test_captured_events_are_a_sequence():
    """Length, index, slice, iteration and truth are those of a list of dictionaries."""
    with capture_events() as events:
        assert not events
        for number in range(3):
            log.info("order.placed", order_id=number)

    assert [event["order_id"] for event in events] == ["0", "1", "2"]
    assert events[-1]["order_id"] == "2"
    assert [event["order_id"] for event in events[1:]] == ["1", "2"]
    assert len(events) == 3
    assert "order.placed (3)" in repr(events)


def test_of_takes_patterns():
    """`of` finds the events of a name or a pattern, in order."""
    with capture_events() as events:
        log.info("order.placed", order_id=1)
        log.info("product.viewed")
        log.info("order.updated", order_id=1)

    assert [e["event_type"] for e in events.of("order.*")] == [
        "order.placed",
        "order.updated",
    ]
    assert len(events.of("product.viewed")) == 1
    assert events.of("customer.*") == []


def test_clear_forgets_events_and_keeps_faults():
    """After `clear` only new events count; an invalid one before it still fails."""
    with capture_events(allow_invalid=True) as events:
        log.info("order.placed")
        log.info("order.placed", order_total="much")
        events.clear()
        log.info("order.updated")

    assert events.names == ["order.updated"]
    with pytest.raises(AssertionError, match="order_total"):
        events.assert_valid()


# Asserting


@pytest.fixture
def placed():
    """Capture two orders and a view."""
    with capture_events() as events:
        with bizlog.session("sess-1"):
            log.info(
                "order.placed", order_id=42, order_total=Decimal("19.90"), voucher="X"
            )
        log.info(
            "order.placed", order_id=43, order_total=5, score=0.1, parts=[0.2, ("a",)]
        )
        log.info("product.viewed")
    return events


@pytest.mark.parametrize(
    "expected",
    [
        {},
        {"order_id": "42"},
        {"order_id": "42", "order_total": Decimal("19.9")},
        {"order_total": 19.9},
        {"order_total": Decimal("5.00")},
        {"order_total": 5},
        {"order_id": ANY, "session_id": "sess-1"},
        {"order_id": lambda order_id: order_id.endswith("3")},
        {"voucher": "X"},
        {"custom_properties": {"voucher": "X"}},
        {"custom_properties": {"voucher": ANY}},
        {"order_id": "43", "session_id": None},
        {"score": 0.1},
        {"parts": [0.2, ("a",)]},
        {"custom_properties": {"score": 0.1, "parts": [0.2, ["a"]]}},
    ],
)
def test_what_was_emitted_is_found(placed, expected):
    """Values fit by number, by predicate, by ANY, by absence, custom ones by their name."""
    found = placed.assert_emitted("order.placed", **expected)

    assert {event["event_type"] for event in found} == {"order.placed"}


@pytest.mark.parametrize(
    "expected",
    [
        {"order_id": 42},
        {"order_id": "42", "order_total": 5},
        {"order_total": Decimal("19.91")},
        {"voucher": "Y"},
        {"coupon": ANY},
        {"order_id": None},
        {"order_total": lambda total: total > 100},
        {"order_total": lambda total: total.no_such_thing},
        {"custom_properties": {}},
        {"times": 1, "order_id": ANY},
        {"times": 0},
        {"times": 3},
    ],
)
def test_what_was_not_emitted_fails(placed, expected):
    """One event must fit as a whole, and as often as is said."""
    with pytest.raises(AssertionError):
        placed.assert_emitted("order.placed", **expected)


def test_times_counts_the_events_that_fit(placed):
    """`times` is about the events with these values, not all of the name."""
    [found] = placed.assert_emitted("order.placed", times=1, order_id="42")

    assert found["session_id"] == "sess-1"
    assert placed.assert_emitted("order.failed", times=0) == []
    assert len(placed.assert_emitted("order.placed", times=2)) == 2


def test_a_failure_shows_each_difference(placed):
    """It shows the events of the name, nearest first, field by field what differs."""
    lines = complaint(
        placed, "order.placed", order_id="43", order_total=6, session_id="sess-1"
    )

    assert lines[0] == (
        "expected 'order.placed' with order_id='43', order_total=6, "
        "session_id='sess-1'; 0 match"
    )
    assert "'order_id': '42'" in lines[1] and "event_time" not in lines[1]
    assert lines[2:4] == [
        "    order_id: expected '43', got '42'",
        "    order_total: expected 6, got Decimal('19.90')",
    ]
    assert lines[-1] == "    session_id: expected 'sess-1', it is absent"


def test_a_failure_orders_by_difference(placed):
    """The event that differs least comes first, whenever it was emitted."""
    lines = complaint(placed, "order.placed", order_id="43", score=0.1, voucher="X")

    assert "'order_id': '43'" in lines[1]


def test_a_failure_stays_short():
    """Of many events under one name a few are shown, the others are counted."""
    with capture_events() as events:
        for number in range(20):
            log.info("order.placed", order_id=number)

    lines = complaint(events, "order.placed", order_id="x")
    assert len(lines) == 12
    assert lines[-1] == "  and 15 more"


def test_a_failure_counts(placed):
    """Where the number is wrong, it says how many were expected and how many match."""
    assert complaint(placed, "order.placed", times=3)[0] == (
        "expected 'order.placed' 3 times; 2 match"
    )


def test_a_failure_names_the_predicate(placed):
    """A predicate is shown by its name."""

    def is_large(total):
        return total > 100

    lines = complaint(placed, "order.placed", order_total=is_large)
    assert "order_total: expected is_large, got 5" in "\n".join(lines)


def test_a_failure_suggests_a_name(placed):
    """Where nothing has the name, the nearest known one is named, and what there was."""
    assert complaint(placed, "order.plcaed") == [
        "expected 'order.plcaed'; 0 match",
        "  none was emitted under this name; did you mean 'order.placed'?",
        "  emitted: order.placed (2), product.viewed (1)",
    ]


def test_a_failure_suggests_names_of_the_services_catalogue():
    """The known names are those of the registry in force."""
    registry = bizlog.Registry()

    class Approved(bizlog.BaseEvent):
        """An event of a catalogue of one's own."""

    registry.register(Approved, "loan.approved")
    with capture_events(registry=registry) as events:
        pass

    assert "did you mean 'loan.approved'" in complaint(events, "loan.aproved")[1]


def test_a_failure_tells_of_invalid_events_of_the_name():
    """An event that was refused is the likely reason that it is missing."""
    with capture_events(allow_invalid=True) as events:
        log.info("order.placed", order_total="much")
        log.info("order.updated", order_total="much")

    lines = complaint(events, "order.placed")
    assert lines[1:3] == [
        "  none was emitted under this name",
        "  emitted: nothing",
    ]
    assert len(lines) == 4
    assert lines[3].startswith("  invalid: order.placed $.order_total: ")


def test_assert_none_takes_patterns(placed):
    """It passes where no event has such a name, and lists those that have."""
    placed.assert_none("customer.*")
    with pytest.raises(AssertionError) as caught:
        placed.assert_none("product.*")

    assert str(caught.value).splitlines() == [
        "expected no event 'product.*'; there are 1",
        "  product.viewed {}",
    ]


def test_assert_none_is_about_all_by_default(placed):
    """Without a pattern any event fails it."""
    CapturedEvents().assert_none()
    with pytest.raises(AssertionError, match="there are 3"):
        placed.assert_none()


# Sinks that fail


def test_a_faulty_sink_recovers():
    """It fails as often as told, and then keeps what it gets."""
    sink = FaultySink(fail_start=1)

    with pytest.raises(bizlog.RetryableSinkError):
        asyncio.run(sink.start())
    asyncio.run(sink.start())

    assert sink.calls == ["start", "start"]


def test_the_fixture_is_there(business_events):
    """The plugin is found by its entry point, and gives `business_events`."""
    log.info("order.placed", order_id=1)

    business_events.assert_emitted("order.placed", order_id="1", times=1)
