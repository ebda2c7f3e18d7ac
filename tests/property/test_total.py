"""Whatever a caller passes: no error, valid JSON or a dead letter, no sibling lost."""

from __future__ import annotations

import copy
import datetime as dt
import json
import math
import sys
import uuid
from collections import UserDict
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import bizlog
from bizlog.client import BusinessTelemetryClient
from bizlog.coercion import HARD_LIMIT_BYTES, SOFT_LIMIT_BYTES
from bizlog.testing import MemorySink

ENVELOPE = ("event_id", "event_type", "event_source", "event_time", "sequence")


class Hostile:
    """An object whose methods do what they are told."""

    def __init__(self, act: Any) -> None:
        self.act = act

    def __repr__(self) -> str:
        return self.act()

    __str__ = __repr__

    def __hash__(self) -> int:
        return 7

    def __len__(self) -> int:
        return self.act()


def raising(error: BaseException) -> Any:
    """Make an act that raises."""

    def act() -> Any:
        raise error

    return act


class Interrupted(BaseException):
    """An error that is no Exception."""


def looped() -> Any:
    """Make containers that hold each other."""
    a: list[Any] = []
    b = {"a": a}
    a.append(b)
    return b


HOSTILE: dict[str, Any] = {
    "nan": math.nan,
    "infinity": math.inf,
    "2**64": 2**64,
    "10**5000": 10**5000,
    "surrogate": "a\ud800b",
    "nul": "a\x00b",
    "bytes": b"\xff\x00",
    "set": {1, "a", (2,)},
    "cycle": looped(),
    "number keys": {1: "a", "1": "b", 2.5: "c", None: "d", False: "e"},
    "odd keys": {(1, 2): "a", b"x": "b", "\ud800": "c"},
    "generator": (x for x in [1]),
    "decimal nan": Decimal("NaN"),
    "decimal huge": Decimal("1E+999999"),
    "uuid": uuid.UUID(int=7),
    "naive": dt.datetime(2026, 1, 2),  # noqa: DTZ001  # that is the point
    "class": Hostile,
    "object": object(),
    "raises": Hostile(raising(ValueError("x"))),
    "raises no Exception": Hostile(raising(Interrupted())),
    "raises at exit": Hostile(raising(GeneratorExit())),
    "no text": Hostile(lambda: 7),
    "recurses": Hostile(lambda: repr(Hostile(raising(RecursionError())))),
}


@pytest.fixture(scope="module")
def client() -> Iterator[BusinessTelemetryClient]:
    """A client whose records are read from its queue; nothing is sent."""
    with BusinessTelemetryClient(
        source="test", sinks=[MemorySink()], queue_events=10**6, queue_bytes=10**9
    ) as made:
        made._queue.awake = True  # so that nobody wakes the pump
        yield made
        made._queue.take(10**6)
        made._engine.pump.rejected.take()


def no_constant(text: str) -> Any:
    """Refuse NaN and Infinity, which json.loads would take."""
    raise AssertionError(f"{text} is no JSON")


