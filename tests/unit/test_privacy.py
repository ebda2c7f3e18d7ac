"""Field policies, pseudonyms, detectors, allow-list; the settings that choose them."""

from __future__ import annotations

import dataclasses
import enum
import uuid
from decimal import Decimal
from fractions import Fraction
from types import MappingProxyType
from typing import Annotated, Any, NamedTuple

import msgspec
import pytest

import bizlog
from bizlog import describe
from bizlog._wording import describe_error, validation_reason
from bizlog.client import CDM_TYPES
from bizlog.delivery.policy import judge, reason_of
from bizlog.events import BaseEvent, CustomerEvent, OrderEvent, ProductEvent
from bizlog.exceptions import ConfigurationError
from bizlog.privacy import DROP, Privacy, is_id, is_policy
from bizlog.settings import load_settings

KEY = b"0123456789abcdef"
EMAIL = "jane.doe@example.com"
TOKEN = "ghp_" + "aB3" * 12
CARD = "4111 1111 1111 1111"


class Color(enum.Enum):
    TEXT = "jane.doe@example.com"
    NUMBER = 7
    TABLE = {"name": "Jane"}  # noqa: RUF012  # a member


class Text(str):
    """A text with methods of its own."""

    __slots__ = ()

    def __str__(self):
        raise RuntimeError("no")


class Hostile:
    """Raises whatever is asked of it."""

    def __repr__(self):
        raise RuntimeError("no")

    __str__ = __repr__
    __eq__ = __repr__
    __hash__ = __repr__


class Named:
    """Says of itself what it is."""

    def __str__(self):
        return "user 7"


def policy(text: str, **options: Any) -> Any:
    """Build one policy."""
    privacy = Privacy({"note": text}, KEY, **options)
    return privacy.protections(BaseEvent)["note"]


def settings(environ=None, tmp_path=".", **arguments):
    """Load settings for a sink that discards."""
    arguments = {"sinks": ["null:"], **arguments}
    return load_settings(arguments, environ or {}, tmp_path)


def problems(environ=None, **arguments):
    """Load settings that cannot work, and read what is said about them."""
    with pytest.raises(ConfigurationError) as caught:
        settings(environ, **arguments)
    return caught.value.problems


# Policies


@pytest.mark.parametrize(
    "text",
    ["keep", "drop", "mask", "hash", "hash_email", "truncate", "truncate:64"],
)
def test_policies(text):
    """The six policies, the last with or without a length."""
    assert is_policy(text)


@pytest.mark.parametrize(
    "text", ["", "erase", "truncate:", "truncate:0", "truncate:-1", "Mask", "mask "]
)
def test_what_is_no_policy(text):
    """A slip of the pen is found when it is set."""
    assert not is_policy(text)


def test_keep_leaves_no_policy():
    """`keep` in the settings takes the tag off."""
    tagged = Privacy({}, KEY).protections(OrderEvent)
    kept = Privacy({"customer_name": "keep"}, KEY).protections(OrderEvent)

    assert "customer_name" in tagged
    assert "customer_name" not in kept


@pytest.mark.parametrize("value", ["x", 1, None, [1], Hostile()])
def test_drop_removes_any_value(value):
    """Nothing of the value is even looked at."""
    assert policy("drop")(value) is DROP


@pytest.mark.parametrize("value", ["x", "", 1, 1.5, True, [1], {"a": 1}, Hostile()])
def test_mask_hides_any_value(value):
    """Neither the value nor its type or length shows."""
    assert policy("mask")(value) == "***"


@pytest.mark.parametrize("kind", ["mask", "hash", "hash_email", "truncate"])
def test_nothing_stays_nothing(kind):
    """There is nothing to protect in None, and many of them must not look alike."""
    assert policy(kind)(None) is None


def test_truncate_keeps_the_beginning():
    """The given number of characters, or 256."""
    assert policy("truncate:3")("abcdef") == "abc"
    assert policy("truncate:3")("ab") == "ab"
    assert len(policy("truncate")("x" * 300)) == 256


def test_truncate_takes_an_enum_or_a_subclass_for_its_text():
    """What would be written as text is cut as text."""
    assert policy("truncate:4")(Color.TEXT) == "jane"
    assert policy("truncate:4")(Text("jane doe")) == "jane"


def test_truncate_tells_its_length():
    """The quick way holds short texts to it without calling it."""
    assert policy("truncate:64").max_length == 64


