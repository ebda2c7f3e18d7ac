"""The registry: which class types a name, which names there are, and what changes."""

from __future__ import annotations

import gc
import weakref

import pytest

from bizlog.events import AIEvent, BaseEvent, OrderEvent, ProductEvent
from bizlog.exceptions import InvalidEventError, RegistrationError, UnknownEventError
from bizlog.registry import (
    _CACHE_LIMIT,
    MAX_NAME,
    Registry,
    is_event_name,
    registry,
)


class Loan(BaseEvent):
    amount: int | None = None


class LargeLoan(Loan):
    board: str | None = None


class Stranger(BaseEvent):
    pass


class Watcher:
    """Counts how often it is told."""

    def __init__(self):
        self.told = 0

    def registry_changed(self):
        self.told += 1


def defined_again():
    """Define one class anew, as a notebook cell or a reloaded module does."""

    class Cell(BaseEvent):
        pass

    return Cell


@pytest.fixture
def mine():
    """Make a catalogue that no other test sees, below bizlog's own."""
    return Registry()


# Classification


@pytest.mark.parametrize(
    ("name", "cls"),
    [
        ("order.placed", OrderEvent),
        ("order.anything", OrderEvent),
        ("order.deep.er", OrderEvent),
        ("order", OrderEvent),
        ("ai.x", AIEvent),
        ("orders.placed", BaseEvent),
        ("Order.placed", BaseEvent),
        (".order", BaseEvent),
        (" ", BaseEvent),
        ("bestellung.größer", BaseEvent),
    ],
)
def test_a_name_belongs_to_the_family_of_its_first_word(name, cls):
    """The word before the first dot decides, exactly; all others are plain events."""
    found = registry.resolve(name)

    assert (found.name, found.cls, found.version) == (name, cls, 1)


def test_a_registered_name_comes_before_its_family(mine):
    """What registered a name types it, with its version."""
    mine.register(Loan, "order.placed_on_credit", version=3)

    found = mine.resolve("order.placed_on_credit")

    assert (found.cls, found.version) == (Loan, 3)
    assert mine.resolve("order.placed").cls is OrderEvent


def test_a_registry_has_families_of_its_own(mine):
    """A family types every name of its prefix; only the listed ones are known."""
    mine.add_family("loan", Loan, ("approved",))

    assert mine.resolve("loan.approved").cls is Loan
    assert mine.resolve("loan.other").cls is Loan
    assert mine.resolve("loan.approved").catalogued
    assert not mine.resolve("loan.other").catalogued
    assert "loan.approved" in mine.names
    assert "loan.other" not in mine.names


def test_a_subclass_of_text_is_read_as_its_text(mine):
    """A name from an enumeration resolves, and is kept as plain text."""

    class Name(str):
        __slots__ = ()

    found = mine.resolve(Name("order.placed"))

    assert type(found.name) is str
    assert found is registry.resolve("order.placed")


@pytest.mark.parametrize("name", [None, 5, b"order.placed", ["order.placed"], {}])
def test_what_is_no_text_is_no_name(mine, name):
    """The message names the type that was found, and where it stood."""
    with pytest.raises(InvalidEventError, match="expected the name of an event") as e:
        mine.resolve(name)

    assert type(name).__name__ in e.value.reason
    assert e.value.path == "$.event_type"


def test_an_empty_name_is_none(mine):
    """An empty text is told apart from a text."""
    with pytest.raises(InvalidEventError, match="got an empty text"):
        mine.resolve("")


@pytest.mark.parametrize("name", ["x" * (MAX_NAME + 1), "order.\ud800placed"])
def test_a_name_is_bounded_and_can_be_written(mine, name):
    """Names become folders and labels; the message does not repeat a bad one."""
    with pytest.raises(InvalidEventError, match="at most 200 characters") as caught:
        mine.resolve(name)

    assert name not in str(caught.value)
    assert f"a text of {len(name)}" in caught.value.reason


def test_the_longest_name_is_a_name(mine):
    """The bound itself is inside."""
    name = "x" * MAX_NAME

    assert mine.resolve(name).name == name


# Strict mode