def no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse a key that stands twice."""
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


def strictly(data: bytes) -> dict[str, Any]:
    """Parse an event as the strictest reader would."""
    assert b"\n" not in data
    found: dict[str, Any] = json.loads(
        data.decode("utf-8"),
        parse_constant=no_constant,
        object_pairs_hook=no_duplicates,
        parse_float=Decimal,
        parse_int=lambda text: text,
    )
    return found


def emitted(client: BusinessTelemetryClient, *args: Any, **fields: Any) -> list[Any]:
    """Emit an event between two siblings, and read what was made of it."""
    log = bizlog.get_logger(client=client)
    offered = client._offered
    log.info("product.viewed", product_id="before")
    log.info(*args, **fields)
    log.info("product.viewed", product_id="after")
    assert client._offered == offered + 3
    records = client._queue.take(10**6)
    events = [strictly(record.data) for record in records]
    assert events[0]["product_id"] == "before"
    assert events[-1]["product_id"] == "after"
    for event, record in zip(events, records, strict=True):
        assert [event[name] for name in ENVELOPE[:2]] == [
            record.event_id,
            record.event_type,
        ]
        assert len(record.data) <= HARD_LIMIT_BYTES + 4_096
    letters = client._engine.pump.rejected.take()
    for letter in letters:
        strictly(msgspec.json.encode(letter))
    assert len(events) - 2 + len(letters) == 1
    return events[1:-1]


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("where", ["custom", "nested", "typed", "item", "mapping"])
def test_the_catalogue_of_hostile_values(
    client: BusinessTelemetryClient, name: str, where: str
) -> None:
    """A hostile value costs at most itself; where nothing types it, not even that."""
    value = HOSTILE[name]
    fields: dict[str, dict[str, Any]] = {
        "custom": {"anything": value},
        "nested": {"custom_properties": {"a": [{"b": value}]}},
        "typed": {"order_status": value},
        "item": {"order_items": [{"product_id": "1", "note": value}]},
        "mapping": {},
    }
    args = [{"anything": value, "x": {"y": value}}] if where == "mapping" else []
    events = emitted(client, "order.placed", *args, order_id="42", **fields[where])
    if where != "typed":
        assert events[0]["order_id"] == "42"


# Any value at all


def hostile_values() -> st.SearchStrategy[Any]:
    """Draw values of every kind, nested in every kind of container."""
    leaves = st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.decimals(),
        st.text(),
        st.text(st.characters(categories=["Cs"]), max_size=3),
        st.binary(max_size=5),
        st.uuids(),
        st.datetimes(),
        st.dates(),
        st.times(),
        st.timedeltas(),
        st.fractions(),
        st.complex_numbers(),
        st.sampled_from(sorted(HOSTILE)).map(lambda name: HOSTILE[name]),
    )
    keys = st.one_of(
        st.text(max_size=3), st.integers(0, 3), st.none(), st.floats(), st.binary()
    )
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.lists(inner, max_size=3),
            st.dictionaries(keys, inner, max_size=3),
            st.tuples(inner, inner),
            st.lists(inner, max_size=3).map(iter),
        ),
        max_leaves=6,
    )


NAMES = [*bizlog.registry.names, "shop.opened", "x", "", "a" * 300, "\ud800", None, 7]
FIELDS = [
    *bizlog.OrderEvent.__struct_fields__,
    *("name", "level", "self", "event", "args", "method", "anything", "traceparent"),
]


@settings(
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    deadline=None,
)
@given(
    st.sampled_from(NAMES),
    st.dictionaries(st.sampled_from(FIELDS), hostile_values(), max_size=4),
    st.lists(hostile_values(), max_size=2),
)
def test_any_call_is_survived(
    client: BusinessTelemetryClient, name: Any, fields: dict[str, Any], args: list[Any]
) -> None:
    """Any name, any properties, any arguments: never an error, never a lost sibling."""
    emitted(client, name, *args, **fields)


def unchanged(value: Any) -> Any:
    """Draw the state of plain data, NaN included."""
    return json.dumps(
        value,
        default=lambda each: sorted(map(repr, each)),
        sort_keys=True,
        skipkeys=True,
    )


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(FIELDS),
        st.recursive(
            st.one_of(st.text(), st.integers(), st.floats(), st.sets(st.integers())),
            lambda inner: st.one_of(
                st.lists(inner, max_size=3),
                st.dictionaries(st.text(max_size=3), inner, max_size=3),
            ),
            max_leaves=8,
        ),
        max_size=5,
    )
)
def test_the_callers_objects_stay_as_they_are(
    client: BusinessTelemetryClient, fields: dict[str, Any]
) -> None:
    """What was passed is afterwards what it was before."""
    before = copy.deepcopy(fields)
    emitted(client, "order.placed", fields, **fields)
    assert unchanged(fields) == unchanged(before)


# Reserved names


def test_reserved_names_never_raise_and_never_overwrite(
    client: BusinessTelemetryClient,
) -> None:
    """Names that only bizlog writes, and names of Python's own, move aside."""
    (event,) = emitted(
        client,
        "order.placed",
        event_id=5,
        name="n",
        level="gold",
        self=1,
        event_type="x.y",
        event="party",
        sequence=-1,
        producer_id=None,
        custom_properties=7,
    )
    assert event["event_type"] == "order.placed"
    assert uuid.UUID(event["event_id"]).version == 7
    custom = event["custom_properties"]
    assert (custom["name"], custom["level"], custom["self"]) == ("n", "gold", "1")
    assert (custom["event_id"], custom["event_type"]) == ("5", "x.y")
    assert (custom["event"], custom["custom_properties"]) == ("party", "7")