@pytest.mark.parametrize("kind", ["truncate", "hash_email"])
@pytest.mark.parametrize(
    ("value", "marker"),
    [
        ([EMAIL], "<list>"),
        ({"name": EMAIL}, "<dict>"),
        ((EMAIL,), "<tuple>"),
        ({EMAIL}, "<set>"),
        (b"jane.doe@example.com", "<bytes>"),
        (Hostile(), "<Hostile>"),
        (Named(), "<Named>"),
        (Color.TABLE, "<dict>"),
    ],
)
def test_what_is_no_text_cannot_slip_through(kind, value, marker):
    """A value that the policy cannot judge is named by its type."""
    assert policy(kind)(value) == marker


@pytest.mark.parametrize("kind", ["truncate", "hash_email"])
@pytest.mark.parametrize(
    "value",
    [7, True, 1.5, Decimal("1.50"), Fraction(1, 3), 10**30, uuid.UUID(int=7)],
)
def test_numbers_and_uuids_pass(kind, value):
    """They hold no text, and ids may be numbers."""
    assert policy(kind)(value) is value
    assert policy(kind)(Color.NUMBER) == 7


def test_an_id_like_an_email_address_is_hashed_and_counted():
    """Whatever type of text it comes in; other ids stay as they are."""
    privacy = Privacy({}, KEY)
    protect = privacy.protections(BaseEvent)["user_id"]

    pseudonym = privacy.pseudonym(EMAIL)
    assert [protect(v) for v in (EMAIL, Color.TEXT, Text(EMAIL))] == [pseudonym] * 3
    assert privacy.hashed_emails == 3
    for harmless in ("u-7", "@", "a@b", "a@b.", "4111111111111111", "x" * 64):
        assert protect(harmless) == harmless
    assert privacy.hashed_emails == 3


def test_one_policy_is_one_object():
    """Plans with the same policies know each other by it."""
    privacy = Privacy({"a": "hash", "b": "hash"}, KEY)
    one, other = privacy.protections(OrderEvent), privacy.protections(ProductEvent)

    assert one["a"] is one["b"] is other["a"]
    assert one["user_id"] is other["user_id"]


# Which policy applies


def named(cls, overrides=None):
    """Resolve policies with the tags of the CDM types in force everywhere."""
    return Privacy(overrides, KEY, named=CDM_TYPES).protections(cls)


def test_tags_of_the_cdm_types_hold_by_name_on_every_event():
    """An event without such a field protects a property of that name all the same."""
    found = named(ProductEvent)

    assert found["customer_name"]("Jane") == "***"
    assert found["admin_user"]("root") != "root"
    assert len(found["query_text"]("x" * 300)) == 256
    assert found["user_id"](EMAIL) != EMAIL


def test_a_tag_of_the_class_comes_before_the_name():
    """Who tags a field of that name anew knows better."""

    class Shipped(BaseEvent):
        customer_name: Annotated[str | None, describe("x", privacy="truncate")] = None

    assert named(Shipped)["customer_name"]("Jane") == "Jane"


def test_the_settings_come_before_any_tag():
    """They may lift a tag, sharpen it, or add a policy where there was none."""
    found = named(
        OrderEvent, {"customer_name": "keep", "query_text": "drop", "note": "mask"}
    )

    assert "customer_name" not in found
    assert found["query_text"]("x") is DROP
    assert found["note"]("x") == "***"


def test_a_field_that_holds_no_text_loses_the_value_instead():
    """A text in its place would break the schema, and the event would be lost."""

    class Measured(BaseEvent):
        secret: Annotated[int | None, describe("x", privacy="hash")] = None
        sum: Annotated[Decimal | None, describe("x", privacy="mask")] = None
        query_text: list[str] | None = None
        session_id: int | None = None

    found = named(Measured)

    assert found["secret"](7) is DROP
    assert found["sum"](Decimal(1)) is DROP
    assert found["query_text"]([EMAIL]) is DROP
    assert found["session_id"](7) == 7
    assert found["sum"](None) is None


def test_an_unknown_tag_masks():
    """A slip of the pen in a tag must not let the value out."""

    class Slipped(BaseEvent):
        name: Annotated[
            str | None,
            describe("x", privacy="maks"),
        ] = None

    assert named(Slipped)["name"]("Jane") == "***"


