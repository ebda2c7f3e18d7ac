"""Faults of the core modules that a hostile reading found, each with its rule."""

from __future__ import annotations

import asyncio
import datetime as dt
import enum
import pickle
import sys
import uuid
from pathlib import Path
from typing import Annotated, Literal
from unittest.mock import Mock

import msgspec
import pytest

import bizlog
from bizlog._wording import describe_error, validation_reason
from bizlog.ledger import Labels
from bizlog.registry import Registry
from bizlog.settings import load_settings
from bizlog.sinks import BaseSink, Route, make_sink
from bizlog.testing import MemorySink


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def problems(**arguments):
    with pytest.raises(bizlog.ConfigurationError) as caught:
        load_settings({"sinks": ["null:"], **arguments}, {})
    return list(caught.value.problems)


# context.py ------------------------------------------------------------------------


def test_one_scope_in_two_tasks_keeps_them_apart():
    """A scope that is kept (module level) restores each task's own context."""
    scope, inside = bizlog.session("kept"), asyncio.Event()

    async def main():
        async def first():
            bizlog.bind_context(user_id="alice")
            async with scope:
                await inside.wait()
            return bizlog.current_context()

        async def second():
            bizlog.bind_context(user_id="bob")
            async with scope:
                inside.set()
                for _ in range(3):
                    await asyncio.sleep(0)
            return bizlog.current_context()

        return await asyncio.gather(first(), second())

    assert asyncio.run(main()) == [{"user_id": "alice"}, {"user_id": "bob"}]


# registry.py -----------------------------------------------------------------------


class Loan(bizlog.BaseEvent):
    amount: int | None = None


def test_a_family_is_seen_although_its_name_was_resolved_before():
    """add_family ends the cached answers, as register does."""
    mine = Registry()
    mine.resolve("loan.approved")
    mine.add_family("loan", Loan)
    assert mine.resolve("loan.approved").cls is Loan


def test_a_family_of_ones_own_hides_no_name_of_the_parent():
    """What `names` lists is accepted by strict mode."""
    mine = Registry()
    mine.add_family("order", Loan)
    assert "order.placed" in mine.names
    mine.resolve("order.placed", strict=True)


def test_a_refined_class_may_be_defined_again():
    """Re-running the cell of the parent, after a subclass took its name, is no error."""
    mine = Registry()

    def cell():
        class Cell(bizlog.BaseEvent, event_type="loan.approved", registry=mine):
            pass

        return Cell

    class Refined(cell(), event_type="loan.approved", registry=mine):
        pass

    cell()


@pytest.mark.parametrize("version", ["two", 0, -1, True, 1.5, None])
def test_a_version_is_a_whole_number_from_1(version):
    """Otherwise it stands in schema_version of every event."""
    with pytest.raises(bizlog.RegistrationError):
        Registry().register(Loan, "loan.approved", version)


@pytest.mark.parametrize("name", ["loan." + "x" * 300, 5])
def test_only_what_can_be_resolved_can_be_registered(name):
    """A name too long to be emitted, or no text, is refused where it is defined."""
    with pytest.raises(bizlog.RegistrationError):
        Registry().register(Loan, name)


def test_a_hostile_name_is_not_asked():
    """A subclass of str whose __bool__/__len__ raises is read as its text."""

    class Hostile(str):
        __slots__ = ()

        def __bool__(self):
            raise RuntimeError

    assert bizlog.registry.resolve(Hostile("order.placed")).name == "order.placed"


# events.py -------------------------------------------------------------------------


class Colour(enum.Enum):
    RED = "red"


@pytest.mark.parametrize(
    ("kind", "default"),
    [
        (dt.date, dt.date(2026, 1, 1)),
        (uuid.UUID, uuid.UUID(int=3)),
        (Colour, Colour.RED),
        (bytes, b"x"),
        (int, msgspec.field(default=5)),
        (list[str], []),
        (dict[str, str], {}),
    ],
)
def test_only_null_may_be_absent_on_the_wire(kind, default):
    """events.py says so: a default is written, whatever its type."""
    cls = type(bizlog.BaseEvent)(
        "Own",
        (bizlog.BaseEvent,),
        {"__annotations__": {"field": kind}, "field": default},
    )
    assert "field" in msgspec.json.decode(msgspec.json.encode(cls()))