def test_reserved_names_may_be_bound(client: BusinessTelemetryClient) -> None:
    """`bind`, `new` and the context take any name, too."""
    log = bizlog.get_logger(client=client).bind(self=1, event="e").new(self=2, level=3)
    with bizlog.session("s", self=4), bizlog.user("u", method=5):
        log.info("order.placed")
    (record,) = client._queue.take(10)
    custom = record.event["custom_properties"]
    assert custom == {"self": 2, "level": 3, "method": 5}


# Limits


def test_long_texts_are_cut_until_the_event_fits(
    client: BusinessTelemetryClient,
) -> None:
    """The longest go first; short ones stay whole, and a marker says what went."""
    (event,) = emitted(
        client, "order.placed", order_id="42", big="x" * 10**6, small="y" * 200
    )
    assert event["custom_properties"]["small"] == "y" * 200
    assert event["custom_properties"]["big"].endswith("…(truncated 934464)")


def test_a_typed_text_is_cut_as_well(client: BusinessTelemetryClient) -> None:
    """A text in a typed field is no exception."""
    (event,) = emitted(client, "product.viewed", product_name="x" * 64 * 1024 * 1024)
    assert len(event["product_name"]) < SOFT_LIMIT_BYTES


def test_an_event_that_cannot_be_made_to_fit_is_a_dead_letter(
    client: BusinessTelemetryClient,
) -> None:
    """Beyond the hard limit it is refused with its size; the letter is bounded."""
    log = bizlog.get_logger(client=client)
    log.info("order.placed", order_id="42", many=["x" * 100] * 40_000)
    assert client._queue.take(10) == []
    (letter,) = client._engine.pump.rejected.take()
    assert "at most 921,600 bytes" in letter.reason
    kept = json.loads(bytes(letter.record))
    assert kept["order_id"] == "42"
    assert len(bytes(letter.record)) <= SOFT_LIMIT_BYTES


def test_many_keys_are_cut(client: BusinessTelemetryClient) -> None:
    """A hundred thousand properties become as many as an event may have."""
    fields = {f"key-{number}": number for number in range(100_000)}
    (event,) = emitted(client, "order.placed", fields)
    assert event["custom_properties"]["…"].startswith("…(truncated ")


# No depth, no memory


def at_depth(left: int, call: Any) -> Any:
    """Call something with so many frames left."""

    def down(frames: int) -> Any:
        return call() if frames <= 0 else down(frames - 1)

    depth = 0
    frame = sys._getframe()
    while frame:
        depth, frame = depth + 1, frame.f_back
    return down(sys.getrecursionlimit() - depth - left)


@pytest.mark.parametrize("fields", [{"product_id": "1"}, {"anything": {1, 2}}])
def test_an_emit_near_the_recursion_limit_is_counted(
    client: BusinessTelemetryClient, fields: dict[str, Any]
) -> None:
    """However little depth is left: no error, and the ledger knows the event."""
    log = bizlog.get_logger(client=client)
    log.info("product.viewed", **fields)
    client._queue.take(10)
    for left in range(2, 60):
        before = client.ledger().sinks["memory"]
        try:
            at_depth(left, lambda: log.info("product.viewed", **fields))
        except RecursionError:
            # Not even the call of `info` had a frame: it was never ours.
            assert client.ledger().sinks["memory"] == before
            continue
        after = client.ledger().sinks["memory"]
        assert after.offered == before.offered + 1
        assert after.offered - before.offered == after.settled - before.settled
        for record in client._queue.take(10):
            strictly(record.data)
    log.info("product.viewed", **fields)
    assert len(client._queue.take(10)) == 1