def test_a_class_whose_types_are_unknown_is_masked_whole():
    """What its fields may hold cannot be known, and its tags cannot be read."""

    class Later(BaseEvent):
        name: Annotated[Missing, describe("x", privacy="mask")] = None  # noqa: F821  # missing on purpose
        note: str | None = None

    found = named(Later)

    assert found["name"]("Jane") == "***"
    assert found["note"]("Jane") == "***"


# Structures inside a field


class Address(msgspec.Struct):
    street: Annotated[str | None, describe("x", privacy="mask")] = None
    city: str | None = None
    flat: Annotated[int | None, describe("x", privacy="hash")] = None
    owners: list[Owner] | None = None


@dataclasses.dataclass
class Owner:
    name: Annotated[str, describe("x", privacy="drop")] = ""
    since: int = 0


@dataclasses.dataclass
class Contact:
    customer_name: str


class Line(NamedTuple):
    buyer: Annotated[str, describe("x", privacy="mask")]
    amount: int


class Renamed(msgspec.Struct, rename="camel"):
    full_name: Annotated[str | None, describe("x", privacy="mask")] = None


class Greeted(BaseEvent):
    guest: Renamed | None = None


class Moved(BaseEvent):
    address: Address | None = None
    former: list[Address] | None = None
    by_name: dict[str, Address] | None = None
    lines: list[Line] | None = None
    count: int | None = None
    pair: tuple[Address, int] | None = None
    extra: dict[str, Any] | None = None
    anything: Any = None


@pytest.mark.parametrize(
    ("name", "value", "protected"),
    [
        ("address", {"street": "s", "city": "c"}, {"street": "***", "city": "c"}),
        ("address", MappingProxyType({"street": "s"}), {"street": "***"}),
        ("address", {"flat": 7, "city": "c"}, {"city": "c"}),
        ("address", {"owners": [{"name": "n"}]}, {"owners": [{}]}),
        ("address", {"owners": [Owner("n", 3)]}, {"owners": [{"since": 3}]}),
        ("address", {"street": ["s"], 1: "x"}, {"street": "***", 1: "x"}),
        ("former", [{"street": "s"}], [{"street": "***"}]),
        ("former", ({"street": "s"},), [{"street": "***"}]),
        ("by_name", {"a": {"street": "s"}}, {"a": {"street": "***"}}),
        ("lines", [Line("Jane", 1)], [["***", 1]]),
        ("pair", ({"street": "s"}, 1), [{"street": "***"}, 1]),
        ("address", Address("s", "c", 7), Address("***", "c", None)),
        ("former", [Address("s", "c")], [Address("***", "c")]),
        ("extra", {"a": [{"customer_name": "n"}]}, {"a": [{"customer_name": "***"}]}),
        ("anything", (Contact("n"),), [{"customer_name": "***"}]),
        ("anything", {"admin_user": None, "x": 1}, {"admin_user": None, "x": 1}),
        ("anything", "a text", "a text"),
        ("address", "a text", "a text"),
        ("address", None, None),
    ],
)
def test_tags_inside_structures_hold(name, value, protected):
    """Structs, dataclasses and tables in lists and tables, at any depth."""
    assert named(Moved)[name](value) == protected


def test_the_callers_structures_are_left_alone():
    """What is protected is a copy."""
    given = {"street": "s", "owners": [Owner("n")]}
    whole = Address("s")
    named(Moved)["address"](given)
    named(Moved)["address"](whole)

    assert given == {"street": "s", "owners": [Owner("n")]}
    assert whole.street == "s"


def test_the_settings_reach_inside_structures():
    """A policy by name is one for the field of that name, wherever it stands."""
    found = named(OrderEvent, {"product_name": "mask", "price": "mask"})

    items = [{"product_name": "x", "price": 5, "quantity": 1, "extra": "y"}]
    assert found["order_items"](items) == [
        {"product_name": "***", "quantity": 1, "extra": "y"}
    ]
    assert "order_items" not in named(OrderEvent)


def test_custom_properties_are_left_to_the_walk():
    """Policies reach them there; twice would hash a hash."""
    assert "custom_properties" not in named(Moved)


def test_a_policy_for_the_whole_field_comes_before_those_inside():
    """Also `keep`, which leaves all of it alone."""
    assert named(Moved, {"address": "drop"})["address"]({"street": "s"}) is DROP
    assert "address" not in named(Moved, {"address": "keep"})


