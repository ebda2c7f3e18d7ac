"""Ctrl-C that ends a run between two events, with its ledger, instead of anywhere."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Generator


class Interruption:
    """
    How often Ctrl-C was pressed.

    Attributes:
        presses: How often.
    """

    def __init__(self) -> None:
        self.presses = 0

    @property
    def asked(self) -> bool:
        """Whether the run is to end, with all that it has begun."""
        return self.presses > 0

    @property
    def urgent(self) -> bool:
        """Whether it is to end at once."""
        return self.presses > 1

    @contextmanager
    def caught(self, times: int = 2) -> Generator[None]:
        """
        Count Ctrl-C so many times; the next one interrupts whatever runs.

        An exception in the middle of an event would leave it counted nowhere, and one
        in the middle of a sink's code would pass for the sink's own failure.
        """
        with _handling(lambda: self._press() < times):
            yield

    def _press(self) -> int:
        self.presses += 1
        return self.presses


@contextmanager
def _handling(go_on: Callable[[], bool]) -> Generator[None]:
    """Call `go_on` at each Ctrl-C, until it says no."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread can set handlers
        return
    before = signal.getsignal(signal.SIGINT)

    def handle(*_: object) -> None:
        if not go_on():
            signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
