"""
What a sink lets `bizlog doctor` check: steps that say what they found, or why not.

The command runs them in order and ends at the first that fails; it knows them by their
form alone, since it imports no sink. Nothing here connects.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from bizlog.exceptions import SinkError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class CheckFailedError(SinkError):
    """
    A step that did not go well.

    Args:
        reason: What was seen, without secrets.
        advice: Likely causes and what to do about each, the likeliest first.
    """

    def __init__(self, reason: str, advice: tuple[str, ...] = ()) -> None:
        self.advice = advice
        super().__init__(reason)


class Check(msgspec.Struct, frozen=True):
    """
    One step.

    Attributes:
        name: What is checked, in a word or two.
        run: Gets the seconds it may take and says what it found; it raises
            CheckFailedError, or any SinkError.
    """

    name: str
    run: Callable[[float], Awaitable[str]]