@pytest.mark.parametrize("broken", ["items", "cycle"])
def test_a_structure_that_cannot_be_walked_is_named(broken):
    """Neither a mapping that raises nor one inside itself gets through."""

    class Raising(dict):
        pass

    value: Any = {"street": "s"}
    if broken == "cycle":
        value["former"] = value
        text = repr(named(Moved)["former"]([value]))
        assert "<dict>" in text
    else:
        bad = MappingProxyType({Hostile: 1})
        value = {"street": "s", "owners": [Raising(name="n"), bad]}
        text = repr(named(Moved)["address"](value))
    assert "'s'" not in text
    assert "'n'" not in text


def test_a_client_tells_pseudonyms():
    """The ones that stand in its events."""
    with bizlog.BusinessTelemetryClient(
        source="test", sinks=["null:"], hash_key={"a": KEY, "b": KEY.decode() + "x"}
    ) as client:
        found = client.pseudonyms(7)

    assert found == client.pseudonyms("7")
    assert [found[key_id].partition(".")[0] for key_id in found] == ["a", "b"]


# Detectors


def test_detectors_are_off_unless_chosen():
    """The chain need not even ask."""
    assert Privacy().detect is None
    assert Privacy(detectors=[]).detect is None


def test_only_the_chosen_detectors_search():
    """Each kind for itself; findings are counted."""
    text = f"{EMAIL} {CARD} {TOKEN}"
    privacy = Privacy(detectors=["email", "card"])

    assert privacy.detect is not None
    assert privacy.detect(text) == f"[email] [card] {TOKEN}"
    assert privacy.detect("nothing") == "nothing"
    assert privacy.detected == 2


@pytest.mark.parametrize("name", ["id", "session_id", "user_id", "order_id", "my_id"])
def test_ids_are_exempt(name):
    """What joins events must not be harmed."""
    assert is_id(name)


@pytest.mark.parametrize("name", ["note", "idea", "_id_", "paid", "ids", ""])
def test_other_names_are_not_exempt(name):
    """Only a name that is or ends in an id."""
    assert not is_id(name)


# The list of what may pass


def test_without_a_list_all_pass():
    """The list is a mode that someone chooses."""
    assert Privacy().allowed is None
    assert Privacy().allows("anything")


def test_with_a_list_only_its_names_pass():
    """An empty one lets nothing pass."""
    privacy = Privacy(allow=["voucher"])

    assert privacy.allows("voucher")
    assert not privacy.allows("note")
    assert not Privacy(allow=[]).allows("voucher")


def test_the_list_holds_inside_structures():
    """Their fields pass by themselves; keys that they do not know are counted."""
    privacy = Privacy({}, KEY, allow=["voucher"])
    items = [{"product_id": "1", "voucher": "A", "note": "x", 1: 2}]

    protect = privacy.protections(OrderEvent)["order_items"]
    assert protect(items) == [{"product_id": "1", "voucher": "A"}]
    assert privacy.removed == 2


def test_the_list_leaves_open_fields_alone():
    """A table of the user's own has keys of any name."""
    found = Privacy({}, KEY, allow=[], named=CDM_TYPES).protections(Moved)

    assert found["extra"]({"a": 1}) == {"a": 1}
    assert found["by_name"]({"a": {"city": "c"}}) == {"a": {"city": "c"}}


def test_a_renamed_field_is_known_by_both_names():
    """Raw data has the name on the wire, an object the attribute's."""
    protect = Privacy({}, KEY, allow=[]).protections(Greeted)["guest"]
    assert protect({"fullName": "Jane"}) == {"fullName": "***"}
    assert protect(Renamed("Jane")) == Renamed("***")


# Settings


def test_settings_choose_detectors_and_list(tmp_path):
    """From arguments, the environment or the file alike."""
    environ = {"BIZLOG_DETECTORS": "email, token", "BIZLOG_ALLOW": "voucher,note"}
    found = settings(environ)
    assert (found.detectors, found.allow) == (("email", "token"), ("voucher", "note"))

    found = settings(environ, detectors=["card"], allow=[])
    assert (found.detectors, found.allow) == (("card",), ())

    (tmp_path / "bizlog.toml").write_text('detectors = ["email"]\nallow = ["a"]\n')
    found = settings(tmp_path=tmp_path)
    assert (found.detectors, found.allow) == (("email",), ("a",))
    assert (settings().detectors, settings().allow) == ((), None)


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ({"detectors": ["emial"]}, "'email', 'card' and 'token'"),
        ({"detectors": "email"}, "'email', 'card' and 'token'"),
        ({"allow": "voucher"}, "names of custom properties"),
        ({"allow": [1]}, "names of custom properties"),
    ],
)
def test_wrong_lists_are_refused(setting, expected):
    """With what would be right."""
    (problem,) = problems(**setting)
    assert expected in problem


