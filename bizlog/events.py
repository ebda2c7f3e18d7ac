"""
The event types: the base, the five CDM types of the seed, and the door for your own.

Each field carries its description, its unit and, where it may hold personal data, the
privacy policy that applies by default. The same metadata feeds every schema artefact.

    class LoanApproved(bizlog.BaseEvent, event_type="loan.approved", version=2):
        amount: Annotated[Decimal, bizlog.describe("Amount approved.", unit="EUR")]

Source: the seed's event schema; `schema_version`, `producer_id` and `sequence` are
ours.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    ClassVar,
    Literal,
    TypeAlias,
    cast,
    dataclass_transform,
    get_args,
)

import msgspec

from bizlog._wording import suggest
from bizlog.exceptions import RegistrationError
from bizlog.privacy import is_policy
from bizlog.registry import Registry, registry

Policy: TypeAlias = Literal["keep", "drop", "mask", "hash", "hash_email", "truncate"]


_POLICIES = frozenset(get_args(Policy))


def describe(
    description: str, *, unit: str | None = None, privacy: Policy | None = None
) -> msgspec.Meta:
    """
    Document a field, for use inside `Annotated[...]`.

    Args:
        description: One sentence for people who read the data.
        unit: Unit of the value (`ms`, `USD`, `items`), if it has one.
        privacy: Policy that protects the value unless the settings say otherwise:
            `drop`, `mask`, `hash` (keyed HMAC), `hash_email` (keyed HMAC where it looks
            like an e-mail address) or `truncate` (256 characters); `keep` takes away
            the policy that a field of this name has elsewhere.

    Raises:
        RegistrationError: The policy is none of these.
    """
    if privacy is not None and privacy not in _POLICIES and not is_policy(privacy):
        raise RegistrationError(
            f"privacy={privacy!r}: expected keep, drop, mask, hash, hash_email or "
            f"truncate{suggest(str(privacy), _POLICIES)}"
        )
    extra = {"unit": unit, "privacy": privacy}
    return msgspec.Meta(
        description=description, extra={k: v for k, v in extra.items() if v}
    )


# msgspec has no public name for what `msgspec.field` returns.
_FIELD_TYPE = cast("Any", type(cast("object", msgspec.field(default=None))))
_MUTABLE: Any = (list, dict, set, bytearray)


def _is_default(given: Any) -> bool:
    """Whether a field has a default that is not null."""
    if not isinstance(given, _FIELD_TYPE):
        # What msgspec refuses as a default, it shall refuse itself.
        full = isinstance(given, _MUTABLE) and given
        return given is not None and not full
    no_default = given.default is None or given.default is msgspec.NODEFAULT
    return not no_default or given.default_factory is not msgspec.NODEFAULT


def _always_written(default: Any) -> Any:
    """
    Make a default that msgspec does not take for one.

    Its omit_defaults leaves out what is or equals the default, yet only null may be
    absent on the wire; what comes from a factory of ours is always written.
    """
    name: str | None = None
    made: Any = None
    if isinstance(default, _FIELD_TYPE):
        name, made, default = default.name, default.default_factory, default.default
    if isinstance(default, _MUTABLE):
        made = cast(
            "Any", type(cast("object", default))
        )  # empty: msgspec refuses others
    elif default is not msgspec.NODEFAULT:
        return msgspec.field(default_factory=lambda: default, name=name)
    return msgspec.field(default_factory=lambda: made(), name=name)  # noqa: PLW0108  # msgspec knows `list` itself


_EVENT_TYPE: TypeAlias = Annotated[str, describe("What happened, as `family.action`.")]


def _check_types(cls: type[Any]) -> None:
    try:
        msgspec.inspect.type_info(cls)
    except TypeError as error:
        raise RegistrationError(
            f"{cls.__qualname__} has a field whose type cannot be checked: {error}"
        ) from None
    except NameError:
        return  # a name that is defined later; the first event finds it


class EventMeta(msgspec.StructMeta):
    """Builds event classes and registers those that name their `event_type`."""

    def __new__(
        mcls,
        name: str,
        bases: tuple[type, ...],
        namespace: dict[str, Any],
        *,
        event_type: str | None = None,
        version: int = 1,
        registry: Registry = registry,
        **config: Any,
    ) -> Any:
        """Build an event class; `BaseEvent` describes the keywords."""
        for field in namespace.get("__annotations__", {}):
            if field != "event_type" and _is_default(namespace.get(field)):
                namespace[field] = _always_written(namespace[field])
        if event_type is not None:
            namespace.setdefault("__annotations__", {})["event_type"] = _EVENT_TYPE
            namespace["event_type"] = event_type
        cls: Any = super().__new__(
            mcls, name, bases, namespace, kw_only=True, omit_defaults=True, **config
        )
        if event_type is not None:
            _check_types(cls)
            registry.register(cls, event_type, version)
        return cls

    def __init__(
        cls,  # noqa: N805  # a metaclass
        name: str,
        bases: tuple[type, ...],
        namespace: dict[str, Any],
        **_: Any,
    ) -> None:
        super().__init__(name, bases, namespace)


if TYPE_CHECKING:
    # What editors and type checkers see: keyword-only constructors, and the two class
    # keywords. Neither mypy nor pyright reads both from a metaclass of msgspec's.
    @dataclass_transform(kw_only_default=True, field_specifiers=(msgspec.field,))
    class _EventStruct:
        __struct_fields__: ClassVar[tuple[str, ...]]

        def __init_subclass__(
            cls,
            *,
            event_type: str | None = None,
            version: int = 1,
            registry: Registry = registry,
        ) -> None: ...

else:
    # Weak references: a client knows which objects it has sent.
    class _EventStruct(msgspec.Struct, metaclass=EventMeta, weakref=True):
        pass


class BaseEvent(_EventStruct):
    """
    What every event has. Subclass it for events of your own.

    Class keywords: `event_type` registers the class for that name, `version` is
    written as `schema_version` (default 1), `registry` takes another catalogue.
    Types are checked when the event is emitted, not when it is constructed.
    """

    event_id: Annotated[str | None, describe("UUID of the event.")] = None
    event_type: _EVENT_TYPE = ""
    event_source: Annotated[
        str | None, describe("The service that emitted the event.")
    ] = None
    event_time: Annotated[
        datetime | None, describe("When it happened, in UTC (naive means UTC).")
    ] = None
    correlation_id: Annotated[
        str | None, describe("Joins the events of one request across services.")
    ] = None
    session_id: Annotated[
        str | None, describe("Joins the events of one visit.", privacy="hash_email")
    ] = None
    user_id: Annotated[
        str | None,
        describe("Internal id of the user, never a name.", privacy="hash_email"),
    ] = None
    environment: Annotated[
        str | None, describe("Deployment the event comes from (`production`).")
    ] = None
    service_version: Annotated[
        str | None, describe("Version of the emitting service.")
    ] = None
    schema_version: Annotated[
        int | None, describe("Version of the event type's schema.")
    ] = None
    producer_id: Annotated[
        str | None, describe("The emitting client; new at every configuration.")
    ] = None
    sequence: Annotated[
        int | None, describe("Position among the events of the producer, from 1.")
    ] = None
    custom_properties: Annotated[
        dict[str, Any] | None, describe("Properties without a field of their own.")
    ] = None


class OrderItem(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One line of an order; keys beyond these survive."""

    product_id: Annotated[str | None, describe("The product.")] = None
    product_name: Annotated[str | None, describe("Its name when ordered.")] = None
    quantity: Annotated[
        int | None, describe("How many; negative when returned.", unit="items")
    ] = None
    price: Annotated[
        Decimal | None, describe("Price of one.", unit="order currency")
    ] = None


