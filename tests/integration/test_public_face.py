"""The public face, end to end: from a call in a service to the events in a sink."""

from __future__ import annotations

import asyncio
import contextvars
import json
import logging
import stat
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import msgspec
import pytest
import structlog

import bizlog
import bizlog.client
from bizlog.testing import FaultySink, MemorySink

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = f"00-{TRACE}-00f067aa0ba902b7-01"


@pytest.fixture(autouse=True)
def fresh_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Start without a process-wide client, in an empty folder, and end it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(bizlog.client, "_default", None)
    yield
    bizlog.shutdown(timeout=5)


@pytest.fixture
def sink() -> MemorySink:
    """Configure the process with a sink in memory."""
    memory = MemorySink()
    bizlog.configure(source="test", sinks=[memory], hash_key="k" * 32)
    return memory


def sent(sink: MemorySink) -> list[dict[str, Any]]:
    """Flush, and read the events exactly as they stand on the wire."""
    assert bizlog.flush(timeout=10)
    return [json.loads(r.data, parse_float=Decimal) for r in sink.records]


def letters() -> list[dict[str, Any]]:
    """Read all dead letters of this process."""
    files = Path("bizlog-dead-letters").glob("*.jsonl")
    return [
        json.loads(line) for file in files for line in file.read_text().splitlines()
    ]


class LoanApproved(bizlog.BaseEvent, event_type="lending.approved", version=2):
    """An event of a user."""

    amount: Annotated[Decimal, bizlog.describe("Approved.", unit="EUR")]
    term_months: Annotated[int, msgspec.Meta(ge=1)] = 12
    currency: str = "EUR"


# Events on the wire


def test_an_event_has_the_whole_envelope(sink: MemorySink) -> None:
    """Each event carries identity, source, time, versions, producer and sequence."""
    with bizlog.session("sess-1", user_id="u-7"), bizlog.correlation("c-1"):
        bizlog.get_logger().bind(product_id="1").info(
            "product.viewed", product_price=Decimal("9.99"), ai_assisted=True
        )
    (event,) = sent(sink)
    assert UUID(event.pop("event_id")).version == 7
    assert datetime.fromisoformat(event.pop("event_time")).tzinfo == UTC
    assert UUID(event.pop("producer_id"))
    assert event == {
        "event_type": "product.viewed",
        "event_source": "test",
        "environment": "unknown",
        "service_version": "unknown",
        "schema_version": 1,
        "sequence": 1,
        "correlation_id": "c-1",
        "session_id": "sess-1",
        "user_id": "u-7",
        "product_id": "1",
        "product_price": Decimal("9.99"),
        "ai_assisted": True,
    }


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Decimal("9.90"), "9.90"),
        (Decimal("1E+5"), "1E+5"),
        (Decimal("12345678901234567890.123456789"), "12345678901234567890.123456789"),
        (0.1, "0.1"),
        (7, "7"),
        ("3.50", "3.50"),
    ],
)
def test_money_is_exact_on_the_wire(sink: MemorySink, value: object, text: str) -> None:
    """A Decimal stands on the wire digit for digit, a float by its repr."""
    bizlog.get_logger().info("order.placed", order_total=value)
    bizlog.flush()
    assert f'"order_total":{text}' in sink.records[0].data.decode() + ""


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"order_total": True}, "$.order_total"),
        ({"order_total": Decimal("NaN")}, "$.order_total"),
        ({"order_total": float("inf")}, "$.order_total"),
        ({"order_total": "many"}, "$.order_total"),
        ({"processing_duration_ms": True}, "$.processing_duration_ms"),
        ({"processing_duration_ms": 1.5}, "$.processing_duration_ms"),
        ({"order_id": 1.5}, "$.order_id"),
        ({"order_items": [{"quantity": "two"}]}, "$.order_items[0].quantity"),
        ({"event_time": 5}, "$.event_time"),
        ({"event_time": "yesterday"}, "$.event_time"),
    ],
)
def test_an_invalid_event_goes_to_the_dead_letters_with_its_path(
    sink: MemorySink, fields: dict[str, Any], path: str
) -> None:
    """A wrong type refuses that event, names the JSON path, and loses no sibling."""
    log = bizlog.get_logger()
    log.info("order.placed", order_id="before")
    log.info("order.placed", **fields)
    log.info("order.placed", order_id="after")
    assert [event["order_id"] for event in sent(sink)] == ["before", "after"]
    (letter,) = letters()
    assert letter["path"] == path
    assert letter["sink"] is None
    assert letter["record"]["event_type"] == "order.placed"
    assert bizlog.ledger().sinks["memory"].rejected == 1
    assert bizlog.ledger().closed