def pseudonym_of(environ=None, tmp_path=".", **arguments):
    """Write a value with the keys that the settings name."""
    return Privacy({}, settings(environ, tmp_path, **arguments).hash_key).pseudonym("x")


@pytest.mark.parametrize("key", ["0123456789abcdef", b"0123456789abcdef"])
def test_a_key_is_text_or_bytes(key):
    """Text is taken as UTF-8."""
    assert pseudonym_of(hash_key=key) == Privacy({}, KEY).pseudonym("x")


def test_keys_may_be_a_table(tmp_path):
    """Argument, file and environment; the last key is in force."""
    table = {"old": "x" * 16, "new": KEY.decode()}
    expected = f"new.{Privacy({}, KEY).pseudonym('x')}"
    text = '{"old": "xxxxxxxxxxxxxxxx", "new": "0123456789abcdef"}'
    (tmp_path / "bizlog.toml").write_text(
        '[hash_key]\nold = "xxxxxxxxxxxxxxxx"\nnew = "0123456789abcdef"\n'
    )
    (tmp_path / "key").write_text(f"\n{text}\n")

    assert pseudonym_of(hash_key=table) == expected
    assert pseudonym_of(tmp_path=tmp_path) == expected
    assert pseudonym_of({"BIZLOG_HASH_KEY": text}) == expected
    assert pseudonym_of({"BIZLOG_HASH_KEY_FILE": str(tmp_path / "key")}) == expected


def test_a_plain_key_may_hold_any_sign():
    """Only one that begins with a brace is taken for a table."""
    key = 'a:b,c="d";{"e": 1}'
    assert pseudonym_of({"BIZLOG_HASH_KEY": key}) == pseudonym_of(hash_key=key)


def test_a_file_may_hold_the_key(tmp_path):
    """Blanks around it do not belong to it; an argument comes before it."""
    (tmp_path / "key").write_bytes(b"\n 0123456789abcdef\r\n")
    environ = {"BIZLOG_HASH_KEY_FILE": str(tmp_path / "key")}

    assert pseudonym_of(environ) == Privacy({}, KEY).pseudonym("x")
    assert pseudonym_of(environ, hash_key="x" * 16) != pseudonym_of(environ)


SECRET = "s3cret-s3cret-s3cret"


@pytest.mark.parametrize(
    "value",
    [
        "s3cret",
        b"s3cret",
        7,
        [SECRET],
        {},
        {"a": "s3cret"},
        {"a": 7},
        {SECRET + SECRET: SECRET},
        {"a b": SECRET},
        {"": SECRET},
        {7: SECRET},
        "\ud800s3cret",
    ],
)
def test_a_key_that_cannot_work_is_refused_and_not_shown(value):
    """Neither a short key nor an id, which may be the key by mistake."""
    (problem,) = problems(hash_key=value)

    assert problem.startswith("hash_key (argument): expected at least 16 bytes")
    assert "s3cret" not in problem


@pytest.mark.parametrize(
    "text", ["{", '{"a": 7}', '{"a": "s3cret"}', "{s3cret-s3cret}"]
)
def test_a_written_table_that_cannot_work_is_refused_and_not_shown(text):
    """The variable is named, its contents are not."""
    (problem,) = problems({"BIZLOG_HASH_KEY": text})

    assert problem.startswith("hash_key (BIZLOG_HASH_KEY): expected")
    assert "s3cret" not in problem


def test_a_key_file_that_cannot_be_read_is_one_problem(tmp_path):
    """Its name is not shown: it may be the key itself, in the wrong variable."""
    (problem,) = problems({"BIZLOG_HASH_KEY_FILE": str(tmp_path / SECRET)})

    assert "BIZLOG_HASH_KEY_FILE" in problem
    assert "No such file" in problem
    assert SECRET not in problem


def test_an_empty_key_file_is_a_problem(tmp_path):
    """As a short key is."""
    (tmp_path / "key").write_text(" \n")
    (problem,) = problems({"BIZLOG_HASH_KEY_FILE": str(tmp_path / "key")})
    assert "0 bytes" in problem


