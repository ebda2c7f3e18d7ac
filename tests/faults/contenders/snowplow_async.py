"""Snowplow: a tracker whose emitter posts in a thread of its own."""

from __future__ import annotations

from functools import partial

from snowplow_tracker import AsyncEmitter

from contenders.snowplow_sync import Snowplow

make = partial(Snowplow, emitter=AsyncEmitter)