def test_development_raises_at_the_call() -> None:
    """In development an invalid event raises where it is emitted, with its path."""
    bizlog.configure(source="test", sinks=["null:"], development=True)
    with pytest.raises(bizlog.InvalidEventError) as caught:
        bizlog.get_logger().info("order.placed", order_total=True)
    assert caught.value.path == "$.order_total"
    assert "bool" in caught.value.reason


def test_ids_may_be_numbers_and_uuids(sink: MemorySink) -> None:
    """Ids given as int or UUID become text, in items of an order too."""
    some = UUID(int=5)
    bizlog.get_logger().info(
        "order.placed", order_id=42, user_id=some, order_items=[{"product_id": 7}]
    )
    (event,) = sent(sink)
    assert event["order_id"] == "42"
    assert event["user_id"] == str(some)
    assert event["order_items"] == [{"product_id": "7"}]


def test_unknown_keys_survive(sink: MemorySink) -> None:
    """Unknown properties go to custom_properties; unknown keys of items stay."""
    item = {"product_id": "7", "price": 1.5, "gift": True}
    bizlog.get_logger().info("order.placed", order_items=[item], voucher="CATS")
    (event,) = sent(sink)
    assert event["order_items"] == [
        {"product_id": "7", "price": Decimal("1.5"), "gift": True}
    ]
    assert event["custom_properties"] == {"voucher": "CATS"}
    assert item == {"product_id": "7", "price": 1.5, "gift": True}


def test_reserved_names_never_raise_and_never_overwrite(sink: MemorySink) -> None:
    """A property with a name that bizlog writes itself moves aside."""
    reserved = {
        "event_id": 5,
        "event_type": "x",
        "event_source": "x",
        "schema_version": 9,
        "producer_id": "x",
        "sequence": -1,
        "environment": "x",
        "service_version": "x",
        "event": "x",
        "self": 1,
        "name": "n",
        "level": "l",
        "method": "m",
        "chain": "c",
    }
    bizlog.get_logger().info("product.viewed", **reserved)
    bizlog.get_logger().info("product.viewed", custom_properties=7, note="n")
    first, second = sent(sink)
    assert first["custom_properties"] == reserved
    assert first["event_type"] == "product.viewed"
    assert first["sequence"] == 1
    assert second["custom_properties"] == {"custom_properties": 7, "note": "n"}


@pytest.mark.parametrize(
    ("given", "written"),
    [
        (datetime(2026, 1, 2, 3, 4, 5, 6), "2026-01-02T03:04:05.000006Z"),  # noqa: DTZ001  # naive on purpose
        (
            datetime(2026, 1, 2, 3, tzinfo=timezone(timedelta(hours=2))),
            "2026-01-02T01:00:00.000000Z",
        ),
        ("2026-01-02T03:04:05+01:00", "2026-01-02T02:04:05.000000Z"),
    ],
)
def test_late_data_brings_its_time(
    sink: MemorySink, given: object, written: str
) -> None:
    """event_time may be passed; it is written in UTC, naive times are UTC."""
    bizlog.get_logger().info("product.viewed", event_time=given)
    assert sent(sink)[0]["event_time"] == written


def test_changing_an_object_later_changes_nothing(sink: MemorySink) -> None:
    """The event is encoded at the call; the caller's objects stay the caller's."""
    tags = ["a"]
    note = {"tags": tags}
    bizlog.get_logger().info("product.viewed", note=note)
    tags.append("b")
    assert sent(sink)[0]["custom_properties"] == {"note": {"tags": ["a"]}}
    assert note == {"tags": ["a", "b"]}


# Types of one's own


def test_an_own_type_is_validated_and_versioned(sink: MemorySink) -> None:
    """A registered class types its name, by constructor and by name alike."""
    log = bizlog.get_logger()
    log.info(LoanApproved(amount=Decimal("5.50")))
    log.info("lending.approved", amount="7")
    log.info("lending.approved", amount=1, term_months=0)
    log.info("lending.approved")
    first, second = sent(sink)
    assert first["event_type"] == "lending.approved"
    assert first["schema_version"] == second["schema_version"] == 2
    assert first["amount"] == Decimal("5.50")
    assert second["amount"] == 7
    assert first["currency"] == "EUR"
    assert "custom_properties" not in first
    assert bizlog.ledger().sinks["memory"].rejected == 2


