"""Which hubs a connection may use, and until when. No I/O; the clock is given."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from bizlog.dev.eventhubs.addresses import path_of

if TYPE_CHECKING:
    from collections.abc import Callable


class Grants:
    """
    The tokens put on one connection.

    Args:
        clock: Seconds, as the loop counts them.
        lifetime: The seconds after which every token expires; None leaves that to the
            token itself.
    """

    def __init__(self, clock: Callable[[], float], lifetime: float | None) -> None:
        self._clock = clock
        self._lifetime = lifetime
        self._until: dict[str, float] = {}

    def put(self, audience: str, token: str) -> None:
        """Take a token that was found good; it replaces the one before."""
        left = expires_in(token, time.time())
        if self._lifetime is not None:
            left = min(left, self._lifetime)
        self._until[path_of(audience).lower()] = self._clock() + left

    def cover(self, hub: str) -> bool:
        """
        Whether a token allows to use a hub.

        The empty name, which `$management` and `$cbs` have, needs none.
        """
        now, wanted = self._clock(), hub.lower()
        return not wanted or any(
            until > now and path.split("/")[0] in {"", wanted}
            for path, until in self._until.items()
        )

    def next_expiry(self) -> float | None:
        """When the next token expires, by the clock; None if none does."""
        now = self._clock()
        return min((u for u in self._until.values() if now < u < _NEVER), default=None)


_NEVER = float("inf")


def expires_in(token: str, now: float) -> float:
    """Read the seconds a shared access signature has left; other tokens: no end."""
    fields = parse_qs(token.partition(" ")[2])
    expiry = fields.get("se", [""])[0]
    return float(expiry) - now if expiry.isdigit() else _NEVER
