"""Links to partitions: bounded in time, given up when broken, and what faults mean."""

from __future__ import annotations

import asyncio
import contextlib
from importlib import import_module

import pytest

from bizlog.exceptions import (
    BatchTooLargeError,
    PermanentSinkError,
    RetryableSinkError,
)

sdk = pytest.importorskip(
    "azure.eventhub.exceptions", reason="azure-eventhub is not installed"
)
links = import_module("bizlog_handlers._links")


class Details(Exception):
    """What the SDK keeps of an AMQP error."""

    def __init__(self, condition, description="from the service"):
        self.condition = condition.encode()
        self.description = description.encode()


def refused(condition):
    return sdk.EventDataSendError("the send failed", Details(condition))


class Client:
    """A client of the SDK that answers as it is told."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.timeouts = []
        self.closed = False

    async def send_batch(self, batch, **options):
        self.timeouts.append(options["timeout"])
        answer = self.answers.pop(0) if self.answers else None
        if answer == "hang":
            await asyncio.Event().wait()
        if answer is not None:
            raise answer

    async def get_partition_ids(self):
        raise sdk.ConnectError("nobody there")

    async def create_batch(self):
        await asyncio.Event().wait()

    async def close(self):
        self.closed = True


class Connect:
    """Hands out clients, one after the other."""

    def __init__(self, *clients):
        self.clients = list(clients)
        self.made = []

    async def __call__(self):
        self.made.append(self.clients.pop(0))
        return self.made[-1]


async def send(link, seconds=5.0):
    """Send a batch; returns what was raised."""
    try:
        await link.send("a batch", seconds)
    except Exception as error:
        return error
    return None


def test_a_link_connects_with_its_first_batch_and_keeps_its_client():
    """Each call has a time-out of the SDK's, behind our own."""

    async def scene():
        connect = Connect(Client())
        link = links.Links(connect).of("0")
        assert connect.made == []

        assert [await send(link), await send(link)] == [None, None]

        assert connect.made[0].timeouts == [6.0, 6.0]

    asyncio.run(scene())


def test_each_partition_has_a_link_of_its_own():
    """And the same one each time."""
    all_links = links.Links(Connect())

    assert all_links.of("0") is all_links.of("0")
    assert all_links.of("0") is not all_links.of("1")


def test_a_send_that_hangs_is_cut_and_its_client_given_up():
    """After `released` the SDK never answers, and its client is not to be trusted."""

    async def scene():
        connect = Connect(Client("hang"), Client())
        all_links = links.Links(connect)
        link = all_links.of("0")

        error = await send(link, 0.01)
        assert isinstance(error, RetryableSinkError)
        assert str(error) == "no answer from the hub within 0.0 s"
        assert await send(link) is None
        await all_links.close()

        assert [client.closed for client in connect.made] == [True, True]

    asyncio.run(scene())


def test_a_client_that_fails_again_and_again_is_given_up():
    """The third failure in a row is the last; a success in between starts anew."""

    async def scene():
        busy = refused("com.microsoft:server-busy")
        connect = Connect(Client(busy, busy, None, busy, busy, busy), Client())
        link = links.Links(connect).of("0")

        for _ in range(5):
            await send(link)
        assert len(connect.made) == 1
        await send(link)
        assert await send(link) is None
        assert len(connect.made) == 2

    asyncio.run(scene())


def test_a_client_that_is_not_authorised_is_given_up_at_once():
    """The next one reads its secret anew."""

    async def scene():
        connect = Connect(Client(sdk.AuthenticationError("401")), Client())
        link = links.Links(connect).of("0")

        error = await send(link)

        assert str(error).startswith("not authorised: is the key right")
        assert isinstance(error, RetryableSinkError)
        assert await send(link) is None

    asyncio.run(scene())


def test_a_send_that_is_cancelled_gives_its_client_up():
    """What became of the batch is unknown, and what the client does next as well."""

    async def scene():
        connect = Connect(Client("hang"))
        all_links = links.Links(connect)
        task = asyncio.create_task(all_links.of("0").send("a batch", 5))
        await asyncio.sleep(0)

        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await all_links.close()

        assert connect.made[0].closed

    asyncio.run(scene())


def test_what_cannot_connect_is_tried_again():
    """A secret that cannot be read is no fault of the events."""

    async def scene():
        async def connect():
            raise RetryableSinkError("the file is empty")

        assert str(await send(links.Links(connect).of("0"))) == "the file is empty"

    asyncio.run(scene())


def test_a_client_that_does_not_close_is_left_to_itself(monkeypatch):
    """Closing is bounded in time, and its faults are nobody's."""
    monkeypatch.setattr(links, "CLOSE_SECONDS", 0.01)

    class Stuck(Client):
        async def close(self):
            await asyncio.Event().wait()

    class Broken(Client):
        async def close(self):
            raise KeyError

    async def scene():
        all_links = links.Links(Connect(Stuck(), Broken()))
        for partition in ("0", "1"):
            assert await send(all_links.of(partition)) is None

        await all_links.close()
        await all_links.close()  # nothing is left to close

    asyncio.run(scene())


def test_a_hub_that_cannot_be_asked_is_asked_again_later():
    """The reason says what was tried; the client is closed."""

    async def scene():
        connect = Connect(Client())
        all_links = links.Links(connect)

        with pytest.raises(
            RetryableSinkError, match=r"partitions: ConnectError: nobody"
        ):
            await all_links.ask(5)
        await all_links.close()

        assert connect.made[0].closed
        assert len(asyncio.all_tasks()) == 1  # the other question is given up

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (refused("amqp:link:message-size-exceeded"), BatchTooLargeError, "size"),
        (refused("com.microsoft:argument-error"), PermanentSinkError, "argument-error"),
        (refused("amqp:decode-error"), PermanentSinkError, "decode-error"),
        (
            refused("amqp:internal-error"),
            RetryableSinkError,
            "internal-error: from the",
        ),
        (refused("amqp:not-found"), RetryableSinkError, "there is no such event hub"),
        (
            sdk.AuthenticationError("CBS failed. Status code: 404 Description: gone"),
            RetryableSinkError,
            "there is no such event hub",
        ),
        (refused("amqp:resource-limit-exceeded"), RetryableSinkError, "a quota"),
        (refused("amqp:unauthorized-access"), RetryableSinkError, "not authorised"),
        (sdk.ConnectError("no route"), RetryableSinkError, "ConnectError: no route"),
        (KeyError("rejected"), RetryableSinkError, "KeyError: 'rejected'"),
        (OSError(111, "refused"), RetryableSinkError, "refused"),
    ],
)
def test_what_the_sdk_raises_says_what_comes_next(error, kind, said):
    """The events are at fault, their number is, or it is nothing they can help."""
    failure = links.failure_of(error, 5)

    assert type(failure) is kind
    assert said in str(failure)
    assert getattr(failure, "retry_after", None) is None


def test_a_busy_hub_is_given_the_pause_it_asks_for():
    """Four seconds, as the service's own text has it."""
    failure = links.failure_of(refused("com.microsoft:server-busy"), 5)

    assert failure.retry_after == 4.0
    assert "throttled" in str(failure)


def test_reasons_are_short():
    """What the service tells at length is cut: reasons stand in each dead letter."""
    failure = links.failure_of(sdk.EventHubError("word " * 1_000), 5)

    assert len(str(failure)) < 300
