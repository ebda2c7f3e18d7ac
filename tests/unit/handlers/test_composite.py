"""CompositeSink names its members for the engine and serves them by hand."""

from __future__ import annotations

import asyncio

import pytest

from bizlog.exceptions import (
    ConfigurationError,
    PermanentSinkError,
    RetryableSinkError,
)
from bizlog.sinks import ACCEPTED, BaseSink, Rejection, Route, SendResult
from bizlog_handlers.composite import CompositeSink
from bizlog_handlers.null import NullSink


class Spy(BaseSink):
    """Notes what it is asked; answers or raises what it was told."""

    def __init__(self, name="spy", answer=ACCEPTED, failing=()):
        self.name = name
        self.answer = answer
        self.failing = failing
        self.calls = []
        self.types = []

    async def start(self):
        self._note("start")

    async def stop(self):
        self._note("stop")

    async def flush(self):
        self._note("flush")

    def _note(self, call):
        self.calls.append(call)
        if call in self.failing:
            raise RuntimeError(f"no {call}")

    async def deliver(self, batch):
        self.types = [record.event_type for record in batch.records]
        self.name_of_batch = batch.name
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class SeedStyle:
    """A sink in the seed's form, without a base class."""

    async def start(self): ...
    async def stop(self): ...
    async def send(self, event): ...
    async def send_batch(self, events): ...
    async def flush(self): ...


def deliver(sink, batch):
    """Deliver one batch on a fresh loop."""
    return asyncio.run(sink.deliver(batch))


def test_routes_name_each_member():
    """The engine gets a route per member: sinks, seed sinks, URLs and routes alike."""
    spy = Spy()
    route = Route(NullSink(), "order.*")

    composite = CompositeSink(spy, SeedStyle(), "null:", {"type": "null"}, route)
    sinks = [route.sink for route in composite.routes()]

    assert sinks[0] is spy
    assert [sink.name for sink in sinks[1:]] == ["seedstyle", "null", "null", "null"]
    assert composite.routes()[-1] is route


def test_a_composite_in_a_composite_is_expanded():
    """Conditions of nested routes are joined, so the engine sees leaves only."""
    one, two = Spy("one"), Spy("two")
    inner = CompositeSink(Route(one, when=lambda event: event.get("vip")), two)

    lanes = Route(CompositeSink(Route(inner, "order.*"))).expand()

    assert [lane.sink for lane in lanes] == [one, two]
    assert [len(lane.conditions) for lane in lanes] == [2, 1]


def test_without_members_it_cannot_work():
    """An empty composite would lose every event: it is refused at once."""
    with pytest.raises(ConfigurationError, match="at least one member"):
        CompositeSink()


def test_a_member_that_is_no_sink_is_refused():
    """The error names what was found."""
    with pytest.raises(ConfigurationError, match="got int"):
        CompositeSink(5)


def test_a_sink_may_stand_there_once():
    """Two lanes would call one sink at the same time."""
    spy = Spy()

    with pytest.raises(ConfigurationError, match="stands twice"):
        CompositeSink(spy, Route(spy, "order.*"))


def test_limits_are_those_of_the_smallest_member():
    """A batch that fits the composite fits each member."""
    small, big = Spy(), Spy()
    small.max_events, big.max_bytes = 7, 99

    composite = CompositeSink(small, big)

    assert (composite.max_events, composite.max_bytes) == (7, 99)


def test_each_member_gets_what_matches(make_batch, make_record):
    """Routing goes by name, by pattern and by what the event says."""
    everything, orders, one, vip, nothing = (Spy(str(n)) for n in range(5))
    composite = CompositeSink(
        everything,
        Route(orders, "order.*"),
        Route(one, ["ai.failed", "admin.failed"]),
        Route(vip, when=lambda event: event.get("vip", False)),
        Route(nothing, "never.*"),
    )
    batch = make_batch("order.placed", "ai.failed", make_record("x", vip=True))

    assert deliver(composite, batch) == ACCEPTED
    assert everything.types == ["order.placed", "ai.failed", "x"]
    assert orders.types == ["order.placed"]
    assert one.types == ["ai.failed"]
    assert vip.types == ["x"]
    assert nothing.types == []
    assert orders.name_of_batch == batch.name


