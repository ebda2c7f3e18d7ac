"""NullSink takes everything and keeps nothing."""

from __future__ import annotations

import asyncio

from bizlog.sinks import ACCEPTED, make_sink
from bizlog_handlers.null import NullSink


def test_every_event_is_accepted(make_batch):
    """A batch is accepted as a whole."""
    sink = NullSink()

    assert asyncio.run(sink.deliver(make_batch("order.placed", "x"))) is ACCEPTED


def test_has_a_url():
    """`null:` names it, so delivery can be switched off by configuration."""
    sink = make_sink("null:")

    assert (type(sink), sink.name, sink.max_events) == (NullSink, "null", 5_000)