def test_a_typed_event_keeps_its_own_envelope(sink: MemorySink) -> None:
    """What a typed event says of itself stands before the client's settings."""
    some = "01a20bfb-59ac-74e8-b03c-2b87a73b4852"
    event = bizlog.OrderEvent(
        event_type="order.placed",
        event_id=some,
        event_source="front",
        environment="blue",
        service_version="7",
        event_time=datetime(2026, 1, 2, tzinfo=UTC),
    )
    client = bizlog.client.default_client()
    assert client.send_sync(event, order_id="1") == some
    (written,) = sent(sink)
    assert written["event_source"] == "front"
    assert written["environment"] == "blue"
    assert written["service_version"] == "7"
    assert written["event_time"] == "2026-01-02T00:00:00.000000Z"
    assert written["order_id"] == "1"


def test_a_class_of_another_family_is_refused(sink: MemorySink) -> None:
    """An event of the wrong class for its name is invalid."""
    bizlog.get_logger().info(bizlog.OrderEvent(event_type="product.viewed"))
    assert sent(sink) == []
    assert letters()[0]["path"] == "$.event_type"


@pytest.mark.parametrize("name", [None, 123, ["a"], "", {}, object()])
def test_what_is_no_name_is_refused_in_words(sink: MemorySink, name: Any) -> None:
    """Whatever stands for the name: the event is refused at $.event_type and kept."""
    bizlog.get_logger().info(name, product_id="1")
    assert sent(sink) == []
    (letter,) = letters()
    assert letter["path"] == "$.event_type"
    assert letter["reason"].startswith("expected the name of an event, got")
    assert letter["record"]["product_id"] == "1"


def test_two_classes_cannot_share_a_name() -> None:
    """A second registration of a name is refused and names the first class."""
    with pytest.raises(bizlog.RegistrationError, match="LoanApproved"):

        class Other(bizlog.BaseEvent, event_type="lending.approved"):
            pass


def test_a_malformed_name_cannot_be_registered() -> None:
    """An event type is lower-case words joined by dots; the message shows one."""
    with pytest.raises(bizlog.RegistrationError, match=r"loan\.approved"):

        class Other(bizlog.BaseEvent, event_type="Loan Approved"):
            pass


def test_a_field_that_cannot_be_checked_is_refused_at_its_definition() -> None:
    """A constraint that its type does not have raises where the class is defined."""
    with pytest.raises(bizlog.RegistrationError, match="cannot be checked"):

        class Other(bizlog.BaseEvent, event_type="loan.refused"):
            amount: Annotated[Decimal, msgspec.Meta(ge=0)]

    assert "loan.refused" not in bizlog.registry.names


def test_a_subclass_may_refine_and_another_registry_may_differ() -> None:
    """A subclass refines its parent's name; a registry of one's own is apart."""
    mine = bizlog.Registry()

    class Order(bizlog.OrderEvent, event_type="order.placed", registry=mine):
        channel: str | None = None

    assert mine.resolve("order.placed").cls is Order
    assert bizlog.registry.resolve("order.placed").cls is bizlog.OrderEvent
    assert mine.resolve("product.viewed").cls is bizlog.ProductEvent


@pytest.mark.parametrize(
    ("name", "cls"),
    [
        ("product.other", bizlog.ProductEvent),
        ("order.other", bizlog.OrderEvent),
        ("customer.other", bizlog.CustomerEvent),
        ("admin.other", bizlog.AdminEvent),
        ("ai.other", bizlog.AIEvent),
        ("production.other", bizlog.BaseEvent),
        ("other", bizlog.BaseEvent),
    ],
)
def test_names_are_classified_by_prefix(name: str, cls: type) -> None:
    """The word before the first dot names the family."""
    assert bizlog.registry.resolve(name).cls is cls


def test_strict_mode_names_the_nearest_known_name() -> None:
    """Strict mode refuses names outside the catalogue and suggests one."""
    bizlog.configure(source="test", sinks=["null:"], strict=True, development=True)
    with pytest.raises(bizlog.UnknownEventError, match=r"did you mean 'order\.placed'"):
        bizlog.get_logger().info("order.plcaed")
    bizlog.get_logger().info("order.placed")


SEED_FIELDS = {
    bizlog.BaseEvent: "event_id event_type event_source event_time correlation_id "
    "session_id user_id environment service_version custom_properties schema_version "
    "producer_id sequence",
    bizlog.ProductEvent: "product_id product_name product_category product_price "
    "search_query search_results_count ai_assisted",
    bizlog.OrderEvent: "order_id order_status order_items order_total customer_name "
    "processing_duration_ms",
    bizlog.CustomerEvent: "query_text query_intent response_time_ms ai_model "
    "ai_tokens_used",
    bizlog.AdminEvent: "admin_user product_id previous_quantity new_quantity "
    "ai_generated_content",
    bizlog.AIEvent: "model_name input_tokens output_tokens estimated_cost_usd "
    "recommendation_accepted",
}