@pytest.mark.parametrize("error", [MemoryError, RecursionError])
def test_without_memory_the_envelope_goes_out(
    client: BusinessTelemetryClient, error: type[BaseException]
) -> None:
    """What fails for lack of memory or depth leaves an event that says so."""

    def fail(*_: Any) -> Any:
        raise error

    log = bizlog.get_logger(client=client, processors=[fail])
    log.info("product.viewed", product_id="1")
    (record,) = client._queue.take(10)
    event = strictly(record.data)
    assert event["event_type"] == "product.viewed"
    assert event["custom_properties"] == {"bizlog_error": error.__name__}


class Odd(UserDict):
    """A mapping that cannot be read."""

    def __iter__(self) -> Any:
        raise ValueError


@pytest.mark.parametrize("answer", [None, 7, "", [], {}, {1: 2}, object(), Odd()])
@pytest.mark.parametrize("then", [None, ValueError, MemoryError])
def test_whatever_a_processor_returns_is_survived(
    client: BusinessTelemetryClient, answer: Any, then: type[Exception] | None
) -> None:
    """A processor that returns no dictionary costs its event, and the ledger closes."""

    def odd(*_: Any) -> Any:
        return answer

    class Broken:
        @property
        def __name__(self) -> str:
            raise ValueError

        def __call__(self, *_: Any) -> Any:
            if then:
                raise then
            return answer

    log = bizlog.get_logger(client=client, processors=[odd, Broken()])
    before = client.ledger().sinks["memory"]
    log.info("order.placed", customer_name="Jane Doe")
    after = client.ledger().sinks["memory"]
    taken = client._queue.take(10)
    letters = client._engine.pump.rejected.take()
    assert len(taken) + len(letters) == 1
    assert after.settled - before.settled == 1
    for record in taken:
        strictly(record.data)
    for letter in letters:
        assert b"Jane" not in bytes(letter.record)


@pytest.mark.parametrize("error", [ValueError, Interrupted, GeneratorExit])
def test_a_mapping_that_cannot_be_read_is_one_property(
    client: BusinessTelemetryClient, error: type[BaseException]
) -> None:
    """A mapping whose methods raise costs itself, not the properties beside it."""

    class Closed(UserDict):
        def __iter__(self) -> Any:
            raise error

    (event,) = emitted(client, "order.placed", Closed({"a": 1}), {"b": 2}, order_id="4")
    assert event["order_id"] == "4"
    assert event["custom_properties"] == {"arg_0": "<Closed: unreadable>", "b": "2"}


def test_interrupts_pass(client: BusinessTelemetryClient) -> None:
    """KeyboardInterrupt and SystemExit raised by a value reach the caller."""
    log = bizlog.get_logger(client=client)
    for error in (KeyboardInterrupt, SystemExit):
        with pytest.raises(error):
            log.info("order.placed", x=Hostile(raising(error())))
    assert client._dropped.snapshot()["interrupted"] == 2


# Development


def test_development_names_path_expected_and_got() -> None:
    """In development the fault is raised where the call is, in words."""
    with BusinessTelemetryClient(
        source="test", sinks=[MemorySink()], development=True
    ) as client:
        log = bizlog.get_logger(client=client)
        with pytest.raises(bizlog.InvalidEventError) as caught:
            log.info("order.placed", order_items=[{"price": "cheap"}])
        assert caught.value.path == "$.order_items[0].price"
        assert "decimal" in str(caught.value)
        assert "str" in str(caught.value)
        with pytest.raises(bizlog.InvalidEventError, match="finite number, got Dec"):
            log.info("order.placed", order_total=Decimal("NaN"))
        log.info("order.placed", anything=math.nan)
        assert client.ledger().sinks["memory"].rejected == 2
