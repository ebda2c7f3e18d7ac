"""The one-step way through the chain writes the same bytes as its processors."""

from __future__ import annotations

import itertools
from contextlib import ExitStack
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any
from unittest import mock

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import bizlog
from bizlog import processors
from bizlog.client import DEFAULT_CHAIN
from bizlog.coercion import payload_fields
from bizlog.context import session
from bizlog.exceptions import InvalidEventError
from bizlog.ledger import Tallies
from bizlog.plan import Chain, Outlet
from bizlog.privacy import Privacy

registry = bizlog.Registry()


class Line(msgspec.Struct, omit_defaults=True):
    """An item of a user's own."""

    sku: str
    weight: float = 1.0
    price: Decimal | None = None


class Shipped(bizlog.BaseEvent, event_type="parcel.shipped", registry=registry):
    """An event of a user, with defaults, constraints and a required field."""

    parcel_id: str
    carrier: str = "post"
    weight: float | None = None
    stars: Annotated[int, msgspec.Meta(ge=0, le=5)] = 3
    lines: list[Line] | None = None
    note: Annotated[str | None, bizlog.describe("Note.", privacy="truncate")] = None


class Opened(bizlog.BaseEvent, event_type="parcel.opened", registry=registry):
    """An event whose fields leave something open."""

    at: datetime | None = None
    tags: set[str] | None = None
    meta: dict[str, Any] | None = None


NAMES = sorted(registry.names)
FIELDS = sorted(
    {field for name in NAMES for field in payload_fields(registry.resolve(name).cls)}
)
ITEMS = st.lists(
    st.dictionaries(
        st.sampled_from(["price", "product_id", "quantity", "sku", "weight", "x"]),
        st.one_of(st.floats(), st.integers(), st.text(max_size=3), st.decimals()),
        max_size=4,
    ),
    max_size=3,
)
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.decimals(),
    st.text(max_size=8),
    st.uuids(),
    st.sampled_from(
        [
            "jane@example.com",
            "\ud800",
            "q" * 300,
            Decimal("NaN"),
            Decimal("1E+5"),
            datetime(2026, 1, 2, tzinfo=UTC),
        ]
    ),
    ITEMS,
    st.dictionaries(st.text(max_size=5), st.integers(), max_size=3),
)
CONTEXTS = st.sampled_from(
    [
        None,
        {"session_id": "sess-1", "user_id": "u-7"},
        {"session_id": 5, "correlation_id": "c"},
        {"session_id": "jane@example.com"},
        {"session_id": "s", "campaign": "spring"},
        {"session_id": ["no id"]},
    ]
)
POLICIES = {"product_name": "drop", "note": "mask", "order_status": "truncate:3"}


def make_outlet() -> Outlet:
    """Build a chain whose ids and policies repeat from call to call."""
    chain = Chain(
        source="shop",
        environment="test",
        service_version="1",
        registry=registry,
        privacy=Privacy(POLICIES, b"k" * 32),
        strict=False,
        tallies=Tallies(),
    )
    chain.producer_id = "p"
    outlet = chain.outlet(None)
    for name in NAMES:
        outlet.plan(name, None)
    return outlet


def through_the_processors(where: Outlet, state: dict[str, Any]) -> bytes | None:
    """Take an event through the processors; None where they refuse it."""
    where.chain.next_sequence = itertools.count(1).__next__
    result: Any = dict(state)
    try:
        for step in DEFAULT_CHAIN:
            result = step(where, "info", result)
    except InvalidEventError:
        return None
    data: bytes = result.data
    return data


SAME_STAMPS = mock.patch.object(
    processors, "next_stamp", return_value=("id", "2026-11-24T00:00:00.000000Z")
)
OUTLET = make_outlet()