@pytest.mark.parametrize("cls", SEED_FIELDS, ids=lambda cls: cls.__name__)
def test_every_field_of_the_seed_is_there_and_described(cls: type) -> None:
    """Each type has the seed's fields, each with a description."""
    info = msgspec.inspect.type_info(cls)
    assert isinstance(info, msgspec.inspect.StructType)
    described = {
        field.name
        for field in info.fields
        if isinstance(field.type, msgspec.inspect.Metadata)
        and (field.type.extra_json_schema or {}).get("description")
    }
    assert set(SEED_FIELDS[cls].split()) <= described


# The structlog chain


def test_structlog_of_the_host_does_not_matter(sink: MemorySink) -> None:
    """The host's level filter and processors do not touch our events, nor we them."""
    before = bizlog.get_logger()
    structlog.configure(
        processors=[lambda *_: pytest.fail("the host's chain saw a business event")],
        wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL),
    )
    mine = structlog.get_config()
    try:
        before.info("product.viewed")
        bizlog.get_logger().bind(product_id="1").debug("product.viewed")
        assert structlog.get_config() == mine
    finally:
        structlog.reset_defaults()
    assert len(sent(sink)) == 2


def test_own_processors_see_change_and_drop(sink: MemorySink) -> None:
    """A user's processor sees context and name, may add, rename and drop."""
    seen: list[dict[str, Any]] = []

    def mine(_: object, __: str, event: dict[str, Any]) -> dict[str, Any]:
        seen.append(dict(event))
        if event["event"] == "product.listed":
            raise structlog.DropEvent
        return {**event, "event": "product.searched", "tenant": "t"}

    log = bizlog.get_logger(processors=[mine])
    with bizlog.session("s"):
        log.info("product.viewed", product_id="1")
        log.info("product.listed")
    (event,) = sent(sink)
    assert seen[0] == {"event": "product.viewed", "product_id": "1", "session_id": "s"}
    assert event["event_type"] == "product.searched"
    assert event["custom_properties"] == {"tenant": "t"}
    assert bizlog.ledger().sinks["memory"].dropped == {"processor": 1}
    assert bizlog.ledger().closed


def test_a_processor_that_raises_loses_nothing(sink: MemorySink) -> None:
    """An event whose processor raises is kept as a dead letter, protected."""

    def broken(*_: object) -> None:
        raise ValueError("no")

    log = bizlog.get_logger(processors=[broken])
    log.info("order.placed", customer_name="Jane Doe")
    assert sent(sink) == []
    (letter,) = letters()
    assert letter["reason"] == "ValueError in the processor broken"
    assert letter["record"]["customer_name"] == "***"


def test_all_methods_emit_the_same_event(sink: MemorySink) -> None:
    """Every level method emits; the level is not stored."""
    log = bizlog.get_logger()
    names = ("debug", "info", "warning", "error", "critical", "exception", "msg")
    for name in names:
        getattr(log, name)("product.viewed", n=1)
    log.log(30, "product.viewed", n=1)

    async def asynchronously() -> None:
        await log.ainfo("product.viewed", n=1)
        await log.aexception("product.viewed", n=1)
        await log.alog(10, "product.viewed", n=1)

    asyncio.run(asynchronously())
    events = sent(sink)
    assert len(events) == len(names) + 4
    assert {frozenset(event) for event in events} == {frozenset(events[0])}
    assert all(event["custom_properties"] == {"n": 1} for event in events)


def test_bound_values_and_mappings(sink: MemorySink) -> None:
    """bind, unbind and new are structlog's; a mapping after the name adds to it."""
    log = bizlog.get_logger(product_id="0", source="front")
    log.bind(product_id="1").info("product.viewed", {"product_name": "x"}, "stray")
    log.unbind("product_id").info("product.viewed")
    log.info()
    first, second = sent(sink)
    assert first["product_id"] == "1"
    assert first["product_name"] == "x"
    assert first["custom_properties"] == {"arg_1": "stray"}
    assert first["event_source"] == "front"
    assert "product_id" not in second
    assert letters()[0]["path"] == "$.event_type"


# Context


def context() -> dict[str, Any]:
    """What events emitted here would carry."""
    return bizlog.current_context()


