"""Snowplow: a tracker whose emitter posts in a thread of its own."""

from __future__ import annotations

from functools import partial

from contenders.snowplow_sync import Snowplow
from snowplow_tracker import AsyncEmitter

make = partial(Snowplow, emitter=AsyncEmitter)
