"""
Planted personal data and secrets, end to end: none of them leaves the process.

Every value is made by `Planted`, which remembers it; whatever can be read afterwards
(files, terminal, sinks, dead letters, log lines, exceptions) is searched for all.
"""

from __future__ import annotations

import dataclasses
import enum
import logging
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

import msgspec
import orjson
import pytest

import bizlog
import bizlog.client
from bizlog import diagnostics
from bizlog.exceptions import PermanentSinkError
from bizlog.testing import FaultySink, MemorySink

KEY = "0123456789abcdef"


class Planted:
    """Makes values that must not be seen again."""

    def __init__(self) -> None:
        self.forbidden: list[str] = []

    def _new(self, text: str) -> str:
        self.forbidden.append(text)
        return text

    @property
    def _number(self) -> int:
        return len(self.forbidden)

    def name(self) -> str:
        """Make a name: nothing but a policy by field can know that it is one."""
        return self._new(f"Planted Person{self._number:03d}x")

    def email(self) -> str:
        """Make an e-mail address."""
        return f"{self._new(f'planted.mail{self._number:03d}x')}@example.com"

    def token(self) -> str:
        """Make a key as of a provider of models."""
        return "sk-" + self._new(f"planted{self._number:03d}" + "aB3" * 6)

    def password(self) -> str:
        """Make a connection string."""
        secret = self._new(f"planted{self._number:03d}pw")
        return f"Server=db;Uid=shop;Pwd={secret};Database=shop"

    def card(self, separator: str = " ") -> str:
        """Make a card number with a right check digit."""
        digits = f"4{self._number * 7919 + 10**13:014d}"
        doubled = [int(d) * 2 for d in digits[::-1][::2]]
        total = sum(d - 9 if d > 9 else d for d in doubled)
        total += sum(int(d) for d in digits[::-1][1::2])
        whole = f"{digits}{-total % 10}"
        groups = separator.join(whole[n : n + 4] for n in range(0, 16, 4))
        if groups != whole:
            self.forbidden.append(whole)
        return self._new(groups)

    def seen_in(self, *texts: str) -> list[str]:
        """Find what was not kept back."""
        whole = "\n".join(texts)
        return [value for value in self.forbidden if value in whole]


class Echoing(FaultySink):
    """Refuses every batch and repeats the events in its error."""

    name = "echoing"

    def __init__(self, planted: Planted) -> None:
        super().__init__(fail_calls=None)
        self._planted = planted

    async def deliver(self, batch):
        told = f"{batch.records[0].event} for {self._planted.email()}"
        raise PermanentSinkError(f"HTTP 422 {self._planted.password()}: {told}")