def test_nesting_restores() -> None:
    """Leaving a scope restores exactly what was there, also after an exception."""
    with bizlog.session("a", user_id="u"):
        with bizlog.session("b"), bizlog.user("v", tenant="t"):
            assert context() == {"session_id": "b", "user_id": "v", "tenant": "t"}
        with suppress(ValueError), bizlog.correlation("c"):
            bizlog.bind_context(deep=1)
            raise ValueError("x")
        assert context() == {"session_id": "a", "user_id": "u"}
    assert context() == {}


def test_ids_are_made_where_none_is_given() -> None:
    """session() and correlation() without an id make one, new at each entry."""
    scope = bizlog.session()
    with scope as first, scope as second:
        assert UUID(first["session_id"]) != UUID(second["session_id"])
    with bizlog.correlation() as made:
        assert UUID(made["correlation_id"])


def test_decorators_and_async_scopes() -> None:
    """Scopes work on functions, coroutine functions and with `async with`."""

    @bizlog.session("f")
    def function() -> dict[str, Any]:
        return context()

    @bizlog.user("c")
    async def coroutine() -> dict[str, Any]:
        async with bizlog.correlation("x"):
            await asyncio.sleep(0)
            return context()

    assert function() == {"session_id": "f"}
    assert asyncio.run(coroutine()) == {"user_id": "c", "correlation_id": "x"}
    assert function.__name__ == "function"
    assert context() == {}


def test_a_thread_starts_without_context() -> None:
    """A new thread has no context of its parent's; copy_context carries it over."""
    with bizlog.session("s"), ThreadPoolExecutor(1) as pool:
        assert pool.submit(context).result() == {}
        carried = contextvars.copy_context()
        assert pool.submit(carried.run, context).result() == {"session_id": "s"}
        assert pool.submit(context).result() == {}


def test_tasks_have_their_own_context() -> None:
    """A task inherits the context and changes only its own."""

    async def one(name: str) -> dict[str, Any]:
        assert context() == {"session_id": "s"}
        bizlog.bind_context(user_id=name)
        await asyncio.sleep(0)
        return context()

    async def main() -> None:
        with bizlog.session("s"):
            found = await asyncio.gather(one("a"), one("b"))
            assert [each["user_id"] for each in found] == ["a", "b"]
            assert context() == {"session_id": "s"}

    asyncio.run(main())


def test_to_thread_inherits() -> None:
    """asyncio.to_thread carries the context."""

    async def main() -> dict[str, Any]:
        with bizlog.session("s"):
            return await asyncio.to_thread(context)

    assert asyncio.run(main()) == {"session_id": "s"}


def test_a_decorated_generator_keeps_its_context_to_itself() -> None:
    """The context holds while the generator runs, not while it is suspended."""

    @bizlog.session("g")
    def generate() -> Iterator[Any]:
        bizlog.bind_context(step=1)
        got = yield context()
        try:
            yield (got, context())
        except KeyError:
            yield "caught"
        return "end"

    with bizlog.session("outer"):
        generator = generate()
        assert next(generator) == {"session_id": "g", "step": 1}
        assert context() == {"session_id": "outer"}
        assert generator.send("sent") == ("sent", {"session_id": "g", "step": 1})
        assert generator.throw(KeyError()) == "caught"
        with pytest.raises(StopIteration) as stop:
            next(generator)
        assert stop.value.value == "end"
        closed = generate()
        next(closed)
        closed.close()
        assert context() == {"session_id": "outer"}


def test_a_decorated_async_generator_keeps_its_context_to_itself() -> None:
    """The same holds for asynchronous generators."""

    @bizlog.session("g")
    async def generate() -> Any:
        got = yield context()
        try:
            yield (got, context())
        except KeyError:
            yield "caught"

    async def main() -> None:
        with bizlog.session("outer"):
            generator = generate()
            assert await anext(generator) == {"session_id": "g"}
            assert context() == {"session_id": "outer"}
            assert await generator.asend("x") == ("x", {"session_id": "g"})
            assert await generator.athrow(KeyError()) == "caught"
            with pytest.raises(StopAsyncIteration):
                await anext(generator)
            closed = generate()
            await anext(closed)
            await closed.aclose()
            assert context() == {"session_id": "outer"}

    asyncio.run(main())


def test_a_generator_may_end_in_another_context() -> None:
    """A scope inside a generator that is closed elsewhere does not raise."""

    def generate() -> Iterator[None]:
        with bizlog.session("g"):
            yield

    generator = generate()
    contextvars.copy_context().run(next, generator)
    generator.close()
    assert context() == {}


