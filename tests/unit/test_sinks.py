"""What a sink is: records, answers, the seed's form, routes, URLs and tables."""

from __future__ import annotations

import asyncio
import copy
import importlib.metadata
import inspect
from typing import Literal

import orjson
import pytest

from bizlog.exceptions import BizlogError, ConfigurationError, MissingExtraError
from bizlog.sinks import (
    ACCEPTED,
    BaseSink,
    Batch,
    Record,
    Rejection,
    Route,
    SendResult,
    as_sink,
    left_to_parents,
    load_sink_class,
    make_sink,
)


class WarehouseSink(BaseSink):
    """A sink of somebody's package, with options of several types."""

    url_option = "place"

    def __init__(
        self,
        place: str,
        *,
        size: int = 1,
        ratio: float = 0.5,
        loud: bool = False,
        kind: Literal["dry", "cold"] = "dry",
    ) -> None:
        self.options = (place, size, ratio, loud, kind)


class PlainSink(BaseSink):
    """A sink without options."""


class RefusingSink(BaseSink):
    """A sink that knows better than its types what fits."""

    def __init__(self, depth: int = 0, error: str = "") -> None:
        if error:
            raise OSError(error)
        raise ConfigurationError(f"option 'depth' must be odd, got {depth}")


class HeavySink(BaseSink):
    """A sink whose packages are not installed."""

    def __init__(self) -> None:
        raise MissingExtraError("HeavySink", "heavy")


class SeedForm:
    """A sink in the seed's form, without a base class; notes its calls."""

    def __init__(self, answer=None):
        self.calls = []
        self.answer = answer

    async def start(self):
        self.calls.append("start")

    async def stop(self):
        self.calls.append("stop")

    async def send(self, event):
        self.calls.append(event)

    async def send_batch(self, events):
        self.calls.append(events)
        return self.answer

    async def flush(self):
        self.calls.append("flush")


def record(event_type="order.placed", **fields):
    """Make a record the way the chain does."""
    event = {"event_type": event_type, **fields}
    return Record(orjson.dumps(event), "id", event_type, "2026-01-02T03:04:05Z", 1)


def batch(*records):
    """Make a batch of records."""
    return Batch("journal", 7, 6 + len(records), records)


def deliver(sink, *records):
    """Deliver one batch on a fresh loop."""
    return asyncio.run(sink.deliver(batch(*records)))


def refusal(spec):
    """Have a sink refused, and read why."""
    with pytest.raises(ConfigurationError) as caught:
        make_sink(spec)
    assert caught.value.__cause__ is None
    return str(caught.value)


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Install a distribution that brings sinks, as pip would lay it out."""

    def install_sinks(**classes):
        folder = tmp_path / "elsewhere-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text("Name: elsewhere\nVersion: 1.0\n")
        lines = [f"{name} = {target}" for name, target in classes.items()]
        (folder / "entry_points.txt").write_text("\n".join(["[bizlog.sinks]", *lines]))
        monkeypatch.syspath_prepend(tmp_path)

    return install_sinks


@pytest.fixture
def installed(install):
    """Install the sinks of this file."""
    install(
        warehouse=f"{__name__}:WarehouseSink",
        plain=f"{__name__}:PlainSink",
        refusing=f"{__name__}:RefusingSink",
        heavy=f"{__name__}:HeavySink",
    )


# Records and batches


def test_an_event_is_decoded_anew_each_time():
    """Whoever changes a decoded event changes neither record nor batch."""
    one = record(order_id="1")
    several = batch(one)

    one.event["order_id"] = "changed"
    several.events[0]["order_id"] = "changed"

    assert one.event == {"event_type": "order.placed", "order_id": "1"}
    assert several.events == [one.event]


@pytest.mark.parametrize("field", ["data", "event_id", "sequence"])
def test_a_record_cannot_be_changed(field):
    """What was accepted is what is delivered, to every sink."""
    with pytest.raises(AttributeError):
        setattr(record(), field, None)


def test_the_name_of_a_batch_says_what_is_inside():
    """The same positions of the same journal have the same name, and no others."""
    names = {
        Batch(journal, first, last, ()).name
        for journal, first, last in [("a", 1, 2), ("a", 1, 3), ("a", 2, 3), ("b", 1, 2)]
    }

    assert len(names) == 4
    assert Batch("a", 1, 2, ()).name == Batch("a", 1, 2, (record(),)).name == "a-1-2"


def test_the_size_of_a_batch_is_its_events_bytes():
    """Bytes count, not characters."""
    several = batch(record(note="ü"), record())

    assert several.size == sum(len(each.data) for each in several.records)
    assert batch().size == 0


# The base


@pytest.mark.parametrize(
    ("class_name", "name"),
    [("KafkaSink", "kafka"), ("Warehouse", "warehouse"), ("Sink", "sink")],
)
def test_a_sink_is_named_after_its_class(class_name, name):
    """The ledger and the metrics call it what its class is called."""
    assert type(class_name, (BaseSink,), {}).name == name


def test_a_sink_may_choose_its_name():
    """A name of the class's own stands; a subclass is named after itself again."""

    class First(BaseSink):
        name = "chosen"

    class Second(First):
        pass

    assert (First.name, Second.name) == ("chosen", "second")


