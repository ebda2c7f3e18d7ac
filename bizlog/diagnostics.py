"""
What bizlog says about itself: rate-limited lines on the logger `bizlog`.

The logger does not propagate, so that our lines never reach a host's handlers (one of
which may lead back into bizlog); add a handler to `logging.getLogger("bizlog")` to
collect them. Without one, warnings go to stderr. Called on bizlog's thread and from
`configure`, never on the emit path: logging takes locks.
"""

from __future__ import annotations

import logging
import time

INTERVAL_SECONDS = 60.0

logger = logging.getLogger("bizlog")
logger.propagate = False

_last: dict[str, float] = {}


def report(topic: str, message: str) -> None:
    """
    Log a warning, at most once a minute for each topic.

    Args:
        topic: What the rate limit counts by (a sink's name, a kind of loss).
        message: What happened and what to do; no values of events.
    """
    now = time.monotonic()
    if now - _last.get(topic, -INTERVAL_SECONDS) < INTERVAL_SECONDS:
        return
    _last[topic] = now
    logger.warning("bizlog: %s", message)
