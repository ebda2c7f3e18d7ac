"""The loopback Event Hubs as the unmodified clients of azure-eventhub see it."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import gc
import time
from importlib import import_module

import pytest

proton = pytest.importorskip(
    "proton", reason="the loopback server's extra is not installed"
)
eventhub = pytest.importorskip("azure.eventhub", reason="azure-eventhub is missing")
aio = pytest.importorskip("azure.eventhub.aio", reason="azure-eventhub is missing")
blocking = import_module("proton.utils")
exceptions = import_module("azure.eventhub.exceptions")

from bizlog.dev.eventhubs import Fault, LoopbackEventHubs  # noqa: E402  # after the skip

# The SDK leaves sockets behind when a connection breaks; `tidy` has them found here.
pytestmark = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)

PATIENCE = 30


@pytest.fixture(autouse=True)
def tidy():
    """Collect what the SDK left behind before another test is blamed for it."""
    yield
    gc.collect()


def once(**more):
    """One try for each send: what is seen is the server and not the SDK's patience."""
    return {"retry_total": 0, "retry_backoff_factor": 0.01, **more}


def producer_of(hubs, **more):
    return aio.EventHubProducerClient.from_connection_string(
        hubs.connection_string, eventhub_name="events", **once(**more)
    )


def consumer_of(hubs, **more):
    return aio.EventHubConsumerClient.from_connection_string(
        hubs.connection_string, "$Default", eventhub_name="events", **more
    )


async def send(producer, *bodies, **where):
    batch = await producer.create_batch(**where)
    for body in bodies:
        batch.add(eventhub.EventData(body))
    await asyncio.wait_for(producer.send_batch(batch, timeout=5), PATIENCE)


def send_one(hubs, body="1", **where):
    """Send one event with a client of its own; return the error, if there is one."""

    async def run():
        async with producer_of(hubs) as producer:
            await send(producer, body, **where)

    try:
        asyncio.run(run())
    except eventhub.exceptions.EventHubError as error:
        return error
    return None


async def receive(consumer, count, **how):
    """Receive so many events, in the order they came."""
    got, enough = [], asyncio.Event()

    async def take(_, events):
        got.extend(events)
        if len(got) >= count:
            enough.set()

    how = {"starting_position": "-1", "prefetch": 3000, "max_batch_size": 3000, **how}
    task = asyncio.create_task(consumer.receive_batch(take, **how))
    try:
        await asyncio.wait_for(enough.wait(), PATIENCE)
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    return got


def bodies(hubs):
    return [event.body.decode() for event in hubs.events("events")]


@pytest.fixture
def hubs():
    with LoopbackEventHubs({"events": 4}) as running:
        yield running


@pytest.fixture
def one():
    with LoopbackEventHubs({"events": 1}) as running:
        yield running


def test_an_event_is_stored_as_it_was_sent(hubs):
    """Body, key, message id and properties are kept; partition, number and time are added."""

    async def run():
        async with producer_of(hubs) as producer:
            batch = await producer.create_batch(partition_key="s-1")
            event = eventhub.EventData(b'{"order_id":"42"}')
            event.message_id = "id-1"
            event.properties = {"event_type": "order.placed", "n": 1}
            batch.add(event)
            await producer.send_batch(batch, timeout=5)

    asyncio.run(run())
    [stored] = hubs.events("events")
    assert stored.body == b'{"order_id":"42"}'
    assert (stored.partition_key, stored.message_id) == ("s-1", "id-1")
    assert stored.application_properties == {"event_type": "order.placed", "n": 1}
    assert (stored.sequence_number, stored.offset) == (0, "0")
    assert abs(dt.datetime.now(tz=dt.UTC) - stored.enqueued_time).total_seconds() < 60
    assert hubs.count("EVENTS") == 1


def test_the_sync_client_works_too(hubs):
    """Sends by `send_event` and `send_batch` of the sync producer arrive."""
    producer = eventhub.EventHubProducerClient.from_connection_string(
        hubs.connection_string, eventhub_name="events", **once()
    )
    with producer:
        producer.send_event(eventhub.EventData("1"), partition_id="2", timeout=5)
        producer.send_batch([eventhub.EventData("2")], partition_id="2", timeout=5)
    assert bodies(hubs) == ["1", "2"]


def test_the_hub_describes_itself(hubs):
    """`$management` tells of the hub and its partitions, empty and not."""

    async def run():
        async with producer_of(hubs) as producer:
            whole = await producer.get_eventhub_properties()
            empty = await producer.get_partition_properties("1")
            await send(producer, "1", "2", partition_id="1")
            filled = await producer.get_partition_properties("1")
        return whole, empty, filled

    whole, empty, filled = asyncio.run(run())
    assert whole["eventhub_name"] == "events"
    assert whole["partition_ids"] == ["0", "1", "2", "3"]
    assert (empty["is_empty"], empty["last_enqueued_sequence_number"]) == (True, -1)
    assert (filled["is_empty"], filled["last_enqueued_sequence_number"]) == (False, 1)
    assert filled["last_enqueued_offset"] == "64"