def test_bind_context_ends_with_its_block() -> None:
    """bind_context takes effect at once; with `with` it ends there."""
    with bizlog.session("s"):
        with bizlog.bind_context(cart="1"):
            assert context() == {"session_id": "s", "cart": "1"}
        bizlog.bind_context(cart="2", user_id=None)
        assert context() == {"session_id": "s", "cart": "2"}
    assert context() == {}


def test_traceparent_gives_the_correlation_id(sink: MemorySink) -> None:
    """The trace id is the correlation id where none is set, however it comes in."""
    log = bizlog.get_logger()
    with bizlog.correlation(traceparent=TRACEPARENT):
        log.info("product.viewed")
    with bizlog.session("s", traceparent=TRACEPARENT):
        log.info("product.viewed")
        with bizlog.correlation("mine"):
            log.info("product.viewed")
    with bizlog.bind_context(traceparent=TRACEPARENT):
        log.info("product.viewed")
    log.bind(traceparent=TRACEPARENT).info("product.viewed")
    log.info("product.viewed", traceparent=TRACEPARENT, correlation_id="mine")
    found = [event["correlation_id"] for event in sent(sink)]
    assert found == [TRACE, TRACE, "mine", TRACE, TRACE, "mine"]


@pytest.mark.parametrize(
    "header",
    [
        "",
        "garbage",
        f"ff-{TRACE}-00f067aa0ba902b7-01",
        f"00-{'0' * 32}-00f067aa0ba902b7-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-00f067aa0ba902b7-01",
        f"00-{TRACE[:-1]}-00f067aa0ba902b7-01",
        f"{TRACEPARENT}-more",
        5,
        b"x",
    ],
)
def test_a_malformed_traceparent_is_ignored(header: Any) -> None:
    """What W3C calls invalid is as if it were not there."""
    with bizlog.session("s", traceparent=header):
        assert context() == {"session_id": "s"}


# Privacy


def test_tagged_fields_are_protected(sink: MemorySink) -> None:
    """Tags decide: masks, keyed pseudonyms, cut text; session ids are not harmed."""
    log = bizlog.get_logger()
    log.info("order.placed", customer_name="Jane", session_id="session-secret-1")
    log.info("admin.failed", admin_user="root", user_id="jane@example.com")
    log.info("admin.failed", admin_user="root", ai_generated_content="x" * 300)
    log.info("product.searched", search_query="y" * 300)
    order, first, second, search = sent(sink)
    assert order["customer_name"] == "***"
    assert order["session_id"] == "session-secret-1"
    assert first["admin_user"] == second["admin_user"] != "root"
    assert "@" not in first["user_id"]
    assert second["ai_generated_content"] == "x" * 256
    assert search["search_query"] == "y" * 256


def test_every_policy_can_be_set_for_any_field() -> None:
    """Settings stand before tags, for custom properties too."""
    sink = MemorySink()
    bizlog.configure(
        source="test",
        sinks=[sink],
        privacy={
            "customer_name": "keep",
            "order_status": "drop",
            "note": "mask",
            "phone": "hash",
            "mail": "hash_email",
            "comment": "truncate:3",
        },
    )
    given = {"note": "n", "phone": 5, "mail": "a@b.org", "comment": "long"}
    bizlog.get_logger().info(
        "order.placed", customer_name="Jane", order_status="new", **given
    )
    (event,) = sent(sink)
    custom = event["custom_properties"]
    assert event["customer_name"] == "Jane"
    assert "order_status" not in event
    assert custom["note"] == "***"
    assert len(custom["phone"]) == len(custom["mail"]) == 32
    assert custom["comment"] == "lon"


def test_dead_letters_are_protected_and_closed_to_others(sink: MemorySink) -> None:
    """An invalid event is masked before it is kept, in a file only we may read."""
    bizlog.get_logger().info(
        "order.placed", customer_name="Jane", order_total=True, when=object()
    )
    sent(sink)
    (letter,) = letters()
    assert letter["record"]["customer_name"] == "***"
    assert list(letter) == [
        "reason",
        "path",
        "sink",
        "attempts",
        "first_at",
        "last_at",
        "event_id",
        "record",
    ]
    folder = Path("bizlog-dead-letters")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(f.stat().st_mode) for f in folder.iterdir()} == {0o600}


# Settings


