"""Ctrl-C that ends a run between two events, with its ledger, instead of anywhere."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Generator
    from types import FrameType


@contextmanager
def stopping(stop: threading.Event) -> Generator[None]:
    """
    Let Ctrl-C set `stop` between two events; a second Ctrl-C interrupts at once.

    An exception in the middle of one would leave that event counted nowhere.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)

    def interrupt(_: int, __: FrameType | None) -> None:
        signal.signal(signal.SIGINT, before)
        stop.set()

    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