def test_a_sink_needs_only_what_it_overrides():
    """start, stop and flush do nothing where there is nothing to do."""

    async def life(sink):
        await sink.start()
        await sink.flush()
        await sink.stop()

    assert asyncio.run(life(PlainSink())) is None


def test_a_sink_that_overrides_nothing_refuses_with_a_hint():
    """Each event is refused for a reason that tells its author what to do."""
    answer = deliver(PlainSink(), record())

    (refused,) = answer.rejected
    assert "PlainSink must override send, send_batch or deliver" in refused.reason


def test_a_sink_that_sends_one_by_one_loses_only_what_it_refuses():
    """An event at which send raises is refused; its siblings are delivered."""

    class OneByOne(BaseSink):
        def __init__(self):
            self.sent = []

        async def send(self, event):
            if event["n"] == 1:
                raise ValueError("odd")
            self.sent.append(event["n"])

    sink = OneByOne()
    answer = deliver(sink, *[record(n=n) for n in range(3)])

    assert sink.sent == [0, 2]
    assert answer == SendResult(rejected=(Rejection(1, "ValueError: odd"),))


def test_giving_up_a_call_is_no_refusal():
    """A call that is cancelled says nothing about the event it was about."""

    class Hanging(BaseSink):
        async def send(self, event):
            await asyncio.Event().wait()

    async def main():
        task = asyncio.create_task(Hanging().deliver(batch(record())))
        await asyncio.sleep(0)
        task.cancel()
        await task

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(main())


@pytest.mark.parametrize(
    "answer", [None, SendResult(), SendResult(rejected=(Rejection(0, "bad"),))]
)
def test_a_batch_sink_may_answer_or_not(answer):
    """None from send_batch means that all events were accepted."""

    class BatchSink(BaseSink):
        async def send_batch(self, events):
            assert events == [{"event_type": "order.placed"}]
            return answer

    assert deliver(BatchSink(), record()) == (answer or ACCEPTED)


# The seed's form


def test_a_sink_in_the_seeds_form_is_run_unchanged():
    """Its five methods are called with dictionaries; it need not answer."""
    seed = SeedForm()
    sink = as_sink(seed)

    async def life():
        await sink.start()
        answer = await sink.deliver(batch(record(), record("ai.failed")))
        await sink.flush()
        await sink.stop()
        return answer

    assert asyncio.run(life()) == ACCEPTED
    assert seed.calls == [
        "start",
        [{"event_type": "order.placed"}, {"event_type": "ai.failed"}],
        "flush",
        "stop",
    ]


@pytest.mark.parametrize("answer", [None, True, False, 5, {"accepted": 1}])
def test_what_a_seed_sink_returns_means_nothing(answer):
    """Only a SendResult is an answer: a returned count of events refuses none."""
    assert deliver(as_sink(SeedForm(answer)), record()) == ACCEPTED


def test_a_seed_sink_may_answer_in_our_words():
    """A SendResult counts, whoever gives it."""
    answer = SendResult(retry=(0,), retry_after=2.0)

    assert deliver(as_sink(SeedForm(answer)), record()) == answer


def test_what_a_seed_sink_raises_is_the_engines():
    """An error means that the batch failed; it is not turned into acceptance."""

    class Failing(SeedForm):
        async def send_batch(self, events):
            raise OSError("down")

    with pytest.raises(OSError, match="down"):
        deliver(as_sink(Failing()), record())


@pytest.mark.parametrize(("given", "name"), [("mine", "mine"), ("", "seedform")])
def test_a_seed_sink_has_a_name(given, name):
    """Its own if it has one, else its class's."""
    seed = SeedForm()
    seed.name = given

    assert as_sink(seed).name == name