def test_two_sources_of_the_key_are_a_problem(tmp_path):
    """Which one is meant, no one can say."""
    (tmp_path / "key").write_bytes(KEY)
    (problem,) = problems(
        {
            "BIZLOG_HASH_KEY": SECRET,
            "BIZLOG_HASH_KEY_FILE": str(tmp_path / "key"),
        }
    )
    assert "BIZLOG_HASH_KEY and BIZLOG_HASH_KEY_FILE" in problem
    assert SECRET not in problem


@pytest.mark.parametrize(
    "key", [SECRET, SECRET.encode(), {SECRET: SECRET, "b": SECRET}]
)
def test_keys_are_never_shown(key):
    """Neither by the settings nor by the client nor by the policies."""
    found = settings(hash_key=key)
    with bizlog.BusinessTelemetryClient(
        source="test", sinks=["null:"], hash_key=key
    ) as client:
        shown = [found, client, client.settings, client.chain, client.chain.privacy]
        text = repr(shown) + str(shown) + repr(msgspec.structs.asdict(found))

    assert SECRET not in text
    assert "hash keys" in text


def test_the_key_file_is_no_unknown_variable(capfd):
    """It is read, so nobody is told that it sets nothing."""
    problems({"BIZLOG_HASH_KEY_FILE": "nowhere"})
    assert "no such setting" not in capfd.readouterr().err


def test_secrets_in_other_settings_are_scrubbed():
    """A connection string in the wrong place is not repeated."""
    (problem,) = problems(sinks="eventhub://x?SharedAccessKey=s3cret")
    assert "s3cret" not in problem


# Words of others


def test_a_foreign_message_is_scrubbed_before_it_is_cut():
    """Half an address would tell as much as a whole one."""
    message = f"{'x ' * 140}{EMAIL} {EMAIL} {EMAIL}"
    text = describe_error(ValueError(message))

    assert "jane" not in text
    assert "@" not in text
    assert len(text) <= 320


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (OSError(28, "No space left"), "OSError: [Errno 28] No space left"),
        (ValueError(f"409 for {EMAIL}"), "ValueError: 409 for [email]"),
        (ValueError(f"paid by {CARD}"), "ValueError: paid by [card]"),
        (ValueError("pwd=x;"), "ValueError: pwd=[token];"),
        (ConnectionError("HTTP 503: Bearer abcd1234"),
         "ConnectionError: HTTP 503: Bearer [token]"),
    ],
)  # fmt: skip
def test_a_foreign_message_stays_useful(error, text):
    """Numbers of errors and statuses stay, values go."""
    assert describe_error(error) == text
    assert reason_of(error) == text


def test_an_error_that_cannot_be_printed_is_named():
    """Its class is all there is to say."""

    class Mute(Exception):
        def __str__(self):
            raise RuntimeError("no")

    assert describe_error(Mute()) == "Mute"


def test_the_reasons_of_a_sink_are_scrubbed():
    """A sink may quote the event that it refuses."""
    answer = bizlog.SendResult(
        rejected=[bizlog.Rejection(0, f"no {EMAIL}", f"$.{EMAIL}")],
        retry=[1],
        retry_reason=f"busy with {CARD}",
    )
    verdict = judge(2, answer)

    (refusal,) = verdict.refused
    assert (refusal.reason, refusal.path) == ("no [email]", "[email]")
    assert verdict.reason == "busy with [card]"


def test_a_check_of_the_users_own_is_scrubbed():
    """Its message may quote the value."""

    class Checked(msgspec.Struct):
        mail: str

        def __post_init__(self):
            raise ValueError(f"no customer {self.mail} " + "x" * 1000)

    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.convert([{"mail": EMAIL}], list[Checked])
    reason, path = validation_reason(caught.value)

    assert reason.startswith("no customer [email]")
    assert len(reason) <= 300
    assert path == "$[0]"


def test_cdm_types_are_those_with_tags():
    """All five, and the tags they are known by."""
    tagged = set(Privacy({}, KEY, named=CDM_TYPES).protections(BaseEvent))

    assert {CustomerEvent, OrderEvent, ProductEvent} < set(CDM_TYPES)
    assert tagged == {
        "admin_user",
        "ai_generated_content",
        "customer_name",
        "query_text",
        "search_query",
        "session_id",
        "user_id",
    }