class Lines(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.text = ""

    def emit(self, record):
        self.text += f"{self.format(record)}\n"


@pytest.fixture(autouse=True)
def fresh_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Start without a process-wide client and without a past, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(bizlog.client, "_default", None)
    monkeypatch.setattr(diagnostics, "_last", {})
    yield
    bizlog.shutdown(timeout=5)


@pytest.fixture
def lines() -> Iterator[Lines]:
    """Collect our own log lines."""
    handler = Lines()
    diagnostics.logger.addHandler(handler)
    yield handler
    diagnostics.logger.removeHandler(handler)


@pytest.fixture
def planted() -> Planted:
    """Remember what was planted in this test."""
    return Planted()


@pytest.fixture
def memory() -> MemorySink:
    """Keep what would be delivered."""
    return MemorySink()


def everything(folder: Path) -> str:
    """Read all files under a folder."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return "\n".join(path.read_text(encoding="utf-8") for path in files)


def wire(memory: MemorySink) -> str:
    """Read the events as they stand on the wire."""
    return "\n".join(record.data.decode() for record in memory.records)


def letters() -> list[dict[str, Any]]:
    """Read all dead letters."""
    files = Path("bizlog-dead-letters").glob("*.jsonl")
    return [
        orjson.loads(line) for file in files for line in file.read_text().splitlines()
    ]


class Text(str):
    """A subclass of text."""

    __slots__ = ()


@dataclasses.dataclass
class Contact:
    mail: str
    customer_name: str


class Talkative:
    """Tells all about itself."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return f"Talkative({self._text})"


class Address(msgspec.Struct):
    street: Annotated[str | None, bizlog.describe("x", privacy="mask")] = None
    city: str | None = None


class ParcelSent(bizlog.BaseEvent, event_type="parcel.sent"):
    """An event of a user, with a tag inside a structure."""

    address: Address | None = None
    receiver: Annotated[str | None, bizlog.describe("x", privacy="drop")] = None


# What is emitted, in groups


def tagged(log: Any, plant: Planted) -> int:
    """Tagged fields, of the right type."""
    log.info("order.placed", customer_name=plant.name(), user_id=plant.email())
    log.info("order.placed", session_id=plant.email(), order_id=1)
    log.info("admin.product_created", admin_user=plant.name())
    log.info("customer.queried", query_text="x" * 256 + plant.name())
    log.info("product.searched", search_query="x" * 256 + plant.email())
    log.info("admin.content_generated", ai_generated_content="x" * 256 + plant.name())
    return 6


def wrong_types(log: Any, plant: Planted) -> int:
    """Tagged fields that hold what they should not."""
    member = enum.Enum("member", {"ONE": plant.name()})
    wrong: list[dict[str, Any]] = [
        {"customer_name": [plant.name()]},
        {"customer_name": {"first": plant.name()}},
        {"customer_name": Talkative(plant.name())},
        {"customer_name": plant.name().encode()},
        {"customer_name": Text(plant.name())},
        {"customer_name": member.ONE},
        {"user_id": {"mail": plant.email()}},
        {"user_id": [plant.email()]},
        {"user_id": Talkative(plant.email())},
        {"user_id": Text(plant.email())},
        {"session_id": (plant.email(),)},
        {"admin_user": {plant.name()}},
        {"query_text": [plant.name()]},
        {"query_text": Talkative(plant.name())},
        {"search_query": {"text": plant.name()}},
    ]
    families = {"query_text": "customer.queried", "search_query": "product.searched"}
    for fields in wrong:
        log.info(families.get(next(iter(fields)), "order.placed"), **fields)
    return len(wrong)


def by_name(log: Any, plant: Planted) -> int:
    """Names of tagged fields where no class has them."""
    log.info("shipment.created", customer_name=plant.name(), admin_user=plant.name())
    log.info("shipment.created", data={"a": {"customer_name": plant.name()}})
    log.info("product.viewed", data=[[{"admin_user": plant.name()}]])
    log.info("shipment.created", contact=Contact(plant.email(), plant.name()))
    log.info("shipment.created", query_text="x" * 256 + plant.name())
    log.info("shipment.created", data={"user_id": plant.email()})
    return 6


def detected(log: Any, plant: Planted) -> int:
    """What no policy names, at any depth and in any container."""
    log.info("product.viewed", note=f"call {plant.email()} at once")
    log.info("product.viewed", note=f"paid by {plant.card()}, {plant.card('-')}")
    log.info("product.viewed", note=plant.token(), dsn=plant.password())
    log.info("product.viewed", data={"a": {"b": {"c": plant.email()}}})
    log.info("product.viewed", data={"a": [{"b": (plant.card(), plant.token())}]})
    log.info("product.viewed", data={plant.email(): 1, "a": {plant.token(): {}}})
    log.info("product.viewed", data={(1, plant.email()): 1, plant.card(""): 2})
    log.info("product.viewed", **{plant.email(): "as a name"})
    log.info("product.viewed", data={plant.email()}, other=frozenset({plant.card()}))
    log.info("product.viewed", data=Talkative(plant.email()), text=Text(plant.card()))
    log.info("order.placed", order_items=[{"price": 1, "note": plant.email()}])
    log.info(
        "order.placed",
        order_items=[{"customer_name": plant.name(), "more": {"x": [plant.card()]}}],
    )
    return 12


def inherited(log: Any, plant: Planted) -> int:
    """What comes from the context or is bound."""
    with (
        bizlog.session(plant.email(), user_id=plant.email()),
        bizlog.correlation("c-1"),
    ):
        log.info("product.viewed")
        bizlog.bind_context(customer_name=plant.name(), note=plant.email())
        log.info("product.viewed")
    log.bind(customer_name=plant.name(), note=plant.card()).info("product.viewed")
    log.bind(data={"x": {"y": plant.token()}}).info("order.placed")
    return 4


def typed(log: Any, plant: Planted) -> int:
    """Typed events."""
    log.info(
        bizlog.OrderEvent(
            event_type="order.placed",
            customer_name=plant.name(),
            user_id=plant.email(),
            custom_properties={"note": {"deep": plant.token()}},
        )
    )
    log.info(ParcelSent(address=Address(street=plant.name()), receiver=plant.name()))
    log.info("parcel.sent", address={"street": plant.name(), "city": "Bonn"})
    log.info("parcel.sent", address={"city": "Bonn", "floor": plant.email()})
    return 4


GROUPS = [tagged, wrong_types, by_name, detected, inherited, typed]


def invalid(log: Any, plant: Planted) -> int:
    """Events that break their schema."""
    log.info("order.placed", order_total="much", customer_name=plant.name())
    log.info("order.placed", order_total=plant.email(), user_id=plant.email())
    log.info("order.placed", order_total=[plant.card()], note=plant.token())
    log.info("order.placed", order_items=[{"price": plant.email()}])
    log.info("order.placed", order_items=[{"price": "x", "note": plant.email()}])
    log.info("parcel.sent", address={"street": plant.name(), "city": 5})
    log.info("parcel.sent", address={"street": plant.name()}, receiver=[plant.name()],
             order_total=1, user_id=[plant.email()], correlation_id={})  # fmt: skip
    log.info("", customer_name=plant.name(), note=plant.email(), user_id=plant.email())
    log.info("product.viewed", event_time="never", admin_user=plant.name(),
             data={"customer_name": plant.name(), "note": plant.card()})  # fmt: skip
    return 9


def log_with(*processors: Any) -> Any:
    """Make a logger, with processors of the user's."""
    return bizlog.get_logger(processors=list(processors))


@pytest.mark.parametrize("group", GROUPS)
def test_nothing_planted_reaches_a_sink(
    group: Any, planted: Planted, memory: MemorySink, lines: Lines, capfd: Any
) -> None:
    """File, terminal, memory: every event arrives, none with what was planted."""
    bizlog.configure(
        source="test",
        sinks=["file:./events", "console:", memory],
        hash_key=KEY,
        detectors=["email", "card", "token"],
    )
    events = group(bizlog.get_logger(), planted)
    assert bizlog.shutdown(timeout=10)

    shown = capfd.readouterr()
    written = everything(Path("events"))
    assert len(memory.records) == written.count('"event_id"') == events
    assert len(shown.out.splitlines()) == events
    assert not letters()
    assert planted.seen_in(wire(memory), written, *shown, lines.text) == []


@pytest.mark.parametrize("group", [*GROUPS, invalid])
def test_nothing_planted_reaches_a_dead_letter(
    group: Any, planted: Planted, lines: Lines, capfd: Any
) -> None:
    """Invalid events and refused batches; nor do the errors that tell of them."""
    bizlog.configure(
        source="test",
        sinks=[Echoing(planted)],
        hash_key=KEY,
        detectors=["email", "card", "token"],
    )
    events = group(bizlog.get_logger(), planted)
    bizlog.shutdown(timeout=10)

    written = everything(Path("bizlog-dead-letters"))
    assert len(letters()) == events
    assert all(letter["reason"] for letter in letters())
    assert planted.seen_in(written, *capfd.readouterr(), lines.text) == []


def test_the_error_of_a_sink_stays_useful(planted: Planted, lines: Lines) -> None:
    """The status stands in dead letter and log line; the quoted values do not."""
    bizlog.configure(source="test", sinks=[Echoing(planted)], hash_key=KEY)
    bizlog.get_logger().info("order.placed", order_id=1)
    bizlog.shutdown(timeout=10)

    (letter,) = letters()
    reason = "PermanentSinkError: HTTP 422 Server=db;Uid=shop;Pwd=["
    assert letter["reason"].startswith(reason)
    assert "HTTP 422" in lines.text
    assert planted.seen_in(letter["reason"], lines.text) == []


def test_a_processor_that_raises_tells_nothing(planted: Planted, lines: Lines) -> None:
    """Its message may hold any value, so only its class is kept."""

    def fail(_: object, __: str, event_dict: dict[str, Any]) -> Any:
        raise ValueError(f"cannot handle {event_dict}")

    bizlog.configure(source="test", sinks=["null:"], hash_key=KEY, detectors=["email"])
    log_with(fail).info("order.placed", customer_name=planted.name(),
                        note=planted.email())  # fmt: skip
    bizlog.shutdown(timeout=10)

    (letter,) = letters()
    assert "ValueError" in letter["reason"]
    assert planted.seen_in(everything(Path("bizlog-dead-letters")), lines.text) == []


@pytest.mark.parametrize("number", range(9))
def test_exceptions_in_development_tell_nothing(number: int, planted: Planted) -> None:
    """They name the field and the types, not the value."""

    class One:
        """Passes on the one call whose turn it is."""

        def __init__(self) -> None:
            self.calls = 0

        def info(self, *args: Any, **fields: Any) -> None:
            self.calls += 1
            if self.calls - 1 == number:
                bizlog.get_logger().info(*args, **fields)

    bizlog.configure(source="test", sinks=["null:"], hash_key=KEY, development=True)
    with pytest.raises(bizlog.InvalidEventError) as caught:
        invalid(One(), planted)

    error = caught.value
    assert planted.seen_in(str(error), repr(error), error.reason, str(error.path)) == []


def test_without_detectors_policies_hold_and_texts_pass(
    planted: Planted, memory: MemorySink
) -> None:
    """They are off by default: no text is changed that no policy names."""
    bizlog.configure(source="test", sinks=[memory], hash_key=KEY)
    log = bizlog.get_logger()
    tagged(log, planted)
    wrong_types(log, planted)
    harmless = "mail shop@example.com, 4111 1111 1111 1111, Bearer abcd1234"
    log.info("product.viewed", note=harmless, data={harmless: [harmless]})
    bizlog.shutdown(timeout=10)

    assert planted.seen_in(wire(memory)) == []
    custom = memory.events[-1]["custom_properties"]
    assert custom == {"note": harmless, "data": {harmless: [harmless]}}


# Nobody's ids are harmed

IDS = [
    "4111111111111111",
    "4111-1111-1111-1111",
    "sk-" + "aB3" * 12,
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0xx.s1gn",
    "9f4111111111111111a0ff",
    "password=x;",
]


@pytest.mark.parametrize("text", IDS)
def test_ids_stay_byte_for_byte(text: str, memory: MemorySink) -> None:
    """An id that looks like a card number or a token joins events as before."""
    bizlog.configure(
        source="test", sinks=[memory], detectors=["email", "card", "token"]
    )
    names = ["session_id", "user_id", "correlation_id", "product_id", "cart_id"]
    ids = dict.fromkeys(names, text)
    log = bizlog.get_logger()
    log.info("product.viewed", **ids)
    log.info("product.viewed", product_price="wrong", **ids)
    with bizlog.session(text, user_id=text), bizlog.correlation(text):
        log.info("order.placed", order_items=[{"product_id": text, "cart_id": text}])
    bizlog.shutdown(timeout=10)

    viewed, placed = memory.events
    for event in (viewed, letters()[0]["record"]):
        flat = {**event, **event["custom_properties"]}
        assert {name: flat[name] for name in names} == ids
    assert placed["order_items"] == [{"product_id": text, "cart_id": text}]
    assert {placed[name] for name in names[:3]} == {text}


def test_ids_like_email_addresses_are_hashed_and_counted(memory: MemorySink) -> None:
    """Always the same, joinable by `pseudonyms`, and counted."""
    client = bizlog.configure(source="test", sinks=[memory], hash_key=KEY)
    log = bizlog.get_logger()
    with bizlog.session("jane@example.com"):
        log.info("product.viewed")
        log.info("order.placed", user_id="jane@example.com", note=1)
    bizlog.shutdown(timeout=10)

    (pseudonym,) = client.pseudonyms("jane@example.com").values()
    assert [event["session_id"] for event in memory.events] == [pseudonym] * 2
    assert memory.events[1]["user_id"] == pseudonym
    assert client.chain.privacy.hashed_emails == 3


def test_findings_are_counted(memory: MemorySink) -> None:
    """Each one, wherever it was found."""
    client = bizlog.configure(source="test", sinks=[memory], detectors=["email"])
    bizlog.get_logger().info(
        "product.viewed", note="a@example.com b@example.com", x={"c@example.com": 1}
    )
    bizlog.shutdown(timeout=10)
    assert client.chain.privacy.detected == 3


# What has no text


def test_a_card_number_given_as_a_number_is_found(
    planted: Planted, memory: MemorySink
) -> None:
    """Its digits are the same."""
    bizlog.configure(source="test", sinks=[memory], detectors=["card"])
    log = bizlog.get_logger()
    log.info("product.viewed", card=int(planted.card("")), amount=10**12)
    log.info("product.viewed", data={"x": [Decimal(planted.card(""))]})
    log.info("product.viewed", data={int(planted.card("")): 1})
    bizlog.shutdown(timeout=10)

    assert planted.seen_in(wire(memory)) == []
    assert memory.events[0]["custom_properties"]["amount"] == 10**12


# The list of what may pass


def test_only_listed_properties_pass(planted: Planted, memory: MemorySink) -> None:
    """Typed fields always; others by name, at the top and inside typed structures."""
    client = bizlog.configure(source="test", sinks=[memory], allow=["voucher"])
    log = bizlog.get_logger()
    log.info("order.placed", order_id=1, voucher="CATS10", note=planted.name())
    log.info(
        "order.placed", custom_properties={"voucher": {"x": 1}, "n": planted.name()}
    )
    log.info(
        "order.placed",
        order_items=[{"product_id": "1", "voucher": "A", "gift_for": planted.name()}],
    )
    bizlog.shutdown(timeout=10)

    first, second, third = memory.events
    assert first["order_id"] == "1"
    assert first["custom_properties"] == {"voucher": "CATS10"}
    assert second["custom_properties"] == {"voucher": {"x": 1}}
    assert third["order_items"] == [{"product_id": "1", "voucher": "A"}]
    assert planted.seen_in(wire(memory)) == []
    assert client.chain.privacy.removed == 3


def test_the_list_holds_for_dead_letters(planted: Planted) -> None:
    """Whatever stood in the way of the event."""
    bizlog.configure(source="test", sinks=["null:"], allow=["voucher"])
    log = bizlog.get_logger()
    log.info("order.placed", order_total="x", voucher="A", note=planted.name())
    log.info("", voucher="A", note=planted.name())
    log.info("order.placed", event_time="never", voucher="A", note=planted.name())
    log.info("order.placed", order_items=[{"price": "x", "note": planted.name()}])
    bizlog.shutdown(timeout=10)

    assert len(letters()) == 4
    assert planted.seen_in(everything(Path("bizlog-dead-letters"))) == []


def test_the_corpus_is_large_enough() -> None:
    """Some sixty values, each of them different."""
    plant = Planted()

    class Deaf:
        def info(self, *_: Any, **__: Any) -> None:
            """Hear nothing."""

        def bind(self, **_: Any) -> Deaf:
            return self

    for group in (*GROUPS, invalid):
        group(Deaf(), plant)
    assert len(plant.forbidden) > 60
    assert len(set(plant.forbidden)) == len(plant.forbidden)