def test_a_sink_is_taken_as_it_is():
    """An object of ours needs no adapter."""
    sink = PlainSink()

    assert as_sink(sink) is sink
    assert make_sink(sink) is sink
    assert [route.sink for route in sink.routes()] == [sink]


@pytest.mark.parametrize("thing", [None, 5, object(), SeedForm, PlainSink, [], print])
def test_what_is_no_sink_is_refused(thing):
    """The message names the type, and the methods that make a sink."""
    with pytest.raises(ConfigurationError) as caught:
        as_sink(thing)

    text = str(caught.value)
    assert f"got {type(thing).__name__}:" in text
    assert "start, stop, send, send_batch and flush" in text


@pytest.mark.parametrize("missing", ["start", "stop", "send", "send_batch", "flush"])
def test_all_five_methods_are_needed(missing):
    """A sink without one of them would fail with the first batch."""
    methods = {
        name: method
        for name, method in vars(SeedForm).items()
        if not name.startswith("__") and name != missing
    }
    with pytest.raises(ConfigurationError):
        as_sink(type("Almost", (), methods)())


# Routes


@pytest.mark.parametrize(
    ("event_type", "matching"),
    [
        (None, ["order.placed", "order.failed", "ai.failed", "Order.placed"]),
        ("order.placed", ["order.placed"]),
        ("order.*", ["order.placed", "order.failed"]),
        ("*.failed", ["order.failed", "ai.failed"]),
        (["ai.*", "order.placed"], ["order.placed", "ai.failed"]),
        (("ai.?ailed",), ["ai.failed"]),
        ("Order.*", ["Order.placed"]),
        ("order", []),
        ([], []),
    ],
)
def test_a_route_takes_names_and_patterns(event_type, matching):
    """Any of several has to match, the whole name, in its spelling."""
    route = Route(PlainSink(), event_type)
    names = ["order.placed", "order.failed", "ai.failed", "Order.placed"]

    assert [name for name in names if route.matches(record(name))] == matching


def test_a_predicate_sees_the_event():
    """The predicate gets the decoded event, and may answer anything true."""
    route = Route(PlainSink(), when=lambda event: event.get("tags"))

    assert route.matches(record(tags=["vip"])) is True
    assert route.matches(record(tags=[])) is False
    assert route.matches(record()) is False


def test_name_and_predicate_both_have_to_match():
    """The predicate is asked only about events of the right name."""
    asked = []

    def vip(event):
        asked.append(event["event_type"])
        return event["vip"]

    route = Route(PlainSink(), "order.*", when=vip)

    assert route.matches(record(vip=True))
    assert not route.matches(record(vip=False))
    assert not route.matches(record("ai.failed", vip=True))
    assert asked == ["order.placed", "order.placed"]


def test_what_a_predicate_raises_is_not_an_answer():
    """The error reaches whoever asks: the lane, which keeps the event."""
    route = Route(PlainSink(), when=lambda event: event["missing"])

    with pytest.raises(KeyError):
        route.matches(record())


@pytest.mark.parametrize("spec", ["plain:", {"type": "plain"}])
def test_a_route_builds_its_sink(installed, spec):
    """URLs and tables serve as well as objects."""
    assert isinstance(Route(spec).sink, PlainSink)


def test_a_route_takes_a_seed_sink():
    """So does a sink in the seed's form."""
    assert Route(SeedForm()).sink.name == "seedform"


class Group(BaseSink):
    """Stands for other sinks."""

    def __init__(self, *routes):
        self.members = routes

    def routes(self):
        return self.members


def test_groups_are_expanded_to_the_sinks_that_send():
    """Each real sink gets one route, at any depth, with the conditions of all."""
    one, two, three = PlainSink(), PlainSink(), PlainSink()
    inner = Group(Route(one, "*.placed"), Route(two))
    outer = Group(Route(inner, "order.*"), Route(three))

    routes = Route(outer, when=lambda event: event["vip"]).expand()

    vip, other = record(vip=True), record("order.failed", vip=True)
    assert [route.sink for route in routes] == [one, two, three]
    assert [route.matches(vip) for route in routes] == [True, True, True]
    assert [route.matches(other) for route in routes] == [False, True, True]
    assert not any(route.matches(record(vip=False)) for route in routes)


def test_expanding_leaves_the_route_as_it_was():
    """A route that is its own sink's stays itself."""
    route = Route(PlainSink(), "order.*")

    assert route.expand() == [route]


