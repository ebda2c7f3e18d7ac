"""
What bizlog says about itself: rate-limited lines on the logger `bizlog`.

The logger does not propagate, so that our lines never reach a host's handlers (one of
which may lead back into bizlog); add a handler to `logging.getLogger("bizlog")` to
collect them. Without one, warnings go to stderr. Such a handler is foreign code: what
it raises stays here, what it logs on this logger in its turn is held back, and what it
logs elsewhere becomes no event. Called on bizlog's thread and from `configure`, never
on the emit path: logging takes locks. The rate limit itself takes none.
"""

from __future__ import annotations

import logging
import os
import threading
import time

from bizlog import separation

INTERVAL_SECONDS = 60.0

# Names of sinks are among the topics; further ones share the last place.
MOST_TOPICS = 200
OTHER = "other"

logger = logging.getLogger("bizlog")
logger.propagate = False


class _Topic:
    """
    One kind of trouble.

    Attributes:
        turn: A token; whoever takes it out may speak, which is atomic.
        due_at: When the next line may be told.
        held_back: Reports that were not told since the last line.
    """

    __slots__ = ("due_at", "held_back", "turn")

    def __init__(self) -> None:
        self.turn = [True]
        self.due_at = float("-inf")
        self.held_back = 0


_last: dict[str, _Topic] = {}

# The threads that are telling a line; True until it is on its way to the handlers.
_speaking: dict[int, bool] = {}


def report(topic: str, message: str, level: int = logging.WARNING) -> None:
    """
    Log a line, at most once a minute for each topic.

    The next line of a topic tells how many were held back before it. Whatever a handler
    raises does not reach the caller, but for `KeyboardInterrupt`.

    Args:
        topic: What the rate limit counts by (a sink's name, a kind of loss).
        message: What happened and what to do; no values of events.
        level: Level of the line.
    """
    about = _topic(topic)
    try:
        about.turn.pop()
    except IndexError:  # another thread speaks about it, or this one further out
        about.held_back += 1
        return
    try:
        _tell(about, message, level)
    finally:
        about.turn.append(True)


def _topic(name: str) -> _Topic:
    known = _last.get(name)
    if known is None:
        name = name if len(_last) < MOST_TOPICS else OTHER
        known = _last.setdefault(name, _Topic())
    return known


def _tell(about: _Topic, message: str, level: int) -> None:
    now = time.monotonic()
    if now < about.due_at or threading.get_ident() in _speaking:
        about.held_back += 1
        return
    about.due_at = now + INTERVAL_SECONDS
    before, about.held_back = about.held_back, 0
    if before:
        message = f"{message} ({before} more reports of this kind since the last line)"
    if not _speak(message, level):
        about.held_back += before + 1


def _speak(line: str, level: int) -> bool:
    thread = threading.get_ident()
    _speaking[thread] = True
    entry = separation.mark()
    try:
        logger.log(level, "bizlog: %s", line)
    except KeyboardInterrupt:
        raise
    except BaseException:  # noqa: BLE001  # a CancelledError would end a lane
        return False
    finally:
        separation.leave(entry)
        del _speaking[thread]
    return True


def _is_first(_: logging.LogRecord) -> bool:
    """Let one record a line pass: a handler may log here, but not without end."""
    thread = threading.get_ident()
    first = _speaking.get(thread, True)
    if thread in _speaking:
        _speaking[thread] = False
    return first


logger.addFilter(_is_first)


def _give_turns_back() -> None:
    """Free what other threads of the parent held: they are not in the child."""
    _speaking.clear()
    for about in _last.values():
        about.turn[:] = [True]


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_give_turns_back)