def test_a_value_equal_to_its_default_reaches_the_sink():
    """End to end: what the caller passed stands on the wire."""
    mine = Registry()

    class Own(bizlog.BaseEvent, event_type="own.event", registry=mine):
        n: int = msgspec.field(default=5)
        tags: list[str] = []  # noqa: RUF012  # a field of a struct

    sink = MemorySink()
    with bizlog.BusinessTelemetryClient(source="s", sinks=[sink], registry=mine) as c:
        c.send_sync("own.event", n=5, tags=[])
        c.send_sync(Own(n=5, tags=[]))
    assert [(e.get("n"), e.get("tags")) for e in sink.events] == [(5, []), (5, [])]


class Size(enum.Enum):
    SMALL = 1


class Word(enum.Enum):
    SMALL = "small"


@pytest.mark.parametrize("member", [Size.SMALL, Word.SMALL, Colour.RED])
def test_an_enum_field_takes_its_members(member):
    """A typed event whose field is an Enum is valid with a member of it."""
    mine = Registry()
    cls = type(bizlog.BaseEvent)(
        "Own",
        (bizlog.BaseEvent,),
        {"__annotations__": {"size": type(member) | None}, "size": None},
        event_type="own.event",
        registry=mine,
    )
    sink = MemorySink()
    with bizlog.BusinessTelemetryClient(source="s", sinks=[sink], registry=mine) as c:
        c.send_sync(cls(size=member))
        c.send_sync("own.event", size=member)
    assert [e.get("size") for e in sink.events] == [member.value] * 2


def test_a_registered_class_still_describes_event_type():
    """Each field has its description, in the registered class too."""
    mine = Registry()

    class Own(bizlog.BaseEvent, event_type="own.event", registry=mine):
        pass

    field = {f.name: f for f in msgspec.inspect.type_info(Own).fields}["event_type"]
    assert isinstance(field.type, msgspec.inspect.Metadata)


# settings.py -----------------------------------------------------------------------


def test_the_type_is_named_for_long_values():
    """The type found stands in the message, however long the value."""
    (problem,) = problems(source="x" * 300)
    assert "(str)" in problem


def test_a_value_whose_repr_raises_is_a_fault_like_others():
    """No foreign exception leaves configure(), and the list is complete."""

    class Hostile:
        def __repr__(self):
            raise RuntimeError

    assert len(problems(batch_size=Hostile(), strict=5)) == 2


def test_a_url_as_text_leaks_no_password():
    """sinks='https://user:secret@…' is refused without repeating the secret."""
    (problem,) = problems(sinks="https://user:hunter2@host/")
    assert "hunter2" not in problem


def test_bytes_are_one_fault():
    """sinks=b'null:' is refused as bytes, not as five integers."""
    (problem,) = problems(sinks=b"null:")
    assert "bytes" in problem


@pytest.mark.parametrize("seconds", [float("inf"), 1e12])
def test_a_deadline_without_end_ends_no_shutdown_with_an_error(seconds):
    """shutdown_timeout=inf: OverflowError in shutdown() and again in the exit hook."""
    sink = MemorySink()
    try:
        client = bizlog.BusinessTelemetryClient(
            source="s", sinks=[sink], shutdown_timeout=seconds
        )
    except bizlog.ConfigurationError:
        return
    client.send_sync("order.placed")
    try:
        assert client.shutdown_sync()
    finally:
        client.shutdown_sync(5)


def test_a_folder_has_a_name():
    """dead_letters='' is no folder (it would be the working directory)."""
    problems(dead_letters="")


def test_a_file_in_a_folder_called_like_a_variable_is_strict():
    """Text is no number in a file, whatever its folder is called."""
    Path("BIZLOG_x").mkdir()
    Path("BIZLOG_x/bizlog.toml").write_text('batch_size = "5"\n')
    with pytest.raises(bizlog.ConfigurationError):
        load_settings({"sinks": ["null:"]}, {}, "BIZLOG_x")