def test_answers_are_merged_into_positions_of_the_batch(make_batch):
    """Positions of a member's part become positions of the whole."""
    orders = Spy("a", SendResult((Rejection(0, "bad", "$.x"),), (1,), 3.0))
    users = Spy("b", SendResult((Rejection(0, "worse"),), (), 7.0))
    composite = CompositeSink(Route(orders, "order.*"), Route(users, "customer.*"))

    answer = deliver(composite, make_batch("customer.x", "order.a", "ai.x", "order.b"))

    assert answer == SendResult(
        (Rejection(0, "b: worse"), Rejection(1, "a: bad", "$.x")), (3,), 7.0
    )


def test_who_wants_it_again_outweighs_who_refuses(make_batch):
    """An event is not dead while a member may still take it."""
    refusing = Spy("a", SendResult((Rejection(0, "bad"), Rejection(1, "bad"))))
    waiting = Spy("b", SendResult(retry=(1,)))

    answer = deliver(CompositeSink(refusing, waiting), make_batch("x", "y"))

    assert answer == SendResult((Rejection(0, "a: bad"),), (1,))


def test_a_permanent_error_rejects_what_the_member_was_sent(make_batch):
    """The events of the other members are accepted."""
    composite = CompositeSink(
        Route(Spy("a", PermanentSinkError("gone")), "order.*"), Spy("b")
    )

    answer = deliver(composite, make_batch("ai.x", "order.placed"))

    assert answer == SendResult((Rejection(1, "a: gone"),))


def test_a_failed_member_has_its_events_sent_again(make_batch):
    """Any other error may pass: what the member was sent is wanted again."""
    failing = Spy("a", RetryableSinkError("busy", retry_after=2.0))
    composite = CompositeSink(
        Route(failing, "order.*"), Route(Spy("b", OSError("x")), "ai.*"), Spy("c")
    )

    answer = deliver(composite, make_batch("order.placed", "ai.x", "customer.x"))

    assert answer == SendResult(retry=(0, 1), retry_after=2.0)


def test_a_batch_that_failed_wholly_raises_with_the_reasons(make_batch):
    """The reason is not lost where no event got through."""
    composite = CompositeSink(
        Spy("a", RetryableSinkError("busy", retry_after=2.0)), Spy("b", OSError("x"))
    )

    with pytest.raises(
        RetryableSinkError, match="a: RetryableSinkError: busy; b: OSError: x"
    ) as caught:
        deliver(composite, make_batch("x"))

    assert caught.value.retry_after == 2.0


def test_an_event_at_which_a_route_raises_is_rejected(make_batch):
    """A user's predicate that fails costs its own member that event, no other."""
    routed, other = Spy("a"), Spy("b")
    composite = CompositeSink(Route(routed, when=lambda event: event["nope"]), other)

    answer = deliver(composite, make_batch("x"))

    assert answer.rejected == (Rejection(0, "a: its route failed with KeyError"),)
    assert (routed.types, other.types) == ([], ["x"])


def test_members_are_started_flushed_and_stopped():
    """The composite drives the life of its members."""
    one, two = Spy(), Spy()
    composite = CompositeSink(one, Route(two, "order.*"))

    async def live():
        await composite.start()
        await composite.flush()
        await composite.stop()

    asyncio.run(live())

    assert one.calls == two.calls == ["start", "flush", "stop"]


def test_a_failed_start_stops_the_members_that_run():
    """After a failed start nothing runs, and the error is the member's own."""
    one, two = Spy("one", failing={"stop"}), Spy("two", failing={"start"})

    with pytest.raises(RuntimeError, match="no start"):
        asyncio.run(CompositeSink(one, two).start())

    assert (one.calls, two.calls) == (["start", "stop"], ["start"])


def test_one_failed_stop_keeps_no_member_from_stopping():
    """All are stopped, then the error is raised as it is."""
    one, two = Spy("one", failing={"stop"}), Spy("two")

    with pytest.raises(RuntimeError, match="no stop"):
        asyncio.run(CompositeSink(one, two).stop())

    assert two.calls == ["stop"]


def test_several_failed_flushes_are_named_together():
    """The message says which members failed."""
    one, two = Spy("one", failing={"flush"}), Spy("two", failing={"flush"})

    with pytest.raises(RetryableSinkError, match=r"one: .*no flush; two: .*no flush"):
        asyncio.run(CompositeSink(one, two).flush())
