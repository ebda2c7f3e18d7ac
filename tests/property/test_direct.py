"""The one-step way through the chain writes the same bytes as its processors."""

from __future__ import annotations

import itertools
from decimal import Decimal
from typing import Any
from unittest import mock

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from bizlog import processors
from bizlog.client import DEFAULT_CHAIN, Outlet
from bizlog.coercion import payload_fields
from bizlog.context import session
from bizlog.events import registry
from bizlog.exceptions import InvalidEventError
from bizlog.plan import Chain
from bizlog.privacy import Privacy

NAMES = sorted(registry.names)
FIELDS = sorted(
    {field for name in NAMES for field in payload_fields(registry.resolve(name).cls)}
)
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.decimals(),
    st.text(max_size=300),
    st.uuids(),
    st.sampled_from(["jane@example.com", "\ud800", Decimal("NaN"), Decimal("1E+5")]),
    st.lists(
        st.dictionaries(st.sampled_from(["price", "product_id", "x"]), st.floats())
    ),
    st.dictionaries(st.text(max_size=5), st.integers()),
)


def outlet() -> Outlet:
    """Build a chain whose ids and policies repeat from call to call."""
    chain = Chain(
        source="shop",
        environment="test",
        service_version="1",
        registry=registry,
        privacy=Privacy({"product_name": "drop", "note": "mask"}, b"k" * 32),
        strict=False,
    )
    chain.producer_id = "p"
    for name in NAMES:
        chain.plan(name, None, None)
    return Outlet(chain, None)


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


SAME_STAMPS = mock.patch.multiple(
    processors, uuid7=lambda: "id", _now=lambda: "2026-11-24T00:00:00.000000Z"
)


# The first draw imports what the strategies need, which a busy machine takes long for.
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    st.sampled_from(NAMES),
    st.dictionaries(st.sampled_from([*FIELDS, "note", "event_id"]), VALUES),
)
@example("product.viewed", {"product_id": "1", "product_price": Decimal("9.99")})
@example("customer.queried", {"query_text": "x" * 300, "user_id": "jane@example.com"})
@example("admin.product_created", {"admin_user": "root", "product_name": "x"})
def test_the_direct_way_writes_the_same_bytes(
    name: str, fields: dict[str, Any]
) -> None:
    """Where the direct way takes an event, the processors write it byte for byte so."""
    where = outlet()
    state = {**fields, "event": name}
    with SAME_STAMPS, session("sess-1", user_id="u-7"):
        where.chain.next_sequence = itertools.count(1).__next__
        direct = processors.encode_directly(where, dict(state))
        if direct is not None:
            assert direct.data == through_the_processors(where, state)


def test_plain_events_are_taken_directly() -> None:
    """An event with typed fields and nothing else does not need the processors."""
    where = outlet()
    state = {"event": "product.viewed", "product_id": "1", "ai_assisted": True}
    record = processors.encode_directly(where, state)
    assert record is not None
    assert record.sequence == 1


def test_the_direct_way_takes_no_sequence_when_it_declines() -> None:
    """What the processors must decide has cost no sequence number yet."""
    where = outlet()
    declined = {"event": "product.viewed", "product_price": True}
    assert processors.encode_directly(where, declined) is None
    assert where.chain.next_sequence() == 1