def test_all_faults_come_in_one_list(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each fault names setting, origin, type, expectation; the nearest name helps."""
    monkeypatch.setenv("BIZLOG_BATCH_SIZE", "many")
    Path("bizlog.toml").write_text('flush_intervall = 1\nstrict = "x"\n')
    with pytest.raises(bizlog.ConfigurationError) as caught:
        bizlog.configure(
            sinks=["fiel:./x", "file:./x?rotate_byte=1", 5, {"directory": "."}],
            overflow="explode",
            queue_events=0,
            privacy={"a": "erase"},
            hash_key="short-secret",
            development=1,
        )
    text = str(caught.value)
    assert len(caught.value.problems) == 12
    for part in (
        "BIZLOG_BATCH_SIZE",
        "did you mean 'flush_interval'",
        "strict (bizlog.toml)",
        "did you mean 'file'",
        "did you mean 'rotate_bytes'",
        "sinks[2]",
        "needs 'type'",
        "'drop_newest', 'drop_oldest' or 'block'",
        "at least 1",
        "truncate:N",
        "at least 16 bytes",
        "development (argument): expected true or false, got 1 (int)",
    ):
        assert part in text
    assert "short-secret" not in text


def test_arguments_before_environment_before_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The nearer source wins; OpenTelemetry's variables fill what is unset."""
    Path("bizlog.toml").write_text(
        'source = "toml"\nenvironment = "toml"\nservice_version = "toml"\n'
        'batch_size = 7\n[[sinks]]\ntype = "null"\n'
    )
    monkeypatch.setenv("BIZLOG_SOURCE", "env")
    monkeypatch.setenv("BIZLOG_ENVIRONMENT", "env")
    monkeypatch.setenv("BIZLOG_SINKS", "null:, console:stderr")
    client = bizlog.configure(source="argument")
    settings = client.settings
    assert settings.source == "argument"
    assert settings.environment == "env"
    assert settings.service_version == "toml"
    assert settings.batch_size == 7
    assert [sink.name for sink in settings.sinks] == ["null", "console"]


def test_opentelemetry_names_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    """OTEL_SERVICE_NAME and the resource attributes fill what is unset."""
    monkeypatch.setenv("OTEL_SERVICE_NAME", "shop")
    monkeypatch.setenv(
        "OTEL_RESOURCE_ATTRIBUTES",
        "service.name=no,service.version=1.4,deployment.environment=prod%20eu",
    )
    settings = bizlog.configure(sinks=["null:"]).settings
    assert settings.source == "shop"
    assert settings.service_version == "1.4"
    assert settings.environment == "prod eu"


def test_broken_settings_never_reach_a_caller_that_did_not_configure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Configured by the first emit, faults are logged and the event is kept."""
    monkeypatch.setenv("BIZLOG_SINKS", "nowhere:")
    bizlog.get_logger().info("product.viewed")
    bizlog.flush()
    assert bizlog.ledger().sinks["unconfigured"].dead_lettered == 1
    assert letters()[0]["record"]["event_type"] == "product.viewed"


def test_without_any_configuration_there_are_files() -> None:
    """No configuration at all writes JSON Lines into ./bizlog-events."""
    bizlog.get_logger().info("product.viewed", product_id="1")
    assert bizlog.flush(timeout=10)
    (file,) = Path("bizlog-events").glob("event_type=product.viewed/date=*/*.jsonl")
    assert json.loads(file.read_text())["product_id"] == "1"


# Clients


def test_the_client_works_from_any_thread_and_loop() -> None:
    """One client serves threads, two event loops in a row, and synchronous code."""
    sink = MemorySink()

    async def some(client: bizlog.BusinessTelemetryClient) -> None:
        await client.send("order.placed", order_id="a")
        assert await client.flush(timeout=10)

    with bizlog.BusinessTelemetryClient(source="c", sinks=[sink]) as client:
        asyncio.run(some(client))
        asyncio.run(some(client))
        threads = [
            threading.Thread(target=client.send_sync, args=("order.placed",))
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        log = bizlog.get_logger(client=client)
        log.info("order.updated")
        assert client.flush_sync(10)
    assert sorted(r.sequence for r in sink.records) == list(range(1, 8))
    assert client.ledger().closed
    assert sink.calls[-1] == "stop"


def test_async_with_delivers_at_its_end() -> None:
    """Leaving `async with` has delivered; later events are counted as dropped."""
    sink = MemorySink()

    async def main() -> bizlog.BusinessTelemetryClient:
        async with bizlog.BusinessTelemetryClient(source="c", sinks=[sink]) as client:
            assert await client.send(LoanApproved(amount=Decimal(1)))
        return client

    client = asyncio.run(main())
    assert len(sink.records) == 1
    assert client.send_sync("order.placed") is None
    assert client.shutdown_sync()
    assert client.ledger().sinks["memory"].dropped == {"closed": 1}
    assert client.ledger().closed


def test_a_second_configure_drains_then_swaps() -> None:
    """Events of the first configuration reach its sinks; loggers follow the second."""
    first, second = MemorySink(), MemorySink()
    old = bizlog.configure(source="one", sinks=[first])
    log = bizlog.get_logger()
    log.info("product.viewed")
    bizlog.configure(source="two", sinks=[second])
    log.info("product.viewed")
    bizlog.flush(timeout=10)
    assert [e["event_source"] for e in first.events] == ["one"]
    assert [e["event_source"] for e in second.events] == ["two"]
    assert old.ledger().closed


def test_a_configure_that_fails_changes_nothing(sink: MemorySink) -> None:
    """With faults in the new settings, those in force stay in force."""
    with pytest.raises(bizlog.ConfigurationError):
        bizlog.configure(sinks=[])
    bizlog.get_logger().info("product.viewed")
    assert len(sent(sink)) == 1


def test_the_ledger_reads_as_a_table() -> None:
    """The printed ledger shows every state, and whether it closes."""
    good = MemorySink()
    bad = FaultySink(fail_calls=None, error=bizlog.PermanentSinkError("no"))
    bizlog.configure(source="test", sinks=[good, bad])
    bizlog.get_logger().info("product.viewed")
    bizlog.flush(timeout=10)
    table = str(bizlog.ledger())
    assert [line.split()[0] for line in table.splitlines()] == [
        "sink",
        "memory",
        "faulty",
    ]
    assert table.count("closed") == 2
    assert bizlog.ledger().sinks["faulty"].dead_lettered == 1


def test_a_start_that_fails_at_the_recursion_limit_is_made_up_for(
    sink: MemorySink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An emit too deep in the stack to start the thread leaves it to the next one."""
    start, failures = threading.Thread.start, [RecursionError()]

    def start_or_fail(thread: threading.Thread) -> None:
        if thread.name == "bizlog" and failures:
            raise failures.pop()
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_or_fail)
    log = bizlog.get_logger()
    log.info("product.viewed")
    log.info("product.viewed")
    assert not failures
    assert len(sent(sink)) == 2
    assert bizlog.ledger().closed