def test_a_long_program_name_is_no_fault(monkeypatch):
    """The default of a setting is never refused."""
    monkeypatch.setattr(sys, "argv", ["x" * 240 + ".py"])
    load_settings({"sinks": ["null:"]}, {})


def test_the_file_stands_before_opentelemetry():
    """OTEL_SERVICE_NAME fills `source` only where bizlog.toml leaves it unset."""
    Path("bizlog.toml").write_text('source = "ours"\n')
    found = load_settings({"sinks": ["null:"]}, {"OTEL_SERVICE_NAME": "theirs"})
    assert found.source == "ours"


# sinks.py --------------------------------------------------------------------------


def test_a_malformed_url_is_a_configuration_error():
    """The ValueError of urlsplit does not leave Route, CompositeSink or make_sink."""
    with pytest.raises(bizlog.ConfigurationError):
        make_sink("file://[bad")


@pytest.mark.parametrize("url", ["file:./x?partition=odd", "console:odd"])
def test_a_choice_names_what_there_is(url):
    """The message says which values the option takes, and which type was found."""
    with pytest.raises(bizlog.ConfigurationError, match=r"flat|stderr"):
        make_sink(url)


def test_a_fragment_is_not_cut_off_in_silence():
    """file:./events#1 either writes to that folder or is refused."""
    try:
        sink = make_sink("file:./events#1")
    except bizlog.ConfigurationError:
        return
    assert "#1" in str(sink._folder._root)


def test_a_table_with_a_key_that_is_no_text_is_told():
    """{'type': 'null', 5: 1} is refused in words, not by a TypeError."""
    with pytest.raises(bizlog.ConfigurationError):
        make_sink({"type": "null", 5: 1})


@pytest.mark.parametrize("fault", [{"event_type": 5}, {"when": True}])
def test_a_route_that_cannot_match_is_refused(fault):
    """A name that is no text, a predicate that is no function: told at once."""
    with pytest.raises(bizlog.ConfigurationError):
        Route("null:", **fault)


class Untyped(BaseSink):
    def __init__(self, place, **more) -> None:
        self.place, self.more = place, more


class Another(BaseSink):
    def __init__(self, place: Annotated[str, "x"] = "", *places: str) -> None:
        self.place = place


@pytest.mark.parametrize("cls", [Untyped, Another])
def test_a_constructor_without_annotations_can_be_built(cls):
    """A user's sink with plain, *args or **kwargs parameters works by table."""
    assert cls.from_options({"place": "north"}).place == "north"


def test_a_sink_whose_module_is_missing_leaves_as_ours(tmp_path, monkeypatch):
    """An entry point that cannot be imported raises no foreign error from Route()."""
    folder = tmp_path / "elsewhere-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Name: elsewhere\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text("[bizlog.sinks]\nbroken = no_such_mod:X\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(bizlog.BizlogError):
        Route("broken:")


# others ----------------------------------------------------------------------------


def test_a_missing_extra_can_be_pickled():
    """Else a ProcessPoolExecutor breaks instead of telling what to install."""
    error = bizlog.MissingExtraError("x", "zstd")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_a_label_is_read_by_its_real_type():
    """Mock(spec=str) says isinstance(…, str) and is none."""
    assert Labels().admit(Mock(spec=str)) == "Mock"


def test_a_value_never_stands_in_the_path():
    """A refused value with ' - at `' in it does not leak into path or reason."""

    class Own(msgspec.Struct):
        status: Literal["new"]

    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.convert({"status": "y - at `secret`"}, Own)
    assert validation_reason(caught.value) == ("Invalid enum value", "$.status")


def test_an_error_that_cannot_be_read_is_described():
    """An exception whose __str__ raises is described by its class."""

    class Odd(Exception):
        def __str__(self):
            raise RuntimeError

    assert describe_error(Odd()).startswith("Odd")
