"""
The pytest plugin: the fixtures `business_events` and `bizlog_eventhubs`.

    def test_an_order_is_told(business_events):
        place_order("42")
        business_events.assert_emitted("order.placed", order_id="42", times=1)

It is `bizlog.testing.capture_events` for the length of a test, and an invalid event
fails that test.

    def test_an_order_reaches_the_hub(bizlog_eventhubs):
        send_with_the_azure_sdk(bizlog_eventhubs.connection_string, "events")
        assert len(bizlog_eventhubs.events("events")) == 1

It is a loopback Event Hubs with the hub `events` of 4 partitions, new for each test.

pytest finds the plugin by its entry point, so nothing is to be configured; whatever a
fixture needs is imported with its first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator

    import pluggy

    from bizlog.dev.eventhubs import LoopbackEventHubs
    from bizlog.testing import CapturedEvents

# The events of a test whose invalid ones nobody has told of yet.
_UNTOLD = pytest.StashKey["CapturedEvents"]()


@pytest.fixture
def business_events(request: pytest.FixtureRequest) -> Generator[CapturedEvents]:
    """
    Capture the business events of a test, as `bizlog.testing.capture_events` does.

    An invalid event fails the test; `business_events.invalid` holds those so far, and
    what a test takes out of it is forgiven.
    """
    from bizlog.testing import capture_events  # noqa: PLC0415  # only where it is used

    stash = request.node.stash
    with capture_events(allow_invalid=True) as events:
        stash[_UNTOLD] = events
        yield events
    if _UNTOLD in stash:
        del stash[_UNTOLD]  # an item lives as long as the session
        if events.invalid:
            pytest.fail(events.describe_invalid(), pytrace=False)


@pytest.fixture
def bizlog_eventhubs() -> Generator[LoopbackEventHubs]:
    """
    Serve a loopback Event Hubs with the hub `events` of 4 partitions, for one test.

    It needs `pip install 'bizlog[loopback]'`; for other hubs or with TLS start a
    `bizlog.dev.eventhubs.LoopbackEventHubs` of your own.
    """
    from bizlog.dev.eventhubs import LoopbackEventHubs  # noqa: PLC0415  # an extra

    with LoopbackEventHubs({"events": 4}) as hubs:
        yield hubs


# The old form of a wrapper: the new one keeps pytest 7 from starting at all.
@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, pluggy.Result[None]]:
    """Fail the test itself and not its teardown; a failure of its own gets a note."""
    outcome = yield
    events = item.stash.get(_UNTOLD, None)
    if events is None or not events.invalid:
        return
    del item.stash[_UNTOLD]
    if outcome.excinfo is not None:
        outcome.excinfo[1].add_note(events.describe_invalid())
    else:
        failure = pytest.fail.Exception(events.describe_invalid(), pytrace=False)
        outcome.force_exception(failure)