class ProductEvent(BaseEvent):
    """`product.*`: what visitors look at, search for and choose."""

    product_id: Annotated[str | None, describe("The product.")] = None
    product_name: Annotated[str | None, describe("Its name as shown.")] = None
    product_category: Annotated[str | None, describe("Its category.")] = None
    product_price: Annotated[
        Decimal | None, describe("Price as shown.", unit="shop currency")
    ] = None
    search_query: Annotated[
        str | None, describe("What was searched for.", privacy="truncate")
    ] = None
    search_results_count: Annotated[
        int | None, describe("How many products were found.", unit="items")
    ] = None
    ai_assisted: Annotated[bool | None, describe("Whether an AI agent took part.")] = (
        None
    )


class OrderEvent(BaseEvent):
    """`order.*`: the life of an order."""

    order_id: Annotated[str | None, describe("The order.")] = None
    order_status: Annotated[str | None, describe("Its status afterwards.")] = None
    order_items: Annotated[list[OrderItem] | None, describe("Its lines.")] = None
    order_total: Annotated[
        Decimal | None, describe("Sum of all lines.", unit="order currency")
    ] = None
    customer_name: Annotated[
        str | None, describe("Name of the customer.", privacy="mask")
    ] = None
    processing_duration_ms: Annotated[
        int | None, describe("Time the order took to process.", unit="ms")
    ] = None


class CustomerEvent(BaseEvent):
    """`customer.*`: what customers ask, and how they were answered."""

    query_text: Annotated[
        str | None, describe("What the customer asked.", privacy="truncate")
    ] = None
    query_intent: Annotated[str | None, describe("What was understood.")] = None
    response_time_ms: Annotated[
        int | None, describe("Time until the answer.", unit="ms")
    ] = None
    ai_model: Annotated[str | None, describe("Model that answered.")] = None
    ai_tokens_used: Annotated[
        int | None, describe("Tokens in and out together.", unit="tokens")
    ] = None


class AdminEvent(BaseEvent):
    """`admin.*`: what staff change in the shop."""

    admin_user: Annotated[
        str | None, describe("Who made the change.", privacy="hash")
    ] = None
    product_id: Annotated[str | None, describe("The product.")] = None
    previous_quantity: Annotated[
        int | None, describe("Stock before.", unit="items")
    ] = None
    new_quantity: Annotated[int | None, describe("Stock after.", unit="items")] = None
    ai_generated_content: Annotated[
        str | None, describe("Text that an AI wrote.", privacy="truncate")
    ] = None


class AIEvent(BaseEvent):
    """`ai.*`: calls to models, their cost and their use."""

    model_name: Annotated[str | None, describe("The model.")] = None
    input_tokens: Annotated[
        int | None, describe("Tokens sent to the model.", unit="tokens")
    ] = None
    output_tokens: Annotated[
        int | None, describe("Tokens the model answered.", unit="tokens")
    ] = None
    estimated_cost_usd: Annotated[
        Decimal | None, describe("Estimated cost of the call.", unit="USD")
    ] = None
    recommendation_accepted: Annotated[
        bool | None, describe("Whether the user took the recommendation.")
    ] = None


registry.add_family("", BaseEvent)
registry.add_family(
    "product", ProductEvent, ("viewed", "searched", "added_to_cart", "listed")
)
registry.add_family("order", OrderEvent, ("placed", "updated", "returned", "failed"))
registry.add_family(
    "customer",
    CustomerEvent,
    ("queried", "session_started", "session_ended", "feedback", "failed"),
)
registry.add_family(
    "admin",
    AdminEvent,
    (
        "inventory_updated",
        "product_created",
        "product_updated",
        "product_deleted",
        "content_generated",
        "failed",
    ),
)
registry.add_family(
    "ai", AIEvent, ("completed", "recommended", "description_generated", "failed")
)