def test_what_does_not_exist_is_not_found(hubs):
    """A hub that is not there is an error, and nothing is stored."""

    async def run():
        missing = aio.EventHubProducerClient.from_connection_string(
            hubs.connection_string, eventhub_name="nowhere", **once()
        )
        async with missing:
            await missing.get_eventhub_properties()

    with pytest.raises(exceptions.EventHubError, match="does not exist"):
        asyncio.run(run())


def test_ten_thousand_there_and_back(hubs):
    """10,000 plain and 10,000 keyed events come back: each once, keys together, in order."""

    async def fill():
        async with producer_of(hubs) as producer:
            for start in range(0, 10_000, 2500):
                plain = [f"p/{n}" for n in range(start, start + 2500)]
                await send(producer, *plain)
            for key in range(16):
                keyed = [f"k{key}/{n}" for n in range(625)]
                await send(producer, *keyed, partition_key=f"k{key}")
        async with consumer_of(hubs) as consumer:
            return await receive(consumer, 20_000)

    got = asyncio.run(fill())
    assert len({event.body_as_str() for event in got}) == len(got) == 20_000
    assert hubs.count("events") == 20_000
    for key in range(16):
        mine = [e for e in got if e.partition_key == f"k{key}".encode()]
        assert [e.body_as_str() for e in mine] == [f"k{key}/{n}" for n in range(625)]
        assert [e.sequence_number for e in mine] == list(
            range(mine[0].sequence_number, mine[0].sequence_number + 625)
        )


def test_consumers_begin_where_they_want(one):
    """Offset, sequence number, time and `@latest` select the first event."""

    async def begin(count, **how):
        async with consumer_of(one) as consumer:
            events = await receive(consumer, count, partition_id="0", **how)
        return [event.body_as_str() for event in events]

    async def run():
        async with producer_of(one) as producer, consumer_of(one) as consumer:
            await send(producer, "0", "1", "2")
            between = dt.datetime.now(tz=dt.UTC) + dt.timedelta(milliseconds=20)
            await asyncio.sleep(0.05)
            await send(producer, "3")
            inclusive = {"starting_position_inclusive": True}
            found = await asyncio.gather(
                begin(4, starting_position="-1"),
                begin(2, starting_position="64"),
                begin(2, starting_position=1),
                begin(3, starting_position=1, **inclusive),
                begin(1, starting_position=between),
            )
            latest = asyncio.create_task(
                receive(consumer, 1, partition_id="0", starting_position="@latest")
            )
            # The client does not tell when it listens.
            while not one._service.readers["events/$Default/0"]:  # noqa: ASYNC110  # as said
                await asyncio.sleep(0.01)
            await send(producer, "4")
            return found, await latest

    found, latest = asyncio.run(run())
    assert found == [
        ["0", "1", "2", "3"],
        ["2", "3"],
        ["2", "3"],
        ["1", "2", "3"],
        ["3"],
    ]
    assert [event.body_as_str() for event in latest] == ["4"]


def test_a_higher_epoch_takes_the_partition(one):
    """The owner with the lower level is told that its link was stolen; so is a latecomer."""

    async def run():
        told = asyncio.Queue()

        async def error(_, problem):
            told.put_nowait(problem)

        async def take(_, event):
            taken.put_nowait(event)

        taken = asyncio.Queue()
        how = {"partition_id": "0", "starting_position": "-1", "on_error": error}
        clients = [consumer_of(one, retry_total=0) for _ in range(3)]
        tasks = []
        async with producer_of(one) as producer:
            await send(producer, "1")
        for client, level in zip(clients, (1, 2, None), strict=True):
            tasks.append(
                asyncio.create_task(client.receive(take, owner_level=level, **how))
            )
            if level is not None:
                await asyncio.wait_for(taken.get(), PATIENCE)
        problems = [await asyncio.wait_for(told.get(), PATIENCE) for _ in range(2)]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for client in clients:
            await client.close()
        return problems

    for problem in asyncio.run(run()):
        assert isinstance(
            problem, exceptions.ConnectionLostError | exceptions.EventHubError
        )
        assert "stolen" in repr(problem) or "epoch" in str(problem)


def test_a_message_over_one_mebibyte_is_refused(hubs):
    """The client learns the size and the limit."""

    async def run():
        async with producer_of(hubs) as producer:
            event = eventhub.EventData(b"x" * 1_100_000)
            await producer.send_event(event, timeout=5)

    with pytest.raises(exceptions.EventHubError, match="at most 1048576") as caught:
        asyncio.run(run())
    assert "message-size-exceeded" in str(caught.value.error)
    assert hubs.events("events") == []


