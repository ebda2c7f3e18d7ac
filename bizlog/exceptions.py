"""
The errors bizlog raises, and nothing else leaves it.

* BizlogError
  x ConfigurationError      settings that cannot work; lists every fault at once
  x RegistrationError       an event type that cannot be registered
  x InvalidEventError       an event that breaks its schema (raised in development only)
    + UnknownEventError     strict mode: a name outside the catalogue
  x MissingExtraError       a sink's packages are not installed (also an ImportError)
  x SinkError               raised by sinks towards the engine, never towards a caller
    + RetryableSinkError    the whole batch may be sent again
    + PermanentSinkError    the whole batch is refused for good
      * BatchTooLargeError  a smaller batch may be taken

Messages name settings, fields and types; they never hold the values of an event.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class BizlogError(Exception):
    """Base of every error that bizlog raises."""


class ConfigurationError(BizlogError):
    """
    Settings that cannot work.

    Args:
        problems: One sentence for each fault: the setting, what was found, what was
            expected and how to mend it.
    """

    def __init__(self, problems: Sequence[str] | str) -> None:
        self.problems = (problems,) if isinstance(problems, str) else tuple(problems)
        super().__init__(self._message())

    def _message(self) -> str:
        if len(self.problems) == 1:
            return self.problems[0]
        lines = "".join(f"\n  - {problem}" for problem in self.problems)
        return f"{len(self.problems)} settings cannot work:{lines}"


class RegistrationError(BizlogError):
    """An event class that cannot be registered: its name is taken or malformed."""


class InvalidEventError(BizlogError):
    """
    An event that breaks its schema.

    Args:
        reason: What was expected and which type was found, without the value.
        path: Where, as a JSON path (`$.product_price`); None when it is the whole.
    """

    def __init__(self, reason: str, path: str | None = None) -> None:
        self.reason = reason
        self.path = path
        super().__init__(f"{path}: {reason}" if path else reason)


class UnknownEventError(InvalidEventError):
    """Strict mode met a name that is neither in the catalogue nor registered."""


class MissingExtraError(BizlogError, ImportError):
    """
    An optional package is not installed.

    Args:
        what: The part of bizlog that needs it.
        extra: The extra that installs it.
    """

    def __init__(self, what: str, extra: str) -> None:
        self.what = what
        self.extra = extra
        super().__init__(
            f"{what} needs packages that are not installed: "
            f"run  pip install 'bizlog[{extra}]'"
        )

    def __reduce__(self) -> tuple[type[MissingExtraError], tuple[str, str]]:
        return type(self), (self.what, self.extra)


class SinkError(BizlogError):
    """A sink could not take a batch."""


class RetryableSinkError(SinkError):
    """
    The whole batch may be sent again.

    Args:
        reason: What the destination said.
        retry_after: Seconds the destination asked to wait, or None.
    """

    def __init__(self, reason: str, retry_after: float | None = None) -> None:
        self.retry_after = retry_after
        super().__init__(reason)


class PermanentSinkError(SinkError):
    """The whole batch is refused for good: sending it again cannot help."""


class BatchTooLargeError(PermanentSinkError):
    """
    The destination takes no batch of this size.

    It is split; a single event of this size goes to the dead letters.
    """