def test_strict_accepts_what_is_known(mine):
    """Strict mode takes the CDM names and everything registered."""
    mine.register(Loan, "loan.approved")

    assert mine.resolve("loan.approved", strict=True).cls is Loan
    assert mine.resolve("order.placed", strict=True).cls is OrderEvent


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("order.plcaed", "order.placed"), ("loan.aproved", "loan.approved")],
)
def test_strict_names_the_nearest_known_name(mine, name, nearest):
    """A slip of the pen is refused with the name that was meant."""
    mine.register(Loan, "loan.approved")

    with pytest.raises(UnknownEventError) as caught:
        mine.resolve(name, strict=True)

    assert caught.value.reason == (
        f"the name is not in the catalogue; did you mean {nearest!r}?"
    )
    assert caught.value.path == "$.event_type"


def test_strict_guesses_nothing_far_fetched(mine):
    """Where no known name is near, none is suggested."""
    with pytest.raises(UnknownEventError) as caught:
        mine.resolve("zzz", strict=True)

    assert caught.value.reason == "the name is not in the catalogue"


def test_strict_is_asked_at_each_call(mine):
    """A name that was taken without strict mode is still refused with it."""
    assert mine.resolve("order.other").cls is OrderEvent
    with pytest.raises(UnknownEventError):
        mine.resolve("order.other", strict=True)


# Registration


@pytest.mark.parametrize(
    "name",
    [
        *("", "loan", "Loan.approved", "loan..approved", "loan.", ".loan", "1.a"),
        *("loan.a b", "loan.approved\n", "loan.größer", "loan.über"),
    ],
)
def test_a_malformed_name_is_refused_with_an_example(mine, name):
    """Only lower-case words joined by dots can be registered."""
    with pytest.raises(RegistrationError, match=r"such as 'loan\.approved'") as caught:
        mine.register(Loan, name)

    assert "Loan" in str(caught.value)
    assert name not in mine.names


@pytest.mark.parametrize("name", ["a.b", "a_1.b_2.3", "loan.approved"])
def test_words_joined_by_dots_are_a_name(mine, name):
    """Digits and underscores are part of words, and there may be many words."""
    mine.register(Loan, name)

    assert mine.resolve(name, strict=True).cls is Loan


def test_a_taken_name_is_refused_with_both_classes(mine):
    """The message names who has the name, who wants it, and two ways out."""
    mine.register(Loan, "loan.approved")

    with pytest.raises(RegistrationError) as caught:
        mine.register(Stranger, "loan.approved")

    text = str(caught.value)
    assert f"registered by {__name__}.Loan:" in text
    assert f"another name for {__name__}.Stranger" in text
    assert "a Registry of its own" in text
    assert mine.resolve("loan.approved").cls is Loan


def test_the_same_class_defined_again_replaces_itself(mine):
    """A notebook cell runs twice: the last definition holds."""
    first, second = defined_again(), defined_again()
    mine.register(first, "loan.approved", 1)

    mine.register(second, "loan.approved", 2)

    found = mine.resolve("loan.approved")
    assert (found.cls, found.version) == (second, 2)


def test_a_subclass_may_refine_its_parents_name(mine):
    """What the parent promised still holds, so the name may pass on."""
    mine.register(Loan, "loan.approved")

    mine.register(LargeLoan, "loan.approved", 2)

    assert mine.resolve("loan.approved").cls is LargeLoan


def test_a_parent_may_not_take_its_subclasss_name(mine):
    """The other way round fields would be lost."""
    mine.register(LargeLoan, "loan.approved")

    with pytest.raises(RegistrationError, match="LargeLoan"):
        mine.register(Loan, "loan.approved")


# Parents


def test_a_registry_finds_names_in_its_parent(mine):
    """What is unknown here is looked up above, at any height."""
    mine.register(Loan, "loan.approved", 4)
    below = Registry(Registry(mine))

    assert below.resolve("loan.approved").cls is Loan
    assert below.resolve("loan.approved", strict=True).version == 4
    assert below.resolve("product.viewed").cls is ProductEvent
    assert below.resolve("none.such").cls is BaseEvent


def test_a_registry_may_differ_from_its_parent(mine):
    """A name may have another class below; the parent does not notice."""
    mine.register(Loan, "order.placed", 9)

    assert mine.resolve("order.placed").cls is Loan
    assert registry.resolve("order.placed").cls is OrderEvent


def test_two_registries_do_not_see_each_other(mine):
    """What one knows is unknown to its sibling."""
    mine.register(Loan, "loan.approved")

    assert Registry().resolve("loan.approved").cls is BaseEvent
    assert "loan.approved" not in Registry().names


