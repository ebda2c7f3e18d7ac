"""Which fault hits which delivery, and how often."""

from __future__ import annotations

import pytest

pytest.importorskip("proton", reason="the loopback server's extra is not installed")

from bizlog.dev.eventhubs.faults import (  # after the skip
    Fault,
    FaultPlan,
    full_condition,
)


def drawn(plan, times, hub="events", partition="0"):
    faults = [plan.draw(hub, partition)[0] for _ in range(times)]
    return [fault and str(fault.action) for fault in faults]


def test_faults_come_in_their_order_and_are_used_up():
    """The first that applies decides, so often as it says."""
    plan = FaultPlan()
    plan.plant(Fault.release(times=2))
    plan.plant(Fault.stall())
    assert drawn(plan, 4) == ["release", "release", "stall", None]


def test_limits_to_a_partition_and_a_hub():
    """A fault for elsewhere is passed over and not used up."""
    plan = FaultPlan()
    plan.plant(Fault.drop(partition="1"))
    plan.plant(Fault.modify(hub="other"))
    assert drawn(plan, 1) == [None]
    assert drawn(plan, 1, hub="other") == ["modify"]
    assert drawn(plan, 1, partition="1") == ["drop"]


def test_delays_go_with_other_faults():
    """A delay lasts until it is cleared, and a delayed delivery can be refused as well."""
    plan = FaultPlan()
    plan.plant(Fault.delay(0.5))
    plan.plant(Fault.reject("server-busy"))
    fault, seconds = plan.draw("events", "0")
    assert (fault.condition, seconds) == ("com.microsoft:server-busy", 0.5)
    assert plan.draw("events", "0") == (None, 0.5)
    plan.clear()
    assert plan.draw("events", "0") == (None, 0.0)


@pytest.mark.parametrize(
    ("short", "full"),
    [
        ("server-busy", "com.microsoft:server-busy"),
        ("message-size-exceeded", "amqp:link:message-size-exceeded"),
        ("amqp:not-found", "amqp:not-found"),
    ],
)
def test_short_conditions_are_completed(short, full):
    """AMQP's own names get AMQP's prefix, others Microsoft's, full ones none."""
    assert full_condition(short) == full
