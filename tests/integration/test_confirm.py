"""`client.confirm`: send an event, unless it was sent, and learn what became of it."""

from __future__ import annotations

import asyncio
import threading

import pytest

import bizlog
from bizlog import BusinessTelemetryClient, Route
from bizlog.delivery.receipts import Outcome
from bizlog.events import OrderEvent
from bizlog.exceptions import PermanentSinkError
from bizlog.testing import FaultySink, MemorySink
from bizlog_handlers.composite import CompositeSink

DELIVERED = Outcome("delivered")
PENDING = Outcome("pending")


@pytest.fixture
def make_client(tmp_path):
    """Make clients; all are shut down."""
    made = []

    def make(*sinks, **options):
        given = {
            "source": "test",
            "dead_letters": str(tmp_path / "dead"),
            "flush_interval": 0.01,
            "shutdown_timeout": 0.2,
        }
        client = BusinessTelemetryClient(sinks=list(sinks), **given | options)
        made.append(client)
        return client

    yield make
    for client in made:
        client.shutdown_sync()


def placed(**options):
    """Make a typed event."""
    return OrderEvent(event_type="order.placed", order_id="42", **options)


def confirm(client, event, timeout=20.0, **options):
    """Confirm on an event loop of its own."""
    return asyncio.run(client.confirm(event, timeout=timeout, **options))


def test_an_event_is_sent_and_waited_for(make_client):
    """The receipt names the event, and says that the sink has it."""
    sink = MemorySink()
    receipt = confirm(make_client(sink), placed())

    assert receipt.confirmed
    assert receipt.sinks == {"memory": DELIVERED}
    assert not receipt.journaled
    assert [record.event_id for record in sink.records] == [receipt.event_id]


def test_who_waits_need_not_wait_for_company(make_client):
    """`flush_interval` is for events that nobody waits for."""
    sink = MemorySink()
    client, event = make_client(sink, flush_interval=600.0), placed()
    client.send_sync(event)

    assert confirm(client, event).confirmed
    assert confirm(client, placed()).confirmed


def test_a_name_with_properties_is_sent(make_client):
    """As `send` takes it."""
    sink = MemorySink()
    receipt = confirm(make_client(sink), "order.placed", order_id="42")

    assert receipt.confirmed
    assert sink.events[0]["order_id"] == "42"


def test_an_event_sent_before_is_not_sent_again(make_client):
    """By `send`, `send_sync` or `confirm`: it is the same event, once."""
    sink = MemorySink()
    client, event = make_client(sink), placed()

    async def main():
        event_id = await client.send(event)
        receipts = [await client.confirm(event, timeout=20.0) for _ in range(3)]
        assert {receipt.event_id for receipt in receipts} == {event_id}
        return receipts

    assert all(receipt.confirmed for receipt in asyncio.run(main()))
    assert confirm(client, event).confirmed
    assert len(sink.records) == 1


def test_an_equal_event_is_another_one(make_client):
    """Two orders of the same kind are two events."""
    sink = MemorySink()
    client = make_client(sink)
    first, second = confirm(client, placed()), confirm(client, placed())

    assert first.event_id != second.event_id
    assert len(sink.records) == 2


def test_an_event_is_not_kept_alive(make_client):
    """Nobody waits for it any more: nothing of it is left."""
    client = make_client(MemorySink())
    for _ in range(20):
        client.send_sync(placed())
    assert client.flush_sync(20)

    assert client._receipts.expected == {}
    assert client._sent._waits == {}


def test_each_sink_says_what_became_of_it(make_client):
    """Delivered, refused with a reason, left out by a route, given no answer."""
    client = make_client(
        CompositeSink(
            MemorySink(),
            FaultySink(reject=(0,)),
            Route(named(MemorySink(), "products"), "product.*"),
        )
    )
    receipt = confirm(client, placed())

    assert not receipt.confirmed
    assert receipt.sinks == {
        "memory": DELIVERED,
        "faulty": Outcome("dead_lettered", "the test rejects it"),
        "products": Outcome("not_routed"),
    }


def named(sink, name):
    """Give a sink a name."""
    sink.name = name
    return sink


def test_what_a_route_leaves_out_is_not_waited_for(make_client):
    """All sinks that the event is meant for have it."""
    client = make_client(
        CompositeSink(MemorySink(), Route(named(MemorySink(), "other"), "product.*"))
    )

    assert confirm(client, placed()).confirmed


def test_a_quorum_does_not_wait_for_the_rest(make_client):
    """One of two is enough where one is asked for; the other stays open."""
    client = make_client(MemorySink(), FaultySink(fail_calls=None))
    receipt = confirm(client, placed(), quorum=1)

    assert receipt.confirmed
    assert receipt.sinks == {"memory": DELIVERED, "faulty": PENDING}