def test_tls_and_tokens_of_the_production_path():
    """With TLS the client needs no emulator flag: endpoint and certificate are enough."""
    with LoopbackEventHubs({"events": 1}, tls=True) as hubs:

        async def run():
            how = {
                "custom_endpoint_address": hubs.endpoint,
                "connection_verify": str(hubs.ca_file),
                "transport_type": eventhub.TransportType.Amqp,
            }
            async with producer_of(hubs, **how) as producer:
                await send(producer, "1")
            async with consumer_of(hubs, **how) as consumer:
                return await receive(consumer, 1)

        [event] = asyncio.run(run())
        folder = hubs.ca_file.parent
        assert event.body_as_str() == "1"
    assert not folder.exists()
    with pytest.raises(RuntimeError, match="tls=True"):
        _ = hubs.ca_file


def test_a_refused_token_is_an_authentication_error():
    """`check_token` sees audience and token, and its no is a 401."""
    seen = []

    def refuse(audience, token):
        seen.append((audience, token))
        return False

    with LoopbackEventHubs({"events": 1}, check_token=refuse) as hubs:
        error = send_one(hubs)
    assert isinstance(error, exceptions.AuthenticationError)
    assert seen[0][0].endswith("/events")
    assert seen[0][1].startswith("SharedAccessSignature ")


def test_expired_tokens_end_the_links():
    """A producer whose token has expired is detached; its next send connects anew."""
    with LoopbackEventHubs({"events": 1}, token_lifetime=0.3) as hubs:

        async def run():
            async with producer_of(hubs, retry_total=3) as producer:
                await send(producer, "1")
                await gone(hubs)
                await send(producer, "2")

        asyncio.run(run())
        assert bodies(hubs) == ["1", "2"]


async def gone(hubs):
    """Wait until no producer's link is left."""
    deadline = time.monotonic() + PATIENCE
    while any(role.hub for c in hubs._service.connections for role in c.roles()):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


def test_idle_producers_are_detached():
    """After the idle time the link is detached; the next send connects anew."""
    with LoopbackEventHubs({"events": 1}, idle_detach=0.2) as hubs:

        async def run():
            async with producer_of(hubs, retry_total=3) as producer:
                await send(producer, "1")
                await gone(hubs)
                await send(producer, "2")

        asyncio.run(run())
        assert bodies(hubs) == ["1", "2"]


def test_silent_connections_are_closed():
    """A client that says nothing for the idle time-out is closed; nothing is lost."""
    with LoopbackEventHubs({"events": 1}, idle_timeout=0.4) as hubs:

        async def run():
            async with producer_of(hubs, retry_total=3) as producer:
                await send(producer, "1")
                await gone(hubs)
                await send(producer, "2")

        asyncio.run(run())
        assert bodies(hubs) == ["1", "2"]


def test_a_server_that_starts_again_keeps_port_and_events(hubs):
    """A stop closes the clients' connections; the next start serves them again."""
    assert send_one(hubs, "1") is None
    port = hubs.port
    hubs.stop()
    hubs.start()
    assert hubs.port == port
    assert send_one(hubs, "2") is None
    assert sorted(bodies(hubs)) == ["1", "2"]


def test_a_port_that_is_taken_is_an_error(hubs):
    """`start` raises, and the second server can be stopped all the same."""
    second = LoopbackEventHubs({"events": 1}, port=hubs.port)
    with pytest.raises(OSError, match="in use"):
        second.start()
    second.stop()


@pytest.mark.parametrize("condition", ["server-busy", "amqp:resource-limit-exceeded"])
def test_reject_once_is_sent_again_by_the_sdk(hubs, condition):
    """One rejection: the SDK sends again at once, and the event is stored once."""
    hubs.inject(Fault.reject(condition))
    assert send_one(hubs) is None
    assert bodies(hubs) == ["1"]


def test_reject_for_good_is_an_error(hubs):
    """Persisting, the condition reaches the caller; `clear_faults` ends it."""
    hubs.inject(Fault.reject("server-busy", times=None))
    error = send_one(hubs)
    assert "server-busy" in str(error.error)
    assert bodies(hubs) == []
    hubs.clear_faults()
    assert send_one(hubs) is None


def test_faults_of_one_partition_leave_the_others_alone(hubs):
    """A fault with `partition` hits deliveries to that partition only."""
    hubs.inject(Fault.reject("server-busy", times=None, partition="1"))
    assert send_one(hubs, "0", partition_id="0") is None
    assert send_one(hubs, "1", partition_id="1") is not None
    assert bodies(hubs) == ["0"]