# URLs


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("warehouse:north", ("north", 1, 0.5, False, "dry")),
        ("WAREHOUSE:north", ("north", 1, 0.5, False, "dry")),
        ("warehouse:./deep/path", ("./deep/path", 1, 0.5, False, "dry")),
        ("warehouse:/absolute", ("/absolute", 1, 0.5, False, "dry")),
        ("warehouse://host:80/path", ("host:80/path", 1, 0.5, False, "dry")),
        ("warehouse:a%20b%23%3F", ("a b#?", 1, 0.5, False, "dry")),
        ("warehouse:?place=south", ("south", 1, 0.5, False, "dry")),
        (
            "warehouse:n?size=3&ratio=2&loud=true&kind=cold",
            ("n", 3, 2.0, True, "cold"),
        ),
        ("warehouse:n?loud=0", ("n", 1, 0.5, False, "dry")),
    ],
)
def test_a_url_gives_place_and_options(installed, url, options):
    """Text becomes what the constructor's annotations say."""
    assert make_sink(url).options == options


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("warehouse:", ["sink warehouse: needs the option 'place'"]),
        (
            "warehouse:n?sise=3",
            [
                "has no option 'sise'; did you mean 'size'?",
                "options: place, size, ratio, loud, kind",
            ],
        ),
        ("warehouse:n?zzz=3", ["has no option 'zzz'; options: place"]),
        ("warehouse:n?size=many", ["option 'size': Expected `int`, got `str`"]),
        ("warehouse:n?size=", ["option 'size': Expected `int`, got `str`"]),
        ("warehouse:n?loud=perhaps", ["option 'loud': Expected `bool`, got `str`"]),
        ("plain:x", ["sink plain: takes nothing behind 'plain:'"]),
        ("plain:?x=1", ["sink plain: has no option 'x'", "options: none"]),
        ("plian:", ["sink plian: is unknown; did you mean 'plain'?"]),
        ("zzz:", ["sink zzz: is unknown; known are", "plain", "warehouse"]),
        ("./events", ["such as 'file:./events', got './events'", "known schemes are"]),
        ("", ["expected a sink URL", "known schemes are"]),
        (
            "refusing:?depth=2",
            ["sink refusing: option 'depth' must be odd, got 2"],
        ),
    ],
)
def test_what_is_wrong_with_a_url_is_told(installed, url, parts):
    """The message names sink and option, what was found, and what there is."""
    text = refusal(url)

    assert [part for part in parts if part not in text] == []


def test_all_that_is_wrong_with_a_sink_is_told_at_once(installed):
    """Nobody has to run the program again to learn of the next mistake."""
    text = refusal("warehouse:?size=many&sise=3&loud=perhaps")

    for part in ("'size': Expected", "no option 'sise'", "'loud': Expected"):
        assert part in text
    assert "needs the option 'place'" in text


@pytest.mark.parametrize(
    "url",
    [
        "nowhere://user:hunter2@host/path?key=hunter2",
        "warehouse://user:hunter2@host?sise=hunter2",
        "warehouse:n?size=hunter2",
        "warehouse:n?kind=hunter2",
        "plain://user:hunter2@host",
    ],
)
def test_no_message_repeats_what_may_be_secret(installed, url):
    """User, password and values of options stay out of messages, which are logged."""
    assert "hunter2" not in refusal(url)


# Tables


def test_a_table_gives_type_and_options(installed):
    """The same options by the same names; values have their types already."""
    table = {"type": "warehouse", "place": "north", "size": 3, "loud": True}

    assert make_sink(table).options == ("north", 3, 0.5, True, "dry")
    assert table == {"type": "warehouse", "place": "north", "size": 3, "loud": True}


@pytest.mark.parametrize("table", [{}, {"place": "north"}, {"type": 5}, {"type": None}])
def test_a_table_needs_a_type(installed, table):
    """Without one the known names are told."""
    text = refusal(table)

    assert "needs 'type'" in text
    assert "plain" in text


@pytest.mark.parametrize(
    ("table", "part"),
    [
        ({"type": "warehuose"}, "sink type 'warehuose' is unknown; did you mean"),
        ({"type": "warehouse"}, "sink type 'warehouse' needs the option 'place'"),
        (
            {"type": "warehouse", "place": 5},
            "sink type 'warehouse' option 'place': Expected `str`, got `int`",
        ),
        ({"type": "plain", "plase": "x"}, "sink type 'plain' has no option 'plase'"),
    ],
)
def test_what_is_wrong_with_a_table_is_told(installed, table, part):
    """Tables are checked as URLs are."""
    assert part in refusal(table)


