"""The event types: fields that explain themselves, and classes of one's own."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated

import msgspec
import pytest

from bizlog.events import (
    AdminEvent,
    AIEvent,
    BaseEvent,
    CustomerEvent,
    OrderEvent,
    OrderItem,
    ProductEvent,
    describe,
)
from bizlog.exceptions import RegistrationError
from bizlog.registry import Registry, registry

TYPES = [
    BaseEvent,
    ProductEvent,
    OrderEvent,
    CustomerEvent,
    AdminEvent,
    AIEvent,
    OrderItem,
]

# The catalogue of the design, by family: what strict mode accepts out of the box.
CATALOGUE = {
    ProductEvent: "product.viewed product.searched product.added_to_cart "
    "product.listed",
    OrderEvent: "order.placed order.updated order.returned order.failed",
    CustomerEvent: "customer.queried customer.session_started "
    "customer.session_ended customer.feedback customer.failed",
    AdminEvent: "admin.inventory_updated admin.product_created "
    "admin.product_updated admin.product_deleted admin.content_generated "
    "admin.failed",
    AIEvent: "ai.completed ai.recommended ai.description_generated ai.failed",
}


class Borrower(msgspec.Struct):
    name: str


def described(cls):
    """Read what `describe` put on the fields that a class itself adds, by name."""
    inherited = set() if cls is BaseEvent else set(BaseEvent.__struct_fields__)
    own = vars(cls)["__annotations__"].keys() - inherited
    fields = msgspec.inspect.type_info(cls).fields
    return {field.name: field.type for field in fields if field.name in own}


def extra(cls, kind):
    """Map the fields of a class that have a unit, or a policy, to it."""
    found = {name: field.extra or {} for name, field in described(cls).items()}
    return {name: told[kind] for name, told in found.items() if kind in told}


def fields_on_the_wire(event):
    """Encode an event and read it back as plain data."""
    return msgspec.json.decode(msgspec.json.encode(event))


@pytest.fixture
def mine():
    """Make a catalogue that no other test sees."""
    return Registry()


# What the fields say of themselves


@pytest.mark.parametrize("cls", TYPES)
def test_every_field_is_explained_in_one_sentence(cls):
    """People who read the data find a sentence on each field."""
    for name, field in described(cls).items():
        text = field.extra_json_schema["description"]
        assert text.endswith("."), name
        assert len(text.split()) > 1, name


@pytest.mark.parametrize(
    ("cls", "units"),
    [
        (BaseEvent, {}),
        (OrderItem, {"quantity": "items", "price": "order currency"}),
        (
            ProductEvent,
            {"product_price": "shop currency", "search_results_count": "items"},
        ),
        (
            OrderEvent,
            {"order_total": "order currency", "processing_duration_ms": "ms"},
        ),
        (CustomerEvent, {"response_time_ms": "ms", "ai_tokens_used": "tokens"}),
        (AdminEvent, {"previous_quantity": "items", "new_quantity": "items"}),
        (
            AIEvent,
            {
                "input_tokens": "tokens",
                "output_tokens": "tokens",
                "estimated_cost_usd": "USD",
            },
        ),
    ],
)
def test_what_is_measured_has_a_unit(cls, units):
    """Amounts, durations and counts say what they count; names and ids do not."""
    assert extra(cls, "unit") == units


@pytest.mark.parametrize(
    ("cls", "policies"),
    [
        (BaseEvent, {"session_id": "hash_email", "user_id": "hash_email"}),
        (ProductEvent, {"search_query": "truncate"}),
        (OrderEvent, {"customer_name": "mask"}),
        (CustomerEvent, {"query_text": "truncate"}),
        (AdminEvent, {"admin_user": "hash", "ai_generated_content": "truncate"}),
        (AIEvent, {}),
        (OrderItem, {}),
    ],
)
def test_what_may_be_personal_is_tagged(cls, policies):
    """The tags are those of the design, field for field."""
    assert extra(cls, "privacy") == policies


def test_a_field_of_ones_own_is_described_the_same_way(mine):
    """Description, unit and policy reach whoever reads the class's fields."""

    class Loan(BaseEvent, event_type="loan.approved", registry=mine):
        borrower: Annotated[str, describe("Who.", privacy="hash")]
        amount: Annotated[Decimal, describe("How much.", unit="EUR")]
        branch: Annotated[str, describe("Where.")] = "main"

    texts = {
        name: field.extra_json_schema["description"]
        for name, field in described(Loan).items()
    }
    assert texts == {"borrower": "Who.", "amount": "How much.", "branch": "Where."}
    assert extra(Loan, "privacy") == {"borrower": "hash"}
    assert extra(Loan, "unit") == {"amount": "EUR"}


# The catalogue


@pytest.mark.parametrize(
    ("cls", "name"),
    [(cls, name) for cls, names in CATALOGUE.items() for name in names.split()],
)
def test_the_catalogue_knows_the_names_of_the_design(cls, name):
    """Each name is accepted by strict mode, in version 1 of its family's class."""
    known = registry.resolve(name, strict=True)

    assert (known.cls, known.version) == (cls, 1)