def test_what_the_sdk_does_not_expect_hangs():
    """`released`, `modified` and a bare rejection leave the SDK waiting; then it is fine again."""

    async def run(hubs):
        async with producer_of(hubs) as producer:
            batch = await producer.create_batch()
            batch.add(eventhub.EventData("1"))
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(producer.send_batch(batch, timeout=0.2), 1.2)
            await asyncio.wait_for(producer.send_batch(batch, timeout=5), PATIENCE)

    faults = [
        Fault.release(),
        Fault.modify(),
        Fault.reject("server-busy", info=None),
    ]
    with beside_each_other(faults, run) as servers:
        assert [bodies(hubs) for hubs in servers] == [["1"]] * 3


@contextlib.contextmanager
def beside_each_other(faults, run):
    """Run the same against one server for each fault, all at once: the SDK waits a lot."""
    with contextlib.ExitStack() as stack:
        servers = [
            stack.enter_context(LoopbackEventHubs({"events": 1})) for _ in faults
        ]
        for hubs, fault in zip(servers, faults, strict=True):
            hubs.inject(fault)

        async def everywhere():
            await asyncio.gather(*map(run, servers))

        asyncio.run(everywhere())
        yield servers


def test_stall_times_out(hubs):
    """Without an answer `timeout=` ends the send; nothing was stored."""
    hubs.inject(Fault.stall(times=None))

    async def run():
        async with producer_of(hubs) as producer:
            batch = await producer.create_batch()
            batch.add(eventhub.EventData("1"))
            await asyncio.wait_for(producer.send_batch(batch, timeout=0.3), PATIENCE)

    with pytest.raises(exceptions.OperationTimeoutError):
        asyncio.run(run())
    assert bodies(hubs) == []


def test_a_lost_link_is_made_anew():
    """The SDK connects again and sends again: twice stored if the answer was lost."""

    async def run(hubs):
        async with producer_of(hubs, retry_total=3) as producer:
            await send(producer, "1")

    faults = [
        Fault.detach(),
        Fault.detach("server-busy"),
        Fault.close(),
        Fault.drop(),
        Fault.drop_after_store(),
    ]
    with beside_each_other(faults, run) as servers:
        copies = [len(bodies(hubs)) for hubs in servers]
    assert copies == [1, 1, 1, 1, 2]


@pytest.mark.parametrize(
    ("address", "condition"),
    [
        ("events", "amqp:unauthorized-access"),
        ("nowhere", "amqp:not-found"),
        ("events/what/0", "amqp:not-found"),
    ],
)
def test_links_that_lead_nowhere_are_detached(one, address, condition):
    """Without a token, or to what is not there, a link ends at once with the reason."""
    client = blocking.BlockingConnection(
        f"127.0.0.1:{one.port}", timeout=PATIENCE, allowed_mechs="ANONYMOUS"
    )
    try:
        with pytest.raises(blocking.LinkDetached) as caught:
            client.create_sender(address).send(proton.Message(body="1"))
        assert caught.value.condition == condition
    finally:
        client.close()


def test_connections_can_break_while_idle(one):
    """`drop_connections` breaks TCP; the next send connects anew."""

    async def run():
        async with producer_of(one, retry_total=3) as producer:
            await send(producer, "1")
            one.drop_connections()
            await gone(one)
            await send(producer, "2")

    asyncio.run(run())
    assert bodies(one) == ["1", "2"]


def test_delays_do_not_add_up_over_links(hubs):
    """Four links with a delayed answer wait together, not one after the other."""
    hubs.inject(Fault.delay(0.4))

    async def run():
        async with producer_of(hubs) as producer:
            # Connecting takes its time, too.
            await asyncio.gather(
                *(send(producer, "0", partition_id=partition) for partition in "0123")
            )
            begun = time.monotonic()
            await asyncio.gather(
                *(send(producer, "1", partition_id=partition) for partition in "0123")
            )
            return time.monotonic() - begun

    seconds = asyncio.run(run())
    assert 0.4 <= seconds < 4 * 0.4
    assert hubs.count("events") == 8


def test_the_oldest_events_go():
    """What is held stays within the bound, counts and sequence numbers go on."""
    with LoopbackEventHubs({"events": 1}, retain_bytes=50_000) as hubs:

        async def run():
            async with producer_of(hubs) as producer:
                for number in range(20):
                    await send(
                        producer, *(f"{number}/{n}".ljust(300) for n in range(50))
                    )
            async with consumer_of(hubs) as consumer:
                return await receive(consumer, 50, partition_id="0")

        got = asyncio.run(run())
        held = hubs.events("events")
        assert hubs.count("events") == 1000
        assert 100 <= len(held) <= 150
        assert held[-1].sequence_number == 999
        assert got[0].sequence_number == held[0].sequence_number