def test_a_quorum_out_of_reach_is_known_at_once(make_client):
    """When too few sinks can still have it nobody waits for the time-out."""
    error = PermanentSinkError("no such table")
    client = make_client(MemorySink(), FaultySink(fail_calls=None, error=error))
    receipt = confirm(client, placed(), quorum=2, timeout=60.0)

    assert not receipt.confirmed
    assert receipt.sinks["faulty"] == Outcome(
        "dead_lettered", "PermanentSinkError: no such table"
    )


@pytest.mark.parametrize("quorum", [0, -1, 3])
def test_a_quorum_that_cannot_be_is_refused(make_client, quorum):
    """More sinks than there are, or none: and nothing is sent."""
    sink = MemorySink()
    client = make_client(sink, MemorySink())
    with pytest.raises(bizlog.ConfigurationError, match="quorum: expected 1 to 2"):
        confirm(client, placed(), quorum=quorum)
    client.flush_sync(20)

    assert sink.records == []


def test_a_journal_that_is_not_there_is_refused(make_client):
    """`level="journal"` needs one, and says how to get it."""
    with pytest.raises(bizlog.ConfigurationError, match="set journal='FOLDER'"):
        confirm(make_client(MemorySink()), placed(), level="journal")


def test_a_sink_that_takes_too_long_leaves_it_pending(make_client):
    """The time-out ends the wait, not the delivery; it may be asked for again."""
    sink = FaultySink(fail_calls=None)
    client, event = make_client(sink), placed()
    receipt = confirm(client, event, timeout=0.05)
    assert not receipt.confirmed
    assert receipt.sinks == {"faulty": PENDING}

    sink._failures_left = 0
    again = confirm(client, event, timeout=40.0)

    assert again.confirmed
    assert again.event_id == receipt.event_id
    assert len(sink.records) == 1


def test_a_wait_that_is_cancelled_disturbs_no_other(make_client):
    """A handler of a request that went away; the other one is still told."""
    sink = FaultySink(delay=0.2)
    client, event = make_client(sink), placed()

    async def main():
        given_up = asyncio.create_task(client.confirm(event, timeout=20.0))
        other = asyncio.create_task(client.confirm(event, timeout=20.0))
        await asyncio.sleep(0)
        given_up.cancel()
        return await other

    assert asyncio.run(main()).confirmed
    assert len(sink.records) == 1


def test_an_event_that_finds_no_room_is_dropped(make_client):
    """The queue did not take it: known at once, for every sink."""
    client = make_client(MemorySink(), FaultySink())
    client.shutdown_sync()
    receipt = confirm(client, placed(), timeout=60.0)

    assert not receipt.confirmed
    dropped = Outcome("dropped", "bizlog is shut down")
    assert receipt.sinks == {"memory": dropped, "faulty": dropped}
    assert client._receipts.expected == {}


def test_the_end_of_the_process_is_an_answer(make_client):
    """Who waits when the client shuts down learns that it is in the dead letters."""
    client, event = make_client(FaultySink(fail_calls=None)), placed()

    async def main():
        waiting = asyncio.create_task(client.confirm(event, timeout=60.0))
        await asyncio.sleep(0.05)
        await client.shutdown(0.1)
        return await waiting

    receipt = asyncio.run(main())
    assert receipt.sinks["faulty"].state == "dead_lettered"
    assert "shutdown" in receipt.sinks["faulty"].reason


def test_an_invalid_event_is_refused_with_a_reason(make_client):
    """It got no id, and no sink will ever see it."""
    receipt = confirm(make_client(MemorySink()), "order.placed", order_total=True)

    assert receipt.event_id is None
    assert not receipt.confirmed
    assert receipt.sinks == {}
    assert receipt.reason == "it was refused"


def test_an_invalid_event_raises_in_development(make_client):
    """As every emit does there."""
    client = make_client(MemorySink(), development=True)
    with pytest.raises(bizlog.InvalidEventError):
        confirm(client, "order.placed", order_total=True)


def test_many_loops_may_wait_at_the_same_time(make_client):
    """Each thread with a loop of its own, each event once."""
    sink = MemorySink()
    client, event = make_client(sink), placed()
    client.send_sync(event)
    receipts = []

    def work():
        async def main():
            return await asyncio.gather(
                client.confirm(event, timeout=20.0),
                *(client.confirm(placed(), timeout=20.0) for _ in range(10)),
            )

        receipts.extend(asyncio.run(main()))

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(40.0)

    assert len(receipts) == 6 * 11
    assert all(receipt.confirmed for receipt in receipts)
    assert len({receipt.event_id for receipt in receipts}) == 61
    assert len(sink.records) == 61
    assert client._receipts.expected == {}