def test_names_are_sorted_and_each_stands_once(mine):
    """The catalogue below includes the one above."""
    mine.register(Loan, "loan.approved")
    mine.register(Loan, "order.placed")

    names = mine.names
    assert names == sorted(set(names))
    assert set(names) == {*registry.names, "loan.approved"}


def test_classes_are_those_of_names_and_families(mine):
    """Each class that may type an event is listed, those of the parent included."""
    mine.register(Loan, "loan.approved")
    mine.add_family("strange", Stranger)

    assert mine.classes == {*registry.classes, Loan, Stranger}
    assert {BaseEvent, OrderEvent, ProductEvent} <= registry.classes


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("order.placed", True),
        ("order.other", True),
        ("loan.approved", True),
        ("house.sold", True),
        ("loan.other", False),
        ("order", False),
        ("order.", False),
        (".placed", False),
        ("", False),
    ],
)
def test_a_name_is_known_by_catalogue_or_family(mine, name, known):
    """A registry knows its names, those of its families, and all its parent knows."""
    mine.register(Loan, "loan.approved")
    mine.add_family("house", Stranger)

    assert Registry(mine).knows(name) is known


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("loan.approved", True),
        ("loan." + "x" * (MAX_NAME - 5), True),
        ("loan." + "x" * (MAX_NAME - 4), False),
        ("loan", False),
        ("Loan.approved", False),
        ("loan.approved\n", False),
        ("a sentence. and more", False),
    ],
)
def test_what_reads_like_a_name_is_told_from_other_text(text, expected):
    """Lower-case words joined by dots, within the bound; nothing else."""
    assert is_event_name(text) is expected


# What changes


def test_a_registration_is_seen_although_the_name_was_resolved_before(mine):
    """A cached answer ends with the next registration."""
    assert mine.resolve("loan.approved").cls is BaseEvent

    mine.register(Loan, "loan.approved")

    assert mine.resolve("loan.approved").cls is Loan


def test_a_registration_above_is_seen_below(mine):
    """A registry finds names in its parent, so a change there counts here, too."""
    below = Registry(mine)
    assert below.resolve("loan.approved").cls is BaseEvent

    mine.register(Loan, "loan.approved")

    assert below.resolve("loan.approved").cls is Loan


def test_generations_count_registrations_everywhere(mine):
    """Whoever keeps what it made of the catalogue sees that it is stale."""
    before = Registry.generation

    mine.register(Loan, "loan.approved")
    Registry().register(Loan, "loan.approved")

    assert Registry.generation == before + 2


def test_a_registration_that_fails_changes_nothing(mine):
    """A refused class makes nothing stale."""
    before = Registry.generation

    with pytest.raises(RegistrationError):
        mine.register(Loan, "Loan")

    assert Registry.generation == before


def test_watchers_are_told_of_registrations_anywhere(mine):
    """A watcher of one registry hears of another one's, which may be its parent."""
    watcher = Watcher()
    mine.watch(watcher)

    mine.register(Loan, "loan.approved")
    Registry().register(Loan, "loan.approved")

    assert watcher.told == 2


def test_a_watcher_is_told_when_it_can_look(mine):
    """At that moment the new class resolves already."""
    found = []

    class Curious:
        def registry_changed(self):
            found.append(mine.resolve("loan.approved").cls)

    watcher = Curious()
    mine.watch(watcher)
    mine.register(Loan, "loan.approved")

    assert found == [Loan]


def test_a_watcher_lives_no_longer_for_being_one(mine):
    """The registry, which lives as long as the process, keeps no client alive."""
    watcher = Watcher()
    mine.watch(watcher)
    alive = weakref.ref(watcher)

    del watcher
    gc.collect()

    assert alive() is None


def test_a_known_name_is_looked_up_once(mine):
    """The same answer is given again, object for object."""
    assert mine.resolve("order.other") is mine.resolve("order.other")


def test_the_cache_of_names_is_bounded(mine):
    """Callers choose names; what is kept of them does not grow without end."""
    for number in range(_CACHE_LIMIT + 50):
        assert mine.resolve(f"order.n{number}").cls is OrderEvent

    assert len(mine._resolved) <= _CACHE_LIMIT
    assert len(registry._resolved) <= _CACHE_LIMIT


def test_refused_names_are_not_kept(mine):
    """What is no name leaves nothing behind."""
    for name in ("", "x" * 300, None):
        with pytest.raises(InvalidEventError):
            mine.resolve(name)

    assert mine._resolved == {}