# Entry points


def test_a_package_brings_sinks_of_its_own(installed):
    """A scheme is looked up among the entry points of all installed packages."""
    assert load_sink_class("warehouse") is WarehouseSink
    assert load_sink_class("null").__name__ == "NullSink"


def test_a_sink_is_loaded_only_when_it_is_named(install):
    """A broken package disturbs nobody who does not use it."""
    install(broken="no_such_module_anywhere:Sink", plain=f"{__name__}:PlainSink")

    assert isinstance(make_sink("plain:"), PlainSink)
    assert "broken" in refusal("zzz:")


def test_where_nothing_is_installed_the_message_says_so(monkeypatch):
    """A source tree without its entry points is the likely cause."""
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda **_: [])

    assert "known are none (is bizlog installed?)" in refusal("file:./events")


def test_missing_packages_are_told_by_their_extra(installed):
    """The error names the command that installs them; it is no fault of settings."""
    with pytest.raises(MissingExtraError, match=r"pip install 'bizlog\[heavy\]'"):
        make_sink("heavy:")


def test_what_a_constructor_raises_is_passed_on(installed):
    """A folder that cannot be made is the system's word, not ours."""
    with pytest.raises(OSError, match="no room") as caught:
        make_sink("refusing:?error=no room")

    assert not isinstance(caught.value, BizlogError)


# After a fork


class OpenSink(BaseSink):
    """A sink that opens something, and would be missed if it were closed."""

    def __init__(self, place, /, *more, size=1):
        self.made = (place, more, size)
        self.open = None

    async def start(self):
        self.open = object()


def test_after_a_fork_a_sink_is_made_again_with_its_arguments():
    """The same object, as new; what it had open is kept, and neither closed nor shared."""
    sink = OpenSink("here", 1, 2, size=3)
    asyncio.run(sink.start())
    sink.added = "later"
    opened = sink.open

    sink.after_fork()

    assert vars(sink) == {"_made_with": (("here", 1, 2), {"size": 3})} | {
        "made": ("here", (1, 2), 3),
        "open": None,
    }
    assert any(left.get("open") is opened for left in left_to_parents)
    sink.after_fork()
    assert sink.made == ("here", (1, 2), 3)


def test_after_a_fork_a_sink_without_options_has_nothing():
    """It needs no constructor for that."""
    sink = PlainSink()
    sink.connection = "the parent's"

    sink.after_fork()

    assert not hasattr(sink, "connection")


def test_a_sink_that_cannot_be_made_again_stays_as_it_is():
    """Its error is for bizlog to tell; `start` may still bring it round."""

    class Once(BaseSink):
        def __init__(self, tokens):
            self.token = tokens.pop()

    sink = Once(["only one"])
    with pytest.raises(IndexError):
        sink.after_fork()
    assert sink.token == "only one"


def test_a_copy_of_a_sink_is_made_again_like_the_original():
    """Pickled and copied sinks know their arguments, too."""
    sink = copy.copy(OpenSink("here", size=3))

    sink.after_fork()

    assert sink.made == ("here", (), 3)


def test_a_sink_without_options_takes_none():
    """As any class without a constructor does."""
    with pytest.raises(TypeError, match=r"PlainSink\(\) takes no arguments"):
        PlainSink(1)
    with pytest.raises(TypeError, match=r"PlainSink\(\) takes no arguments"):
        PlainSink(size=1)
    assert str(inspect.signature(PlainSink)) == "()"


def test_a_sink_may_have_other_bases_that_take_arguments():
    """Noting them stands in nobody's way."""

    class Base:
        def __init__(self, place):
            self.place = place

    class Mixed(BaseSink, Base):
        def __init__(self, place):
            super().__init__(place)

    sink = Mixed("here")
    sink.after_fork()
    assert sink.place == "here"


def test_a_seed_sink_is_asked_to_begin_anew_if_it_can():
    """How it was made is unknown; one without the method is left as it is."""
    calls = []

    class Seed:
        async def start(self): ...
        async def stop(self): ...
        async def send(self, event): ...
        async def send_batch(self, events): ...
        async def flush(self): ...

    class Forking(Seed):
        def after_fork(self):
            calls.append("after_fork")

    for seed in (Seed(), Forking()):
        sink = as_sink(seed)
        sink.after_fork()
        assert sink._sink is seed
    assert calls == ["after_fork"]
