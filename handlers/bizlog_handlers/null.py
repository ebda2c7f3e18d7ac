"""The sink that switches delivery off: takes every event and keeps none. No I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bizlog.sinks import ACCEPTED, BaseSink

if TYPE_CHECKING:
    from bizlog.sinks import Batch, SendResult


class NullSink(BaseSink):
    """Accept every event and discard it; the URL is `null:`."""

    max_events = 5_000

    async def deliver(self, batch: Batch) -> SendResult:  # noqa: ARG002  # the signature of a sink
        """
        Discard one batch.

        Args:
            batch: The events nobody wants.

        Returns:
            That all events were accepted.
        """
        return ACCEPTED