def test_an_unknown_variable_is_reported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A BIZLOG_ variable that sets nothing is named once, with the nearest one."""
    said: list[str] = []
    monkeypatch.setattr(
        "bizlog.diagnostics.report", lambda _, message: said.append(message)
    )
    monkeypatch.setenv("BIZLOG_STRCT", "1")
    bizlog.configure(source="test", sinks=["null:"])
    assert said == [
        (
            "BIZLOG_STRCT is set, but there is no such setting; "
            "did you mean 'BIZLOG_STRICT'?"
        )
    ]


# Switched off


def test_disabled_does_nothing_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """`BIZLOG_DISABLED=1`: no file, no thread, no sink, no error, whatever is set."""
    monkeypatch.setenv("BIZLOG_DISABLED", "1")
    threads = set(threading.enumerate())
    client = bizlog.configure(source="test", sinks=["nowhere:x"], development=True)
    log = bizlog.get_logger(processors=[lambda *_: 1 / 0])
    with bizlog.session("s"):
        log.info("order.placed", order_total="no number")
        assert client.send_sync("order.placed") is None
    assert bizlog.flush(timeout=0)
    assert bizlog.ledger().sinks == {}
    # No new one; those of the tests before may end meanwhile.
    assert set(threading.enumerate()) <= threads
    assert bizlog.shutdown(timeout=0)
    assert list(Path.cwd().iterdir()) == []


def test_disabled_without_any_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    """It holds for a process that never configures, too."""
    monkeypatch.setenv("BIZLOG_DISABLED", "true")
    bizlog.get_logger().info("order.placed")
    assert bizlog.flush(timeout=0)
    assert list(Path.cwd().iterdir()) == []


def test_the_null_sink_discards_and_counts() -> None:
    """`null:` checks and counts events, and keeps none."""
    bizlog.configure(source="test", sinks=["null:"])
    bizlog.get_logger().info("order.placed", order_id="42")
    bizlog.get_logger().info("order.placed", order_total="no number")
    assert bizlog.flush(timeout=5)
    ledger = bizlog.ledger().sinks["null"]
    assert (ledger.delivered, ledger.rejected) == (1, 1)