def test_the_catalogue_knows_no_other_name_of_these_families():
    """What is not in the design is not in the catalogue."""
    names = {name for names in CATALOGUE.values() for name in names.split()}
    families = {name.partition(".")[0] for name in names}
    known = {n for n in registry.names if n.partition(".")[0] in families}

    assert known == names


# Construction


def test_events_take_keywords_only():
    """No event depends on the order of its fields, which may grow."""
    with pytest.raises(TypeError):
        OrderEvent("order.placed")


def test_types_are_not_checked_when_an_event_is_made():
    """A constructor never raises on a value: the chain decides what becomes of it."""
    assert OrderEvent(event_type="order.placed", order_total="lots").order_total == (
        "lots"
    )


def test_what_is_null_is_absent():
    """Only what was said stands on the wire."""
    event = OrderEvent(event_type="order.placed", order_items=[OrderItem(quantity=2)])

    assert fields_on_the_wire(event) == {
        "event_type": "order.placed",
        "order_items": [{"quantity": 2}],
    }


def test_a_default_is_said_although_nobody_said_it(mine):
    """A default is a value like any other: only null may be absent on the wire."""

    class Loan(BaseEvent, event_type="loan.approved", registry=mine):
        currency: str = "EUR"
        months: int = 12
        rate: float = 0.5
        fee: Decimal = Decimal("9.90")
        secured: bool = False
        tags: tuple[str, ...] = ("new",)
        flags: frozenset[int] = frozenset({1})
        note: str | None = None

    assert fields_on_the_wire(Loan()) == {
        "currency": "EUR",
        "months": 12,
        "rate": 0.5,
        "fee": "9.90",
        "secured": False,
        "tags": ["new"],
        "flags": [1],
    }


def test_a_default_is_said_when_it_is_passed(mine):
    """Passing what the default says changes nothing."""

    class Loan(BaseEvent, event_type="loan.approved", registry=mine):
        currency: str = "EUR"

    assert fields_on_the_wire(Loan(currency="EUR")) == {"currency": "EUR"}


# Classes of one's own


def test_a_class_that_names_its_type_is_registered(mine):
    """The class keyword puts name, class and version into the given catalogue."""

    class Loan(BaseEvent, event_type="loan.approved", version=2, registry=mine):
        pass

    known = mine.resolve("loan.approved", strict=True)

    assert (known.cls, known.version) == (Loan, 2)
    assert "loan.approved" not in registry.names


def test_the_version_is_one_unless_said(mine):
    """A first version needs no number."""

    class Loan(BaseEvent, event_type="loan.approved", registry=mine):
        pass

    assert mine.resolve("loan.approved").version == 1
    assert Loan().event_type == "loan.approved"


def test_a_class_knows_its_name(mine):
    """Whoever makes an event of a registered class need not repeat its type."""

    class Loan(BaseEvent, event_type="loan.approved", registry=mine):
        pass

    assert Loan().event_type == "loan.approved"
    assert Loan(event_type="loan.other").event_type == "loan.other"


def test_a_class_without_a_name_is_a_base_for_others(mine):
    """Shared fields need no name of their own, and enter no catalogue."""
    before = registry.names

    class Audited(BaseEvent):
        auditor: str | None = None

    class Loan(Audited, event_type="loan.approved", registry=mine):
        amount: int | None = None

    assert registry.names == before
    assert mine.resolve("loan.approved").cls is Loan
    assert {"auditor", "amount", "user_id"} <= set(Loan.__struct_fields__)


def test_a_class_may_extend_a_type_of_the_seed(mine):
    """Fields of the seed and fields of one's own stand side by side."""

    class Order(OrderEvent, event_type="order.placed", version=3, registry=mine):
        channel: str | None = None

    event = Order(order_id="1", channel="web")

    assert fields_on_the_wire(event) == {"order_id": "1", "channel": "web"}
    assert mine.resolve("order.placed").version == 3
    assert registry.resolve("order.placed").cls is OrderEvent


def test_a_field_that_cannot_be_checked_is_refused_at_its_definition(mine):
    """The message names the class and the cause; nothing is registered."""
    with pytest.raises(RegistrationError, match="Loan has a field whose type"):

        class Loan(BaseEvent, event_type="loan.approved", registry=mine):
            amount: Annotated[Decimal, msgspec.Meta(ge=0)]

    assert "loan.approved" not in mine.names


def test_a_type_may_be_defined_later(mine, monkeypatch):
    """A name that does not exist yet is no fault of the class that mentions it."""
    monkeypatch.delitem(globals(), "Borrower")

    class Loan(BaseEvent, event_type="loan.approved", registry=mine):
        borrower: Borrower | None = None

    monkeypatch.undo()
    assert mine.resolve("loan.approved").cls is Loan
    with pytest.raises(msgspec.ValidationError, match=r"borrower\.name"):
        msgspec.convert({"borrower": {"name": 5}}, Loan)
