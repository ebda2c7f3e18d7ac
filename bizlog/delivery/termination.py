"""
SIGTERM in a script of its own: deliver what waits, then leave as the signal demands.

Only for who asks with `handle_sigterm=True`. One handler serves all engines; it comes
before the one that was there. Where that is the default, which ends the process, the
engines are shut down first, and the signal is raised again, so that the exit code says
what it always says. A handler of the host's may let the process live on: then they are
flushed, and it is called. The handler goes with the last engine's shutdown.
"""

from __future__ import annotations

import os
import signal
import threading
import time
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from bizlog import diagnostics

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType


class Ending(Protocol):
    """An engine, as far as it ends."""

    @property
    def shutdown_timeout(self) -> float:
        """Seconds that its end may take."""
        ...

    @property
    def is_closing_here(self) -> bool:
        """Whether the signal came while this very thread ended it."""
        ...

    def begin_flush(self) -> None:
        """Start flushing without waiting for it."""
        ...

    def flush(self, timeout: float) -> bool:
        """Wait until it has delivered."""
        ...

    def shutdown(self, timeout: float) -> bool:
        """Deliver, and end it."""
        ...


_watched: weakref.WeakSet[Ending] = weakref.WeakSet()


class _Handler:
    """
    The handler, and what it replaced.

    Attributes:
        replaced: What was there before; None while ours is not installed.
        postponed: Whether a signal waits for a shutdown that it came in the middle of.
    """

    def __init__(self) -> None:
        self.replaced: Callable[[int, FrameType | None], object] | int | None = None
        self.postponed = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        engines = list(_watched)
        if any(engine.is_closing_here for engine in engines):
            self.postponed = True
        elif callable(self.replaced):
            _end(engines, lambda engine, seconds: engine.flush(seconds))
            self.replaced(number, frame)
        elif self.replaced == signal.SIG_DFL:
            _end(engines, lambda engine, seconds: engine.shutdown(seconds))
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
            # The first process of a container survives the default: it was asked to
            # end all the same.
            os._exit(128 + number)

    def install(self) -> None:
        """Take the place of the handler that is there, on the main thread."""
        if self.replaced is not None:
            return
        # One that was not installed by Python cannot be called: it stays.
        if _current() is not None:
            with suppress(ValueError):
                self.replaced = signal.signal(signal.SIGTERM, self)
        if self.replaced is None:
            diagnostics.report(
                "handle_sigterm",
                "handle_sigterm does nothing here: only the main thread may set it "
                "up; configure bizlog there, or call bizlog.shutdown() at SIGTERM",
            )

    def remove(self) -> None:
        """Give the place back, unless somebody else has come to stand before us."""
        replaced = self.replaced
        here = threading.current_thread() is threading.main_thread()
        if here and replaced is not None and _current() is self:
            signal.signal(signal.SIGTERM, replaced)
            self.replaced = None
        if self.postponed:
            self.postponed = False
            signal.raise_signal(signal.SIGTERM)


_handler = _Handler()


def _current() -> object:
    return signal.getsignal(signal.SIGTERM)


def watch(engine: Ending) -> None:
    """Have an engine deliver at SIGTERM."""
    _watched.add(engine)
    _handler.install()


def forget(engine: Ending) -> None:
    """Let SIGTERM be, as far as this engine is concerned: it has ended."""
    _watched.discard(engine)
    if not _watched:
        _handler.remove()


def forget_all() -> None:
    """Forget the engines of the parent, in a forked child."""
    _watched.clear()


def _end(engines: list[Ending], how: Callable[[Ending, float], object]) -> None:
    longest = max((engine.shutdown_timeout for engine in engines), default=0.0)
    deadline = time.monotonic() + longest
    for engine in engines:
        engine.begin_flush()
    for engine in engines:
        how(engine, max(0.0, deadline - time.monotonic()))