# The first draw imports what the strategies need, which a busy machine takes long for.
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    st.sampled_from(NAMES),
    st.dictionaries(
        st.sampled_from([*FIELDS, "extra", "event_id"]), VALUES, max_size=5
    ),
    CONTEXTS,
)
@example("product.viewed", {"product_id": "1", "product_price": Decimal("9.99")}, None)
@example("customer.queried", {"query_text": "x" * 300}, {"session_id": "s"})
@example("admin.product_created", {"admin_user": "root", "product_name": "x"}, None)
@example("order.placed", {"order_items": [{"price": Decimal("1.10")}]}, None)
@example("order.placed", {"order_status": "shipped"}, {"session_id": "s"})
@example("parcel.shipped", {"parcel_id": "1", "weight": float("nan")}, None)
@example("parcel.shipped", {"parcel_id": "1", "lines": [{"sku": "a"}]}, None)
@example("parcel.opened", {"at": datetime(2026, 1, 2, tzinfo=UTC)}, None)
@example("product.viewed", {}, None)
@example("product.viewed", {}, {"session_id": "s"})
@example("product.viewed", {"session_id": "mine"}, {"session_id": "s"})
def test_the_direct_way_writes_the_same_bytes(
    name: str, fields: dict[str, Any], context: dict[str, Any] | None
) -> None:
    """Where the direct way takes an event, the processors write it byte for byte so."""
    state = {**fields, "event": name}
    with ExitStack() as stack:
        stack.enter_context(SAME_STAMPS)
        if context is not None:
            stack.enter_context(session(**context))
        OUTLET.chain.next_sequence = itertools.count(1).__next__
        given_state = dict(state)
        direct = processors.encode_directly(OUTLET, given_state)
        if direct is None:
            assert given_state == state
        else:
            assert direct.data == through_the_processors(OUTLET, state)


@pytest.mark.parametrize(
    ("name", "fields", "context"),
    [
        ("product.viewed", {"product_id": "1", "ai_assisted": True}, None),
        ("product.viewed", {"product_id": "1"}, {"session_id": "s", "user_id": 7}),
        ("product.viewed", {"session_id": "mine"}, None),
        ("order.placed", {"order_items": [{"product_id": "1", "quantity": 2}]}, None),
        ("order.placed", {"customer_name": "Jane"}, {"session_id": "s"}),
        ("parcel.shipped", {"parcel_id": "1", "weight": 2.5}, None),
        ("parcel.opened", {}, None),
    ],
)
def test_plain_events_are_taken_directly(
    name: str, fields: dict[str, Any], context: dict[str, Any] | None
) -> None:
    """An event with typed fields and nothing else does not need the processors."""
    with ExitStack() as stack:
        if context is not None:
            stack.enter_context(session(**context))
        state = {**fields, "event": name}
        assert processors.encode_directly(make_outlet(), state) is not None


@pytest.mark.parametrize(
    ("fields", "context"),
    [
        ({"product_price": True}, None),
        ({"product_price": Decimal("NaN")}, None),
        ({"color": "red"}, None),
        ({"search_query": "x" * 257}, None),
        ({"search_query": "x" * 300_000}, None),
        ({"product_id": "1", "session_id": "mine"}, {"session_id": "s"}),
        ({}, {"session_id": "jane@example.com"}),
        ({}, {"session_id": "s", "campaign": "spring"}),
    ],
)
def test_the_direct_way_declines_without_a_trace(
    fields: dict[str, Any], context: dict[str, Any] | None
) -> None:
    """What the processors must decide has cost no sequence number and no tally yet."""
    where = make_outlet()
    with ExitStack() as stack:
        if context is not None:
            stack.enter_context(session(**context))
        declined = {"event": "product.viewed", **fields}
        assert processors.encode_directly(where, declined) is None
    assert declined == {"event": "product.viewed", **fields}
    assert where.chain.next_sequence() == 1
    assert where.chain.tallies.snapshot() == {}


def test_a_registration_changes_what_comes_next() -> None:
    """A plan made before a class was registered is not used after it."""
    where = make_outlet()
    where.plan("fleet.moved", None)
    state: dict[str, Any] = {"event": "fleet.moved", "km": 5}
    assert processors.encode_directly(where, dict(state)) is None

    class Moved(bizlog.BaseEvent, event_type="fleet.moved", registry=registry):
        km: int | None = None

    assert "fleet.moved" not in where.plans
    assert where.plan("fleet.moved", None).kind.cls is Moved
    record = processors.encode_directly(where, dict(state))
    assert record is not None
    assert record.data.endswith(b'"km":5}')
